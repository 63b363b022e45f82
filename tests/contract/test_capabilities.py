"""What the gateway believes that engines can do is what they say of themselves."""

from services.gateway.domain import capabilities, engines
from services.gateway.domain.capabilities import Capability
from services.sessions.engines import port
from services.sessions.engines.port import Engine
from services.sessions.engines.sandbox.engine import SandboxEngine
from services.sessions.engines.whatsmeow.engine import WhatsmeowEngine

KNOWN: tuple[type[Engine], ...] = (SandboxEngine, WhatsmeowEngine)


def test_both_know_the_same_capabilities() -> None:
    assert {one.value for one in Capability} == {one.value for one in port.Capability}


def test_the_gateway_refuses_what_an_engine_cannot_do_and_nothing_else() -> None:
    assert {engine.kind for engine in KNOWN} == set(engines.ENGINES)
    for engine in KNOWN:
        assert {one.value for one in engines.capabilities(engine.kind)} == {
            one.value for one in engine.capabilities
        }, engine.kind


def test_each_kind_of_message_needs_the_same_on_both_sides() -> None:
    for kind, needs in {
        "text": port.Capability.TEXT,
        "image": port.Capability.MEDIA,
        "sticker": port.Capability.MEDIA,
        "location": port.Capability.LOCATION,
        "contact": port.Capability.CONTACT,
        "poll": port.Capability.POLL,
        "reaction": port.Capability.REACTION,
        "edit": port.Capability.EDIT,
        "revoke": port.Capability.REVOKE,
    }.items():
        chat = "12025550199@s.whatsapp.net"
        assert {one.value for one in capabilities.needed(kind, chat=chat)} == {needs.value}
    group = capabilities.needed("text", chat="120363000000000001@g.us")
    assert group == {Capability.TEXT, Capability.GROUPS}
