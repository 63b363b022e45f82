"""Events: what has happened, for our own services, for webhooks and for subscribers alike.

Each says when it is emitted, what it is not, and what follows. Adding an optional field is
compatible; anything else is a new version, published beside the old one.
"""

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.content import Content, Identity
from shared.contracts.model import Event, Moment, PublicContract

InstanceStatusName = Literal[
    "created",
    "connecting",
    "qr",
    "pairing",
    "ready",
    "disconnected",
    "logged_out",
    "banned",
    "failed",
]

SystemState = Literal["operational", "maintenance", "degraded", "outage"]


class Failure(PublicContract):
    """Why a message failed: a stable code and a sentence for people."""

    code: str
    message: str


class MessageEvent(Event):
    """What every event about a message tells. ``message_id`` is the one that the API returns.

    ``group_id`` is the group that somebody wrote or acted in, absent in a chat of two: to answer
    there, send to it. ``identity`` is who it was, in either.
    """

    message_id: str
    from_: str = Field(alias="from")
    to: str
    message_type: str
    timestamp: Moment
    identity: Identity
    group_id: str | None = None


class MessageReceived(MessageEvent):
    """Somebody wrote to an instance.

    Emitted once for each message, whatever address it came under and however often WhatsApp
    delivers it. Not emitted for what the account itself writes. Edits and revocations follow as
    events of their own.
    """

    TYPE: ClassVar[str] = "message.received"
    content: Content
    engine_message_id: str
    reply_to: str | None = None


class OutboundEvent(MessageEvent):
    """What every event about a message that Waypost sends tells."""

    engine_message_id: str | None = None
    metadata: dict[str, str] | None = None


class MessageSent(OutboundEvent):
    """WhatsApp has accepted the message.

    Emitted once. Not a promise that it reached anybody: ``message.delivered`` says that, and may
    follow, as may ``message.read``.
    """

    TYPE: ClassVar[str] = "message.sent"


class MessageDelivered(OutboundEvent):
    """The message is on a device of the recipient. Emitted once, after ``message.sent``."""

    TYPE: ClassVar[str] = "message.delivered"


class MessageRead(OutboundEvent):
    """The recipient has opened the message.

    Emitted once, after ``message.sent``. Recipients who hide read receipts never cause it. When
    WhatsApp tells of reading first, ``message.delivered`` does not follow.
    """

    TYPE: ClassVar[str] = "message.read"


class MessageFailed(OutboundEvent):
    """The message will not be sent, and why.

    Emitted once, instead of ``message.sent``; nothing follows. Meta's Cloud API may find out only
    after it has accepted a message that it cannot be sent; there it may come after that, too.
    """

    TYPE: ClassVar[str] = "message.failed"
    error: Failure


class MessageEdited(MessageEvent):
    """A message that was received has new words. ``message_id`` is the first message's."""

    TYPE: ClassVar[str] = "message.edited"
    content: Content


class MessageRevoked(MessageEvent):
    """A message that was received has been deleted for everyone by who wrote it."""

    TYPE: ClassVar[str] = "message.revoked"


class MessageReaction(MessageEvent):
    """Somebody reacted to a message. An empty ``emoji`` takes the reaction back."""

    TYPE: ClassVar[str] = "message.reaction"
    emoji: str


class InstanceStatus(Event):
    """An instance's status is another one than before.

    Emitted on every change, beside the more telling event of the same moment.
    """

    TYPE: ClassVar[str] = "instance.status"
    status: InstanceStatusName
    reason: str | None = None
    since: Moment


class InstanceQr(Event):
    """A QR code waits to be scanned. Emitted for every new code; the old one is void then."""

    TYPE: ClassVar[str] = "instance.qr"
    code: str
    expires_at: Moment


class InstanceConnected(Event):
    """An instance can send and receive. Emitted after pairing and after every reconnect."""

    TYPE: ClassVar[str] = "instance.connected"
    phone_number: str | None = None


class InstanceDisconnected(Event):
    """An instance can neither send nor receive.

    With ``will_retry`` it comes back by itself and ``instance.connected`` follows; without,
    somebody has to connect or pair it again.
    """

    TYPE: ClassVar[str] = "instance.disconnected"
    reason: str
    will_retry: bool


