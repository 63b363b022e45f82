"""What crosses the socket between a worker and its supervisor, and comes out the same."""

import socket
import struct
from datetime import timedelta
from typing import Any

import pytest

from services.sessions.engines.port import (
    EngineEvent,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
    NotOnWhatsApp,
    Reaction,
    SessionDown,
    StatusChanged,
)
from services.sessions.engines.whatsmeow import wire
from services.sessions.engines.whatsmeow.arrivals import Arrivals
from services.sessions.engines.whatsmeow.credentials import store_url
from services.sessions.engines.whatsmeow.pairing import why_pairing_ended
from services.sessions.engines.whatsmeow.proxies import checked, name
from services.sessions.engines.whatsmeow.tunnels import Way
from services.sessions.engines.whatsmeow.wire import Link
from shared.contracts.content import Identity, Media, Text
from shared.errors import Conflict, NotFound, PlatformError, Rejected, Throttled, Unconfirmed
from shared.ids import new_id
from tests.support.builders import NOON

ALICE = Identity(phone="+4915100000001", lid="77@lid", chat_id="4915100000001@s.whatsapp.net")
HEAD: dict[str, Any] = {
    "instance_id": new_id(),
    "at": NOON,
    "stanza_key": "k",
    "chat": "c",
    "sender": ALICE,
}


@pytest.mark.parametrize(
    "event",
    [
        MessageReceived(**HEAD, engine_message_id="1", content=Text(text="Hi"), reply_to="0"),
        MessageReceived(
            **HEAD,
            engine_message_id="2",
            content=Media(kind="image", mime_type="image/png", size=3),
            media={"key": "secret"},
        ),
        MessageEdited(**HEAD, target_id="1", content=Text(text="Ho")),
        MessageRevoked(**HEAD, target_id="1", author=ALICE),
        Reaction(**HEAD, target_id="1", emoji="👍"),
        StatusChanged(
            instance_id=HEAD["instance_id"], at=NOON, engine_message_id="1", status="read"
        ),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_comes_out_as_it_went_in(event: EngineEvent) -> None:
    assert wire.event_from_frame(wire.event_to_frame(event)) == event


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotOnWhatsApp("nobody"), NotOnWhatsApp),
        (SessionDown("down"), SessionDown),
        (Unconfirmed("who knows"), Unconfirmed),
        (NotFound("nothing"), NotFound),
        (Rejected("too large", code="MEDIA_TOO_LARGE", data={"limit": 3}), Rejected),
    ],
)
def test_an_error_comes_out_as_it_went_in(
    error: PlatformError, expected: type[PlatformError]
) -> None:
    read = wire.error_from_frame(wire.error_to_frame(error))
    assert type(read) is expected
    assert (read.code, read.message, read.data) == (error.code, error.message, error.data)


def test_an_error_that_the_other_side_does_not_know_is_one_of_its_family() -> None:
    class Novel(Conflict):
        code = "NOVEL"

    read = wire.error_from_frame(wire.error_to_frame(Novel("new")))
    assert (type(read), read.code) == (Conflict, "NOVEL")


def test_when_to_try_again_comes_along() -> None:
    error = Throttled("slowly", retry_after=timedelta(seconds=7))
    read = wire.error_from_frame(wire.error_to_frame(error))
    assert isinstance(read, Throttled)
    assert read.retry_after == timedelta(seconds=7)


async def test_frames_come_whole_and_in_order_until_the_other_side_goes() -> None:
    ours, theirs = socket.socketpair()
    near, far = await Link.over(ours), await Link.over(theirs)
    near.say("one", text="x" * 100_000)
    near.say("two", number=2)
    assert (await far.next())["do"] == "one"
    assert await far.next() == {"do": "two", "number": 2}
    near.close()
    with pytest.raises(EOFError):
        await far.next()
    far.say("nobody listens")
    far.close()


async def test_a_frame_that_nobody_would_send_ends_the_link() -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    theirs.sendall(struct.pack(">I", wire.MOST + 1))
    with pytest.raises(EOFError):
        await link.next()
    link.close()
    theirs.close()


def test_the_store_is_the_same_database_under_the_services_role() -> None:
    url = store_url("postgresql+asyncpg://me:s%40cret@db:5433/waypost?timeout=3", role="someone")
    assert url.startswith("postgres://me:s%40cret@db:5433/waypost?")
    assert "search_path=whatsmeow&role=someone" in url
    assert "sslmode=prefer" in url
    assert "timeout=3" not in url.replace("_timeout=", "")
    assert "sslmode=verify-full" in store_url("postgres://db/x?sslmode=verify-full", role="r")


def test_the_store_may_be_reached_by_a_socket() -> None:
    url = store_url("postgresql://postgres@/postgres?host=/run/waypost&port=5432", role="someone")
    assert url.startswith("postgres://postgres@/postgres?")
    assert "host=%2Frun%2Fwaypost&port=5432" in url


def test_a_proxy_is_named_without_its_password() -> None:
    assert name("socks5://user:secret@proxy.example.com") == "socks5://proxy.example.com:1080"
    assert Way(url="http://[2001:db8::1]:8080").place == ("2001:db8::1", 8080)
    with pytest.raises(Rejected):
        checked("gopher://proxy.example.com")


async def test_what_came_of_late_is_known_once_it_is_committed() -> None:
    arrivals = Arrivals()
    assert not await arrivals.committed("1")
    arrivals.expect("message|chat|sender|1")
    arrivals.commit("message|chat|sender|1")
    assert await arrivals.committed("1")


@pytest.mark.parametrize(
    ("word", "seconds", "reason"),
    [
        ("success", 1, None),
        ("timeout", 20, "pairing_timeout"),
        ("timeout", 3, "connection_lost"),
        ("err-client-outdated", 1, "client_outdated"),
        ("passkey-request", 1, "passkey_required"),
        ("err-unexpected-state", 1, "pairing_failed"),
    ],
)
def test_the_last_word_about_a_pairing_has_a_reason(
    word: str, seconds: int, reason: str | None
) -> None:
    assert why_pairing_ended(word, since=timedelta(seconds=seconds)) == reason
