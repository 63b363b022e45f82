"""What a dead letter is about: whose it is, why it died, and what of it can be put back alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import orjson
from pydantic import ValidationError

from shared.contracts import envelope
from shared.contracts.commands import COMMANDS
from shared.contracts.events import EVENTS
from shared.ids import id_of

REFUSED: Final = "refused"


class Handled(StrEnum):
    """What somebody did about a dead letter."""

    REQUEUED = "requeued"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What can be put back alone: a command, or one event of a batch, as a batch of its own.

    ``instances`` and ``tenants`` are those that it names; it may concern several of either.
    """

    id: UUID
    queue: str
    message_id: UUID
    kind: Literal["command", "batch"]
    type: str
    body: bytes
    instances: frozenset[UUID]
    tenants: frozenset[UUID]


def letters(*, queue: str, type_: str, message_id: str, batch: bool, body: bytes) -> list[Letter]:
    """The letters in one message of ``queue``, whose ids come out the same every time.

    Events were put together by chance, and belong to several tenants: each is a letter of its own.
    """
    parts = _events(body) if batch else []
    if not parts:
        parts = [(_id(queue, message_id, body), body, _read(body))]
    return [
        Letter(
            id=id_of("dead letter", queue, id_),
            queue=queue,
            message_id=id_,
            kind="batch" if batch else "command",
            type=type_,
            body=part,
            instances=frozenset(_named(said, "instance_id", "instanceid", "instance_ids")),
            tenants=frozenset(_named(said, "tenant_id", "tenantid")),
        )
        for id_, part, said in parts
    ]


def why(letter: Letter, *, reason: str, tries: int) -> str:
    """Why the letter could not be processed, as far as can be told from it."""
    service = letter.queue.partition(".")[0]
    if letter.kind == "command" and letter.type not in COMMANDS:
        return f"No version that was running knows the command {letter.type or 'without a name'}."
    if not _readable(letter):
        return f"The body cannot be read as {letter.type or 'anything'}."
    if reason == REFUSED:
        return f"{service} has refused it; its log says why, in a line messages_refused."
    return (
        f"{service} has tried it {tries} times in vain; its log says why, in lines"
        " messages_postponed or message_handler_failed."
    )


def _id(queue: str, message_id: str, body: bytes) -> UUID:
    """The id that a message goes back with: its own, if it is one of ours."""
    try:
        return UUID(message_id)
    except ValueError:
        return id_of("foreign message", queue, message_id, body.hex())


def _events(body: bytes) -> list[tuple[UUID, bytes, object]]:
    try:
        return [
            (UUID(item["id"]), envelope.join([orjson.dumps(item)]), item)
            for item in orjson.loads(body)
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _read(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _readable(letter: Letter) -> bool:
    try:
        if letter.kind == "command":
            COMMANDS[letter.type].model_validate_json(letter.body)
        elif letter.type in EVENTS:
            envelope.decode_batch(letter.body)
        else:
            envelope.carried_batch(letter.body)
    except (ValidationError, ValueError):
        return False
    return True


def _named(said: object, *names: str) -> Iterator[UUID]:
    """The ids under these names, in the letter itself and in the lists that it carries."""
    if not isinstance(said, dict):
        return
    for name, value in said.items():
        for one in value if isinstance(value, list) else [value]:
            if name in names:
                yield from _ids(one)
            elif isinstance(value, list):
                yield from _named(one, *names)


def _ids(value: object) -> Iterator[UUID]:
    try:
        yield UUID(str(value))
    except ValueError:
        return