class ConnectionUpdate(Event):
    """Something has happened on the way to a connection, or on the way back to one.

    Emitted for every attempt that fails and for every pairing code. Not a change of status: those
    are ``instance.status``. ``code`` is for the phone to type in, until ``expires_at``.
    """

    TYPE: ClassVar[str] = "connection.update"
    connection: Literal["pairing_code", "retrying", "refused"]
    reason: str | None = None
    code: str | None = None
    expires_at: Moment | None = None


class SessionDegraded(Event):
    """An instance is connected and hears nothing: WhatsApp does not answer its keepalives.

    Emitted once until it answers again or is reconnected, which is tried by itself; messages wait
    or end as unconfirmed meanwhile. ``last_heard_at`` is when WhatsApp last sent anything.
    """

    TYPE: ClassVar[str] = "session.degraded"
    reason: str
    last_heard_at: Moment | None = None


class WebhookDisabled(Event):
    """An endpoint gets nothing any more, because it answered 410 or failed for five days.

    Its waiting deliveries end as disabled. Enabling it again emits ``webhook.recovered`` with its
    first success.
    """

    TYPE: ClassVar[str] = "webhook.disabled"
    webhook_id: str
    url: str
    reason: str


class WebhookRecovered(Event):
    """An endpoint that had been failing has answered with success again."""

    TYPE: ClassVar[str] = "webhook.recovered"
    webhook_id: str
    url: str


class QuotaWarning(Event):
    """Most of what the plan allows in this month is used.

    Emitted once in a calendar month for each plan, when 80 % of it is reached. Nothing is refused
    yet: that begins when ``used`` reaches ``limit``, and ends at ``resets_at`` or with another
    plan.
    """

    TYPE: ClassVar[str] = "quota.warning"
    resource: Literal["messages"]
    used: int
    limit: int
    resets_at: Moment


Violation = Literal["refresh_token_reused", "login_locked", "revoked_key_used", "callback_forged"]


class SecurityViolation(Event):
    """Somebody did what only a thief does, or a program that was forgotten.

    A refresh token was used twice (its login was ended: the user logs in again), logins to an
    account failed too often, an instance key was shown that had been revoked, or a callback that
    claims to be WhatsApp's for an instance was not signed with its secret. Emitted at most once in
    an hour for each user, key or instance. Not an account of every case: ``GET /api/audit-logs``
    has those. ``address`` is where it came from.
    """

    TYPE: ClassVar[str] = "security.violation"
    violation: Violation
    resource_type: str
    resource_id: str
    address: str | None = None


class UserMapped(Event):
    """A contact's number now stands for a user of the organization.

    Emitted once for each mapping that is made with an instance. Not emitted when one is deleted.
    """

    TYPE: ClassVar[str] = "user.mapped"
    mapping_id: str
    phone_number: str
    user_id: str


class SystemStatus(Event):
    """The platform's operators have something to say to everybody.

    Emitted once to every organization for each announcement; not a measurement, and not about one
    instance: those have ``instance.status``. With ``starts_at`` it is about what is yet to come.
    """

    TYPE: ClassVar[str] = "system.status"
    status: SystemState
    message: str
    starts_at: Moment | None = None
    ends_at: Moment | None = None


class Test(Event):
    """Somebody asked to see what a delivery looks like. Emitted to one endpoint alone."""

    TYPE: ClassVar[str] = "test"
    message: str


EVENTS: dict[str, type[Event]] = {
    event.TYPE: event
    for event in (
        MessageReceived,
        MessageSent,
        MessageDelivered,
        MessageRead,
        MessageFailed,
        MessageEdited,
        MessageRevoked,
        MessageReaction,
        InstanceStatus,
        InstanceQr,
        InstanceConnected,
        InstanceDisconnected,
        ConnectionUpdate,
        SessionDegraded,
        WebhookDisabled,
        WebhookRecovered,
        QuotaWarning,
        SecurityViolation,
        UserMapped,
        SystemStatus,
        Test,
    )
}
