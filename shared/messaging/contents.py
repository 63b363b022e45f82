"""What messages say, as the database keeps it: sealed, in the place of its row."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import orjson

from shared.security.sealing import KeyRing, Place

_MESSAGES: Final = "dispatcher.messages"

# What is about another message holds no words of its own: its target shows what became of it.
ABOUT_ANOTHER: Final = ("reaction", "edit", "revoke", "poll_vote")


def seal(ring: KeyRing, tenant_id: UUID, message_id: UUID | str, content: str | bytes) -> bytes:
    """A message's content, JSON, as its row holds it."""
    plain = content.encode() if isinstance(content, str) else content
    return ring.seal(plain, Place(tenant_id, _MESSAGES, str(message_id)))


def seal_all(
    ring: KeyRing, tenant_ids: Sequence[UUID], message_ids: Sequence[str], contents: Sequence[str]
) -> list[bytes]:
    """The same for many messages at once."""
    return ring.seal_all(
        _MESSAGES, zip(tenant_ids, message_ids, map(str.encode, contents), strict=True)
    )


def opened(
    ring: KeyRing,
    tenant_id: UUID,
    message_id: UUID,
    *,
    sealed: bytes | None,
    plain: str | dict[str, object] | None,
) -> dict[str, object] | None:
    """What a message says, or ``None`` if that was erased. Raises ``Unsealable``.

    ``plain`` is what a row from before there was a key ring holds.
    """
    if sealed is not None:
        found: dict[str, object] = orjson.loads(
            ring.open(sealed, Place(tenant_id, _MESSAGES, str(message_id)))
        )
        return found
    return orjson.loads(plain) if isinstance(plain, str) else plain
