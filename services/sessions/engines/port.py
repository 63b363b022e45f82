"""What the session service asks of a way to reach WhatsApp, and what it is told by one."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal, Protocol
from uuid import UUID

from services.sessions.domain.lease import Lease
from shared.contracts.capabilities import Capability
from shared.contracts.content import (
    Content,
    Identity,
    Sendable,
)
from shared.contracts.questions import (
    Answer,
    ChangeMembers,
    CheckNumbers,
    CreateGroup,
    LeaveGroup,
    ListGroups,
    PairByCode,
    Question,
    TellGroup,
    TellInviteLink,
    TellProfile,
)
from shared.errors import Rejected, Transient


class NotOnWhatsApp(Rejected):
    """Nobody has this number on WhatsApp."""

    code = "NOT_ON_WHATSAPP"


class Refused(Rejected):
    """WhatsApp refuses this message for good."""

    code = "REJECTED"


class Unsupported(Rejected):
    """This engine cannot say this; another might."""

    code = "UNSUPPORTED"


class Retryable(Transient):
    """WhatsApp did not take the message this time, and it is certain that it did not."""

    code = "RETRYABLE"


class SessionDown(Transient):
    """There is no connection to hand the message to, so it was not handed over."""

    code = "SESSION_DOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Which session to open, for whom, and by what right.

    Whatever an engine keeps for a session it writes under ``lease``, so that a process that lost
    the shard cannot spoil what the next one goes on with.
    """

    instance_id: UUID
    tenant_id: UUID
    lease: Lease
    phone_number: str | None
    settings: Mapping[str, object]
    proxy: str | None = None
    device_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file on this machine, checked and ready to be sent; ``size`` is in bytes.

    It stays where it is until the engine's call has returned.
    """

    path: Path
    mime_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to hand over. ``to`` is a canonical address; media comes with its file."""

    engine_message_id: str
    to: str
    content: Sendable
    attachment: Attachment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmitted:
    """WhatsApp has taken the message, under this id."""

    engine_message_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that an engine reports about one session."""

    instance_id: UUID
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Qr(Happening):
    """A code waits to be scanned; the one before is void."""

    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired(Happening):
    """A phone has linked this device. ``phone_number`` has a ``+``. ``Connected`` follows."""

    phone_number: str
    device_info: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Happening):
    """The session can send and receive."""

    phone_number: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Happening):
    """The connection is gone. With ``will_retry`` the engine brings it back and says ``Connected``.

    Without, this ends the session.
    """

    reason: str
    will_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut(Happening):
    """The phone unlinked this device, or WhatsApp did. Ends the session; credentials are gone."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banned(Happening):
    """WhatsApp has banned the number, for good unless ``until`` is known. Ends the session."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Happening):
    """The engine gives up on this session for a reason of its own. Ends the session."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced(Happening):
    """The same device has connected from elsewhere. Ends the session.

    Nobody else should have its credentials but the shard's next owner, so whoever hears this asks
    whether the lease still holds before doing anything.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaf(Happening):
    """The session looks connected and hears nothing; the engine tries to mend it."""

    reason: str
    last_heard_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindered(Happening):
    """An attempt to connect has failed; the engine tries again by itself."""

    reason: str


Ending = Disconnected | LoggedOut | Banned | Failed | Replaced
SessionHappening = Qr | Paired | Connected | Deaf | Hindered | Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza(Happening):
    """Something that WhatsApp delivers until it is acknowledged.

    ``stanza_key`` is a function of WhatsApp's own ids: the same thing delivered again has the same
    key. ``chat`` is the conversation, ``sender`` who acted in it; both canonical.
    """

    stanza_key: str
    chat: str
    sender: Identity


MediaHandle = Mapping[str, str]
"""What an engine needs to fetch a file that somebody sent, in its own terms. Secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived(Stanza):
    """Somebody wrote to the account. Media comes with the handle to fetch it by."""

    engine_message_id: str
    content: Content
    reply_to: str | None = None
    media: MediaHandle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEdited(Stanza):
    """Somebody changed the words of a message of theirs."""

    target_id: str
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRevoked(Stanza):
    """Somebody deleted a message for everyone: their own, or ``author``'s in a group they run."""

    target_id: str
    author: Identity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction(Stanza):
    """Somebody reacted to a message, anybody's. An empty ``emoji`` takes the reaction back.

    ``author`` wrote that message, if neither ``sender`` nor the account did.
    """

    target_id: str
    emoji: str
    author: Identity | None = None


