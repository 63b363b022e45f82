"""What edits and revocations make of the messages that they are about."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import orjson

from shared.db.database import HotConnection
from shared.errors import Transient
from shared.messaging.contents import opened, seal
from shared.security.sealing import KeyRing, Unsealable

# The words of these messages are no longer found; what they say now is indexed by and by.
UNINDEX: Final = """
    DELETE FROM dispatcher.message_words w
    USING dispatcher.messages m, unnest(m.words) AS gone (word)
    WHERE m.id = ANY ($1::uuid[]) AND w.word = gone.word AND w.sequence = m.sequence
"""

_TARGETS: Final = """
    SELECT id, tenant_id, content, sealed FROM dispatcher.messages
    WHERE id IN (SELECT target_id FROM dispatcher.messages WHERE id = ANY ($1::uuid[]))
    ORDER BY id
"""
_CHANGES: Final = """
    SELECT target_id,
           (array_agg(id ORDER BY sequence DESC) FILTER (WHERE type = 'edit'))[1],
           max(sent_at) FILTER (WHERE type = 'edit'),
           min(sent_at) FILTER (WHERE type = 'revoke')
    FROM dispatcher.messages
    WHERE target_id = ANY ($1::uuid[]) AND sent_at IS NOT NULL AND type IN ('edit', 'revoke')
    GROUP BY target_id
"""
_SAVE: Final = """
    UPDATE dispatcher.messages t
    SET sealed = u.sealed, content = NULL, edited_at = u.edited_at, revoked_at = u.revoked_at,
        words = CASE WHEN t.words IS NOT NULL AND u.sealed IS NOT NULL THEN '{}'::bigint[] END
    FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[], $4::timestamptz[])
         AS u (id, sealed, edited_at, revoked_at)
    WHERE t.id = u.id
"""
# What was revoked was meant to be gone, in each of its wordings.
_ERASE_WORDINGS: Final = """
    UPDATE dispatcher.messages SET sealed = NULL, content = NULL
    WHERE target_id = ANY ($1::uuid[]) AND type = 'edit' AND sent_at IS NOT NULL
"""


async def change(connection: HotConnection, accepted: Sequence[UUID], *, ring: KeyRing) -> None:
    """Let what these edits and revocations are about show all that has become of it.

    Found anew from every accepted one, so that neither a repeat nor one that is confirmed late puts
    older words over newer ones. What was erased before stays so. Call it in the transaction of
    ``settling.lock_messages``, which has locked all that is written here.
    """
    found = await connection.fetch(_TARGETS, accepted)
    ids = [row[0] for row in found]
    changes = {row[0]: row for row in await connection.fetch(_CHANGES, ids)}
    edits = await _words(connection, [row[1] for row in changes.values() if row[1]], ring=ring)
    saved: list[tuple[UUID, bytes | None]] = []
    for id_, tenant_id, plain, sealed in found:
        _, edit, _, revoked_at = changes[id_]
        if revoked_at is not None:
            saved.append((id_, None))
        elif edit not in edits:
            saved.append((id_, sealed or _sealed(ring, tenant_id, id_, plain)))
        else:
            content = _readable(ring, tenant_id, id_, sealed=sealed, plain=plain)
            if content is None:
                saved.append((id_, sealed))
                continue
            content["text"] = edits[edit]
            saved.append((id_, _sealed(ring, tenant_id, id_, orjson.dumps(content))))
    await connection.execute(UNINDEX, ids)
    await connection.execute(
        _SAVE,
        ids,
        [sealed for _, sealed in saved],
        [changes[id_][2] for id_ in ids],
        [changes[id_][3] for id_ in ids],
    )
    if revoked := [id_ for id_ in ids if changes[id_][3] is not None]:
        await connection.execute(_ERASE_WORDINGS, revoked)


async def _words(
    connection: HotConnection, edits: Sequence[UUID], *, ring: KeyRing
) -> dict[UUID, object]:
    """The new words of edits, of those that still have them."""
    rows = await connection.fetch(
        """
        SELECT id, tenant_id, content, sealed FROM dispatcher.messages WHERE id = ANY ($1::uuid[])
        """,
        edits,
    )
    found = {
        id_: _readable(ring, tenant_id, id_, sealed=sealed, plain=plain)
        for id_, tenant_id, plain, sealed in rows
    }
    return {id_: content["text"] for id_, content in found.items() if content is not None}


def _sealed(
    ring: KeyRing, tenant_id: UUID, message_id: UUID, plain: str | bytes | None
) -> bytes | None:
    return None if plain is None else seal(ring, tenant_id, message_id, plain)


def _readable(
    ring: KeyRing, tenant_id: UUID, message_id: UUID, *, sealed: bytes | None, plain: str | None
) -> dict[str, object] | None:
    """What a message says, or ``None`` if that was erased.

    Raises ``Transient`` for what no key opens: a replica that has the key may do it, and at last it
    is a dead letter, which can be put back. To leave the edit out would lose it unseen.
    """
    try:
        return opened(ring, tenant_id, message_id, sealed=sealed, plain=plain)
    except Unsealable as error:
        raise Transient(f"The message {message_id} cannot be read. {error.message}") from error
