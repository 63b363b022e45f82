"""Signs: what a chat is shown of the account, beside the queue of messages: read, and typing."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from services.sessions.domain.lifecycle import Status
from services.sessions.engines.port import Engine, SessionDown, capable
from services.sessions.leases import Leases
from services.sessions.lines import Line, Lines
from services.sessions.metrics import SessionsMetrics
from services.sessions.supervisor import Session
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import MarkRead, ShowPresence
from shared.errors import PlatformError
from shared.log import get_logger

log = get_logger()

DEADLINE: Final = timedelta(seconds=10)


class Sessions(Protocol):
    """Where sessions are found."""

    def session(self, instance_id: UUID) -> Session | None:
        """The session of an instance, connected or not."""
        ...


class Signs:
    """Shows signs, as many at a time as ``lines`` allow.

    Nothing of it is kept: what is too much or too late is dropped: a sign is worth little. Those of
    one instance take turns: "paused" must not pass "typing".
    """

    def __init__(
        self,
        *,
        leases: Leases,
        sessions: Sessions,
        clock: Clock,
        metrics: SessionsMetrics,
        lines: Lines,
    ) -> None:
        self._leases = leases
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._lines = lines

    def mark_read(self, command: MarkRead) -> None:
        """Begin to tell a chat that messages were read."""

        async def tell(engine: Engine) -> None:
            await engine.mark_read(
                command.instance_id,
                chat=command.chat,
                sender=command.sender,
                engine_message_ids=command.engine_message_ids,
                played=command.played,
            )

        until = self._clock.now() + DEADLINE
        self._sign(command.instance_id, Capability.READ_RECEIPTS, tell, until=until)

    def show_presence(self, command: ShowPresence) -> None:
        """Begin to show a chat what the account is doing, unless that is over."""

        async def tell(engine: Engine) -> None:
            await engine.show_presence(command.instance_id, chat=command.chat, state=command.state)

        self._sign(command.instance_id, Capability.TYPING, tell, until=command.until)

    def _sign(
        self,
        instance_id: UUID,
        capability: Capability,
        tell: Callable[[Engine], Coroutine[None, None, None]],
        *,
        until: datetime,
    ) -> None:
        if self._clock.now() >= until:
            self._metrics.signs.labels("too_late").inc()
        elif self._lines.full(instance_id):
            self._metrics.signs.labels("too_many").inc()
        else:
            line = self._lines.enter(instance_id)
            self._lines.begin(self._show(instance_id, line, capability, tell, until=until))

    async def _show(
        self,
        instance_id: UUID,
        line: Line,
        capability: Capability,
        tell: Callable[[Engine], Coroutine[None, None, None]],
        *,
        until: datetime,
    ) -> None:
        try:
            async with (
                asyncio.timeout((until - self._clock.now()).total_seconds()),
                line.turn,
            ):
                await tell(self._connected(instance_id, capability))
        except TimeoutError:
            self._metrics.signs.labels("too_late").inc()
        except PlatformError as error:
            self._metrics.signs.labels("refused").inc()
            log.info("sign_refused", capability=capability.value, reason=error.message)
        except Exception:
            log.exception("sign_failed", capability=capability.value)
            self._metrics.signs.labels("refused").inc()
        else:
            self._metrics.signs.labels("shown").inc()
        finally:
            self._lines.leave(instance_id, line)

    def _connected(self, instance_id: UUID, capability: Capability) -> Engine:
        session = self._sessions.session(instance_id)
        if session is None or session.status is not Status.READY:
            raise SessionDown("The instance is not connected.")
        if not self._leases.holds(session.lease):
            raise SessionDown("Another process owns the instance now.")
        capable(session.engine, capability)
        return session.engine
