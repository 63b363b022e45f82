"""Telling the dispatcher which instances have something to send."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from shared.broker.port import Broker, Outgoing
from shared.broker.topology import COMMANDS
from shared.clock import Clock
from shared.contracts.commands import Dispatch
from shared.errors import Transient, Unroutable
from shared.ids import new_id
from shared.log import get_logger
from shared.nudge import Nudge

log = get_logger()

_FOR_LONG: Final = timedelta(hours=1)


class DispatchNews:
    """Tells the dispatcher which instances have something to send, many in one message.

    The first is told of at once; then, while that is under way and for ``pause`` after it,
    instances are collected for the next. Pure news: if it cannot be told, the dispatcher's sweep
    finds out a little later.
    """

    def __init__(
        self, *, broker: Broker, clock: Clock, pause: timedelta = timedelta(milliseconds=20)
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._pause = pause
        self._instances: set[UUID] = set()
        self._nudge = Nudge()

    def tell(self, instance_id: UUID) -> None:
        """An instance has something new to send."""
        if not self._instances:
            self._nudge.set()
        self._instances.add(instance_id)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._nudge.wait(_FOR_LONG)
            self._nudge.clear()
            try:
                await self.step()
            except (Transient, Unroutable) as error:
                log.warning("dispatch_not_told", reason=error.message)
            await self._clock.sleep(self._pause)

    async def step(self) -> int:
        """Tell of all instances that were collected; returns how many. Raises ``Transient``."""
        if not self._instances:
            return 0
        instances, self._instances = self._instances, set()
        await self._broker.publish(
            [
                Outgoing(
                    exchange=COMMANDS,
                    routing_key="dispatcher.nudges",
                    body=Dispatch(instance_ids=tuple(instances)).model_dump_json().encode(),
                    message_id=str(new_id()),
                    type=Dispatch.TYPE,
                )
            ]
        )
        return len(instances)
