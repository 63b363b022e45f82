"""Messages: what is to be said, and what became of it."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from services.gateway.domain.recipients import address_of
from services.gateway.domain.timeline import Hop
from services.gateway.store.messages import Message
from shared.web.pagination import PageQuery
from shared.web.schemas import ApiView, Instant, When

Status = Literal[
    "scheduled",
    "queued",
    "sending",
    "retrying",
    "unconfirmed",
    "sent",
    "delivered",
    "read",
    "failed",
    "canceled",
    "received",
]
Type = Literal[
    "text",
    "image",
    "video",
    "audio",
    "voice",
    "document",
    "sticker",
    "location",
    "contact",
    "poll",
    "poll_vote",
    "reaction",
    "edit",
    "revoke",
    "template",
]


class AcceptedView(ApiView):
    """A message that was accepted: it is stored, and will be sent or fail."""

    id: UUID
    status: Literal["queued"] = "queued"
    instance_id: UUID
    to: str = Field(examples=["+4915112345678"])
    created_at: Instant


class ChangeView(AcceptedView):
    """An edit or a revocation that was accepted: a message like any other, which will be sent or
    fail; the message that it changes shows it once WhatsApp has taken it.
    """

    target_id: UUID


class MessageQuery(PageQuery):
    """Which messages to list, latest first. Besides the cursor, `page` or `offset` may be used."""

    instance_id: UUID | None = None
    direction: Literal["inbound", "outbound"] | None = None
    status: list[Status] = Field(default=[], max_length=20)
    type: list[Type] = Field(default=[], max_length=20)
    from_: str | None = Field(default=None, alias="from", max_length=64)
    to: str | None = Field(default=None, max_length=64)
    contact: str | None = Field(
        default=None, max_length=64, description="Both sides of the talk with this address."
    )
    search: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Words that all have to be in the message, in any order, upper or lower case."
        " For organizations whose `contentStorage` is `encrypted`. A page may hold fewer messages"
        " than there are; go on from `nextCursor` while `hasMore` is true.",
        examples=["invoice march"],
    )
    from_date: When | None = Field(
        default=None, description="Accepted at this time or later; a date is a day in UTC."
    )
    to_date: When | None = Field(
        default=None, description="Accepted before this time; of a date, the day is included."
    )
    page: int | None = Field(default=None, ge=1, le=100_000, description="1 is the first.")
    offset: int | None = Field(default=None, ge=0, le=1_000_000)


class MessageError(ApiView):
    """Why it failed."""

    code: str
    message: str


class MessageView(ApiView):
    """A message and what became of it."""

    id: UUID
    instance_id: UUID
    direction: Literal["inbound", "outbound"]
    status: Status
    type: str = Field(examples=["text"])
    from_: str = Field(alias="from", examples=["+4915198765432"])
    to: str = Field(examples=["+4915112345678"])
    chat_id: str = Field(examples=["4915112345678@s.whatsapp.net"])
    content: dict[str, object] | None = Field(
        description="What it says; null once that is erased, and to viewers if numbers are masked.",
        examples=[{"kind": "text", "text": "Hello"}],
    )
    content_erased: bool = Field(
        description="Whether nobody can read any more what it said: its organization keeps no"
        " content, or it was deleted for everyone."
    )
    metadata: dict[str, str] | None
    priority: Literal["high", "normal", "low"]
    attempts: int
    engine_message_id: str | None = Field(
        description="WhatsApp's id; an engine that chooses it by itself tells when it has sent it."
    )
    target_id: UUID | None = Field(
        description="The message that a reaction, an edit or a revocation is about."
    )
    error: MessageError | None
    created_at: Instant
    expires_at: Instant | None
    sent_at: Instant | None
    delivered_at: Instant | None
    read_at: Instant | None
    failed_at: Instant | None
    edited_at: Instant | None = Field(description="When its words became what they are.")
    revoked_at: Instant | None = Field(description="When it was deleted for everyone.")

    @classmethod
    def of(cls, message: Message, content: dict[str, object] | None) -> "MessageView":
        outbound = message.direction == "outbound"
        return cls.model_validate(
            {
                "id": message.id,
                "instance_id": message.instance_id,
                "direction": message.direction,
                "status": message.status,
                "type": message.type,
                "from": message.sender,
                "to": message.recipient,
                "chat_id": message.chat,
                "content": content,
                "content_erased": message.sealed is None and message.content is None,
                "metadata": message.metadata,
                "priority": ("high", "normal", "low")[message.priority],
                "attempts": message.attempts,
                "engine_message_id": message.engine_message_id,
                "target_id": message.target_id,
                "error": _error(message),
                "created_at": message.created_at,
                "expires_at": message.expires_at if outbound else None,
                "sent_at": message.sent_at,
                "delivered_at": message.delivered_at,
                "read_at": message.read_at,
                "failed_at": message.failed_at,
                "edited_at": message.edited_at,
                "revoked_at": message.revoked_at,
            }
        )


class HopView(ApiView):
    """One thing that happened to a message; `details` depend on what."""

    hop: Literal[
        "accepted",
        "received",
        "paced",
        "dispatched",
        "handed_over",
        "refused",
        "retrying",
        "unconfirmed",
        "sent",
        "delivered",
        "read",
        "edited",
        "revoked",
        "reacted",
        "failed",
        "webhook",
    ]
    at: Instant
    details: dict[str, object] = Field(examples=[{"attempt": 1}])

    @classmethod
    def of(cls, hop: Hop) -> "HopView":
        return cls.model_validate({"hop": hop.hop, "at": hop.at, "details": hop.details})


def shown_address(text: str) -> str:
    """An address as lists show it, however it was written; what is none finds nothing."""
    try:
        return address_of(text).shown
    except ValueError:
        return text


def _error(message: Message) -> dict[str, str] | None:
    if message.error_code is None:
        return None
    return {"code": message.error_code, "message": message.error_message or ""}