Incoming = MessageReceived | MessageEdited | MessageRevoked | Reaction


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChanged(Happening):
    """A receipt for a message that the account sent. May come doubled and in any order.

    ``failed`` takes back that the message was accepted; ``reason`` says why. From an engine that
    chooses ids by itself, ``client_message_id`` is the id that the message was handed over under,
    if WhatsApp tells that too: so a message is found whose hand-over was never answered.
    """

    engine_message_id: str
    status: Literal["sent", "delivered", "read", "failed"]
    client_message_id: str | None = None
    reason: str | None = None


EngineEvent = SessionHappening | Incoming | StatusChanged


class Sink(Protocol):
    """Where an engine puts what happens, for any number of sessions at once."""

    async def __call__(self, events: Sequence[EngineEvent]) -> Sequence[bool]:
        """Return once the events are committed: for each, whether it is.

        Only then may the engine acknowledge it to WhatsApp. What was not committed must be offered
        again after a while (a second or so), unless the session is closed first: the reason is
        usually that another process owns it by now, and will be told by WhatsApp itself. Raises
        ``Transient`` if the database is away; then nothing was committed.
        """
        ...


class Engine(Protocol):
    """A way to reach WhatsApp, for many sessions at once."""

    kind: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]

    def events(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Be at work for as long as the context is open, and put what happens into ``sink``.

        Entered before the first ``open`` and left after the last ``close``. On exit everything
        that the engine has started has ended. An engine offers a session's events in the order in
        which they happened.
        """
        ...

    async def open(self, opening: Opening) -> None:
        """Bring up a session; return as soon as it is looked after, not when it is connected.

        Whether it connects, with stored credentials or after a code was scanned, is told by
        events; the engine reconnects by itself until it has said that the session has ended. Does
        nothing if the session is open under the same lease. Raises ``Rejected`` if it can never be
        opened with these settings, and ``Transient`` if the same call may succeed later.
        """
        ...

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        """Hand one message to WhatsApp; return once it has been accepted.

        Raises ``Rejected`` if it never will be (``NotOnWhatsApp``, ``Refused``, ``Unsupported``),
        ``Transient`` if it certainly was not taken and may be handed over again (``Retryable``,
        ``SessionDown``; ``Throttled`` with when), and ``Fenced`` if the session's lease is no
        longer valid. If none of that is known, raises ``Unconfirmed``: repeating it might say it
        twice. The same holds if the call is cancelled.
        """
        ...

    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        """Ask WhatsApp something, and return its answer, of the kind that the question names.

        Raises ``Rejected`` if it refuses (``Unsupported`` if this engine cannot ask it),
        ``Transient`` if it may be asked again (``SessionDown``), and ``Unconfirmed`` if a question
        that changes something was asked and not answered.
        """
        ...

    async def mark_read(
        self,
        instance_id: UUID,
        *,
        chat: str,
        sender: str,
        engine_message_ids: Sequence[str],
        played: bool = False,
    ) -> None:
        """Tell ``chat`` that messages of ``sender`` were read. Raises as ``ask`` does."""
        ...

    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        """Show ``chat`` what the account is doing. Raises as ``ask`` does."""
        ...

    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        """Write a file that somebody sent to ``into``, which does not exist yet, decrypted.

        Raises ``Rejected`` if it is gone for good and ``Transient`` if it may be tried again.
        """
        ...

    async def close(self, instance_id: UUID) -> None:
        """Let go of a session.

        When it returns, no event of this session is being offered and nothing is being sent for
        it. Does nothing if it is not open. Not called for a session that has ended by an event:
        after offering that, the engine has let go by itself.
        """
        ...

    async def forget(self, opening: Opening) -> None:
        """Close a session if it is open, unlink its device, and erase its credentials.

        If WhatsApp cannot be told just now, the phone lists the device for some weeks more. Raises
        ``Fenced`` if the lease is not valid any more, having erased nothing, and ``Transient`` if
        the same call may succeed later; the session is closed all the same.
        """
        ...


def capable(engine: Engine, capability: Capability) -> None:
    """Raise ``Unsupported`` unless the engine can do this; its message tells what it can do."""
    if capability not in engine.capabilities:
        able = ", ".join(sorted(engine.capabilities))
        raise Unsupported(f"The {engine.kind} engine has no {capability.value}; it has: {able}.")


def needed_to_ask(question: Question) -> Capability:
    """What an engine must be capable of to be asked this."""
    match question:
        case PairByCode():
            return Capability.PAIRING_CODE
        case CheckNumbers():
            return Capability.NUMBER_CHECK
        case TellProfile():
            return Capability.PROFILE
        case (
            ListGroups()
            | TellGroup()
            | CreateGroup()
            | ChangeMembers()
            | TellInviteLink()
            | LeaveGroup()
        ):
            return Capability.GROUPS
