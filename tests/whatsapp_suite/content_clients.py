"""Real neonize clients that say, hear and ask as a worker does, in a process of their own.

As ``neonize_clients``, with these orders beside its own: ``say``, ``ask``, ``fetch``, ``mark_read``
and ``show_presence``. What is heard is told as ``{"heard": "event", "is": "MessageReceived", …}``.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from typing_extensions import override

from services.sessions.engines import port
from services.sessions.engines.whatsmeow.worker import asking, incoming, media, outgoing
from services.sessions.engines.whatsmeow.worker.said import Said
from shared.contracts.content import Sendable
from shared.contracts.questions import Answer, Question
from shared.errors import PlatformError
from tests.whatsapp_suite.neonize_clients import Client, main, say

INSTANCE = UUID("00000000-0000-7000-8000-000000000001")
SENDABLE: TypeAdapter[Sendable] = TypeAdapter(Sendable)
QUESTION: TypeAdapter[Question] = TypeAdapter(Question)
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
EVENT: TypeAdapter[port.EngineEvent] = TypeAdapter(port.EngineEvent)


class Speaker(Client):
    """One client, spoken with in Waypost's words."""

    async def say(
        self, *, to: str, content: dict[str, Any], path: str | None = None, mime: str | None = None
    ) -> str:
        said = Said(to, SENDABLE.validate_python(content), path, mime)
        with telling():
            return await outgoing.say(self._client, said)

    async def ask(self, **question: Any) -> dict[str, Any]:
        with telling():
            answer = await asking.answer(self._client, QUESTION.validate_python(question))
        return dict(ANSWER.dump_python(answer, mode="json"))

    async def fetch(self, *, handle: dict[str, str], into: str) -> None:
        with telling():
            await media.fetch(self._client, handle, Path(into))

    async def mark_read(self, *, chat: str, sender: str, ids: list[str], played: bool) -> None:
        await asking.mark_read(
            self._client, chat=chat, sender=sender, engine_message_ids=ids, played=played
        )

    async def show_presence(self, *, chat: str, state: Any) -> None:
        await asking.show_presence(self._client, chat=chat, state=state)

    @override
    def _listen(self, name: str, event: Any) -> None:
        if name not in {"message", "receipt"}:
            super()._listen(name, event)
            return

        async def heard(client: Any, event: Any) -> None:
            now = datetime.now(UTC)
            for told in await incoming.heard(client, event, instance_id=INSTANCE, at=now):
                facts = EVENT.dump_python(told, mode="json")
                say(**{**facts, "client": self._name, "heard": "event", "is": type(told).__name__})

        self._client.event(event)(heard)


@contextmanager
def telling() -> Iterator[None]:
    """Says of an error of ours what a test wants to know."""
    try:
        yield
    except PlatformError as error:
        raise RuntimeError(f"{type(error).__name__} {error.code}: {error.message}") from error


if __name__ == "__main__":
    asyncio.run(main(Speaker))
    os._exit(0)
