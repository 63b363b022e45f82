"""What engines must be capable of, as both who offers them and who asks them see it."""

from typing import get_args

import pytest

from services.gateway.domain import capabilities, engines
from services.sessions.engines.cloud_api.engine import CloudApiEngine
from services.sessions.engines.port import Engine
from services.sessions.engines.sandbox.engine import SandboxEngine
from services.sessions.engines.whatsmeow.engine import WhatsmeowEngine
from shared.contracts.capabilities import Capability, needed_to_say
from shared.contracts.content import Sendable

KNOWN: tuple[type[Engine], ...] = (SandboxEngine, WhatsmeowEngine, CloudApiEngine)


def test_every_kind_that_can_be_sent_needs_a_capability() -> None:
    union, *_ = get_args(Sendable)
    kinds = {
        kind
        for model in get_args(union)
        for kind in get_args(model.model_fields["kind"].annotation)
    }
    needed = {kind: needed_to_say(kind) for kind in kinds}
    assert needed["voice"] is Capability.MEDIA
    assert needed["revoke"] is Capability.REVOKE
    with pytest.raises(KeyError):
        needed_to_say("poll_vote")


def test_a_message_to_a_group_needs_groups_too() -> None:
    person, group = "12025550199@s.whatsapp.net", "120363000000000001@g.us"
    assert capabilities.needed("poll", chat=person) == {Capability.POLL}
    assert capabilities.needed("text", chat=group) == {Capability.TEXT, Capability.GROUPS}


def test_every_engine_is_offered_as_what_it_is() -> None:
    offered = {name: engines.capabilities(name) for name in engines.ENGINES}
    assert offered == {engine.kind: engine.capabilities for engine in KNOWN}
    assert engines.capabilities("carrier pigeon") == frozenset()
