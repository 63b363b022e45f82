"""neonize's client, used only while its session is there.

neonize looks sessions up by name in its library, and most calls for one that has gone make that
crash, and with it the whole process. So calls are counted, none begins once the session is being
stopped, and it is stopped when the last has returned.
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final, cast

from services.sessions.engines.whatsmeow.worker.shapes import Client
from services.sessions.engines.whatsmeow.worker.turns import Turns, encrypting

# As whatsmeow puts it.
_GONE: Final = "client is nil"


class Guarded:
    """Has every method of the client, each of which fails once the session is being stopped."""

    def __init__(self, client: Client, turns: Turns) -> None:
        self._client = client
        self._turns = turns
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = False
        # whatsmeow sends one message at a time. Those that wait for it cannot be given up any
        # more, so they wait here.
        self._sending = asyncio.Lock()
        self._sends: set[asyncio.Task[object]] = set()

    @classmethod
    def of(cls, client: Client, turns: Turns) -> "tuple[Guarded, Client]":
        """A guard, and the same as the client that it guards."""
        made = cls(client, turns)
        return made, cast("Client", made)

    async def over(self, within: float) -> None:
        """Let no call begin, and wait up to ``within`` seconds for those that run."""
        self._over = True
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return

    async def send_message(self, *arguments: object) -> object:
        """Send after all that were to be sent before; even if given up, it keeps its turn."""
        await self._sending.acquire()
        task = asyncio.create_task(self._counted(self._send, *arguments))
        self._sends.add(task)
        task.add_done_callback(self._sent)
        return await asyncio.shield(task)

    @property
    def stuck(self) -> bool:
        """Whether something is being sent."""
        return bool(self._sends)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._client, name)

        async def call(*arguments: object, **named: object) -> object:
            return await self._counted(method, *arguments, **named)

        return call

    async def _send(self, *arguments: object) -> object:
        turn = object()
        encrypting.set(turn)
        await asyncio.to_thread(self._turns.take, turn)
        try:
            return await cast("Any", self._client).send_message(*arguments)
        finally:
            self._turns.give(turn)

    async def _counted(self, method: Callable[..., Awaitable[Any]], *a: object, **n: object) -> Any:
        if self._over:
            raise _gone()
        self._calls += 1
        self._idle.clear()
        try:
            return await method(*a, **n)
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()

    def _sent(self, task: asyncio.Task[object]) -> None:
        self._sends.discard(task)
        self._sending.release()
        if not task.cancelled():
            task.exception()  # Whoever has given it up does not ask.


def _gone() -> Exception:
    error: Exception = import_module("neonize.exc").SendMessageError(_GONE)
    return error
