"""An engine that does nothing, for tests whose own does one thing as they want it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Literal
from uuid import UUID

from services.sessions.engines.port import (
    Engine,
    MediaHandle,
    Opening,
    Outgoing,
    Sink,
    Transmitted,
    Unsupported,
)
from shared.contracts.capabilities import Capability
from shared.contracts.questions import Answer, Question


class IdleEngine:
    """Opens and closes without a word, and refuses whatever else it is asked for."""

    kind: ClassVar[str] = "idle"
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @asynccontextmanager
    async def events(self, sink: Sink) -> AsyncIterator[None]:
        yield

    async def open(self, opening: Opening) -> None:
        pass

    async def close(self, instance_id: UUID) -> None:
        pass

    async def forget(self, opening: Opening) -> None:
        await self.close(opening.instance_id)

    async def transmit(self, instance_id: UUID, outgoing: Outgoing) -> Transmitted:
        raise _refusal("transmit")

    async def ask(self, instance_id: UUID, question: Question) -> Answer:
        raise _refusal("ask")

    async def mark_read(
        self,
        instance_id: UUID,
        *,
        chat: str,
        sender: str,
        engine_message_ids: Sequence[str],
        played: bool = False,
    ) -> None:
        raise _refusal("mark_read")

    async def show_presence(
        self, instance_id: UUID, *, chat: str, state: Literal["typing", "recording", "paused"]
    ) -> None:
        raise _refusal("show_presence")

    async def fetch(self, instance_id: UUID, media: MediaHandle, into: Path) -> None:
        raise _refusal("fetch")


def _refusal(what: str) -> Unsupported:
    return Unsupported(f"This test's engine was not expected to {what}.")


_: type[Engine] = IdleEngine
