"""Commands: what one service asks of another. Each may carry many items: batches are cheap."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts.content import Content, Sendable
from shared.contracts.model import Command, Contract
from shared.contracts.questions import Answer, Question


class Dispatch(Command):
    """To the dispatcher: these instances have something to send. Mere news: sweeps mend a loss."""

    TYPE: ClassVar[str] = "dispatch"
    instance_ids: tuple[UUID, ...]


class Transmission(Contract):
    """One hand-over of one message to the engine.

    ``engine_message_id`` is allocated before the wire and the same for every attempt of a message.
    """

    transmission_id: UUID
    message_id: UUID
    tenant_id: UUID
    instance_id: UUID
    attempt: int
    to: str
    content: Sendable
    engine_message_id: str
    request_id: str | None = None


class Transmit(Command):
    """To the owner of a shard: hand these over now.

    Repeated by the dispatcher until the hand-over is recorded, so it may come twice; a transmission
    is carried out once.
    """

    TYPE: ClassVar[str] = "transmit"
    shard: int
    transmissions: tuple[Transmission, ...]


class TransmissionOutcome(StrEnum):
    """What became of a hand-over."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"


class SettledTransmission(Contract):
    """How one hand-over ended. ``retry_after`` is in seconds, if WhatsApp named a time."""

    transmission_id: UUID
    message_id: UUID
    instance_id: UUID
    outcome: TransmissionOutcome
    at: datetime
    engine_message_id: str | None = None
    code: str | None = None
    detail: str | None = None
    retry_after: float | None = None
    unconfirmed_after: float | None = None


class TransmissionsSettled(Command):
    """To the dispatcher: these hand-overs have ended."""

    TYPE: ClassVar[str] = "transmissions_settled"
    settled: tuple[SettledTransmission, ...]


class Receipt(Contract):
    """WhatsApp says that a message was sent, delivered or read. May come twice and in any order.

    It may even come before the report that the message was accepted, so it names the id too that
    the engine has used. With ``failed`` WhatsApp takes back that it has accepted the message;
    ``code`` and ``detail`` say why.
    """

    message_id: UUID
    instance_id: UUID
    kind: Literal["sent", "delivered", "read", "failed"]
    at: datetime
    engine_message_id: str | None = None
    code: str | None = None
    detail: str | None = None


class ReceiptsReported(Command):
    """To the dispatcher: these receipts have come in."""

    TYPE: ClassVar[str] = "receipts_reported"
    receipts: tuple[Receipt, ...]


class ConnectInstance(Command):
    """To the owner of a shard: the instance's row says that it should be connected; look at it.

    With ``restart``, drop a connection that is there and make a new one.
    """

    TYPE: ClassVar[str] = "connect_instance"
    instance_id: UUID
    request_id: str | None = None
    restart: bool = False


class DisconnectInstance(Command):
    """To the owner of a shard: the instance's row says that it should not be connected; look at it.

    With ``logout``, unlink the device as well: it is ``logged_out`` then and must be paired again.
    """

    TYPE: ClassVar[str] = "disconnect_instance"
    instance_id: UUID
    request_id: str | None = None
    logout: bool = False


class ScanSandboxQr(Command):
    """To the owner of a shard: pretend that a phone scanned this sandbox instance's QR code."""

    TYPE: ClassVar[str] = "scan_sandbox_qr"
    instance_id: UUID


class WriteFromSandboxContact(Command):
    """To the owner of a shard: have a contact write to a sandbox instance, or react, edit, revoke.

    ``engine_message_id`` is the new message's, or the target's for the other actions. With
    ``group`` it happens there. Media of a contact is the tenant's file ``media_id``, if it has one.
    """

    TYPE: ClassVar[str] = "write_from_sandbox_contact"
    instance_id: UUID
    from_: str
    push_name: str | None = None
    action: Literal["message", "edit", "revoke", "reaction"] = "message"
    engine_message_id: str
    content: Content | None = None
    emoji: str | None = None
    reply_to: str | None = None
    group: str | None = None


class TakeCallbacks(Command):
    """To the owner of a shard: callbacks are stored for instances of yours; look at them.

    Mere news: whoever owns the shard also looks by itself.
    """

    TYPE: ClassVar[str] = "take_callbacks"
    shard: int


class MarkRead(Command):
    """To the owner of a shard: tell a chat that these messages were read, or listened to.

    Repeating it does no harm; if it is lost, so is the receipt, and nothing else.
    """

    TYPE: ClassVar[str] = "mark_read"
    instance_id: UUID
    chat: str
    sender: str
    engine_message_ids: tuple[str, ...]
    played: bool = False
    request_id: str | None = None


class ShowPresence(Command):
    """To the owner of a shard: show a chat that somebody is typing or recording, or has stopped.

    Too late after ``until``: it is dropped then.
    """

    TYPE: ClassVar[str] = "show_presence"
    instance_id: UUID
    chat: str
    state: Literal["typing", "recording", "paused"]
    until: datetime
    request_id: str | None = None


class AskInstance(Command):
    """To the owner of a shard: ask WhatsApp this, and answer to ``reply_to``.

    ``reply_to`` is the routing key of who waits. After ``until`` nobody does: it is dropped then.
    """

    TYPE: ClassVar[str] = "ask_instance"
    ask_id: UUID
    instance_id: UUID
    question: Question
    reply_to: str
    until: datetime
    request_id: str | None = None


class Refusal(Contract):
    """Why a question was not answered: an error code of ours and a sentence for the caller."""

    code: str
    message: str


class InstanceAnswered(Command):
    """To the gateway replica that has asked: the answer, or why there is none. May come twice."""

    TYPE: ClassVar[str] = "instance_answered"
    ask_id: UUID
    answer: Answer | None = None
    refusal: Refusal | None = None


class LookAgain(Command):
    """To every replica of the gateway: what you remember of these has changed; read it anew.

    Mere news, told after the commit: where it is not heard, what is remembered becomes too old by
    itself within seconds. ``digests`` are of keys, in hexadecimal; ``logins`` are session ids.
    """

    TYPE: ClassVar[str] = "look_again"
    digests: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    logins: tuple[UUID, ...] = ()
    users: tuple[UUID, ...] = ()
    instances: tuple[UUID, ...] = ()


class TestEndpoint(Command):
    """To webhooks: deliver a ``test`` event to this endpoint now, whatever it subscribes to."""

    TYPE: ClassVar[str] = "test_endpoint"
    endpoint_id: UUID
    event_id: UUID
    request_id: str | None = None


COMMANDS: dict[str, type[Command]] = {
    command.TYPE: command
    for command in (
        Dispatch,
        Transmit,
        TransmissionsSettled,
        ReceiptsReported,
        ConnectInstance,
        DisconnectInstance,
        ScanSandboxQr,
        WriteFromSandboxContact,
        TakeCallbacks,
        MarkRead,
        ShowPresence,
        AskInstance,
        InstanceAnswered,
        LookAgain,
        TestEndpoint,
    )
}
