"""What requests name in their bodies and queries, found by looking into the models themselves.

Every field that holds a string or an id is either said to be words, in ``WORDS``, or to name
something, in ``NAMED``. So a field that is added must be put into one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel

from shared.web.routes import Route
from tests.support.routes import declared

NAMED: Final = {
    "instanceId": "instance",
    "sessionId": "instance",
    "instances": "instance",
    "resourceId": "instance",
    "replyTo": "message",
    "messageId": "message",
    "messageIds": "message",
    "mediaId": "media",
    "managerId": "manager",
    "userId": "member",
    "organizationId": "organization",
    "tenantId": "organization",
    "from": "sender",
    "to": "contact",
    "contact": "contact",
    "cursor": "cursor",
    "after": "cursor",
}
"""What a field names, by its last step: as ``House.named`` calls it, or a ``cursor`` of a list."""

WORDS: Final = {
    "action", "address", "audio", "base64", "body", "caption", "currentPassword", "deviceName",
    "document", "email", "emoji", "engine", "events", "file", "filename", "image", "message",
    "metadata", "mimeType", "name", "newPassword", "numbers", "options", "organizationName",
    "password", "phoneNumber", "phones", "plan", "pushName", "question", "queue",
    "refreshToken", "resourceType", "search", "settings", "sha256", "status", "sticker",
    "suspendedReason", "text", "timezone", "token", "type", "types", "url", "video", "voice",
    # Times of day, and where.
    "quietHours.from", "quietHours.to", "quietHours.timeZone",
    # Names that WhatsApp gave, to what is nobody's here.
    "group", "pollId", "content.replyTo", "replyToSender", "mentions",
    # What Meta says: whose it is is for a signature to prove, which no caller here can make.
    "hub.mode", "hub.verify_token", "hub.challenge",
    "object", "entry.id", "entry.changes.field", "entry.changes.value",
    # A process of the platform, for operators alone.
    "worker",
}  # fmt: skip
"""Fields that name nothing of any tenant's."""

# The way to a field, and whether it takes many.
_Found = tuple[tuple[str, ...], bool]


@dataclass(frozen=True)
class Field:
    """One field of what a route takes. ``path`` leads to it, by the names that callers use."""

    route: Route
    place: Literal["body", "form", "query"]
    path: tuple[str, ...]
    many: bool

    @property
    def about(self) -> str:
        """The field, as a failure tells of it."""
        return f"{self.route.method} {self.route.path}, {'.'.join(self.path)} in its {self.place}"

    @property
    def names(self) -> str | None:
        """What it names, if anything."""
        if self.word is not None:
            return None
        assert self.path[-1] in NAMED, (
            f"{self.about}: say in NAMED what it names, or put it into WORDS if it names nothing"
        )
        return NAMED[self.path[-1]]

    @property
    def word(self) -> str | None:
        """As what it stands in ``WORDS``, if it does: by its whole path, or else its last step."""
        known = [name for name in (".".join(self.path), self.path[-1]) if name in WORDS]
        return known[0] if known else None


def fields() -> list[Field]:
    """Every field that could name something, of every route."""
    return [
        Field(route, place, path, many)
        for route in declared()
        for place, model in _models(route)
        for path, many in dict.fromkeys(_within(model, ()))
    ]


def _models(route: Route) -> Iterator[tuple[Literal["body", "form", "query"], type[BaseModel]]]:
    if route.request is not None:
        yield "body", route.request
    if route.form is not None:
        yield "form", route.form
    if route.query is not None:
        yield "query", route.query


def _within(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[_Found]:
    for name, field in model.model_fields.items():
        yield from _under(field.annotation, (*path, field.alias or name), many=False)


def _under(kind: Any, path: tuple[str, ...], *, many: bool) -> Iterator[_Found]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from _within(kind, path)
    elif kind is str or kind is UUID:
        yield path, many
    elif get_origin(kind) is not Literal:
        many = many or get_origin(kind) in {list, tuple}
        for inner in get_args(kind):
            yield from _under(inner, path, many=many)
