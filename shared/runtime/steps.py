"""One turn of a timed loop: what is away for the moment is told of, and tried again next time."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.clock import Clock
from shared.errors import PlatformError, Transient
from shared.log import get_logger
from shared.metrics import MessagingMetrics

log = get_logger()

T = TypeVar("T")


async def attempt(
    step: Callable[[], Awaitable[T]],
    *,
    loop: str,
    failed: str,
    clock: Clock,
    metrics: MessagingMetrics,
    expected: tuple[type[PlatformError], ...] = (Transient,),
) -> T | None:
    """What ``step`` returns, noted as the ``loop``'s last success; nothing if it could not be done.

    That is logged as ``failed``. Anything but what is ``expected`` is a bug, and ends the process.
    """
    try:
        done = await step()
    except expected as error:
        log.warning(failed, loop=loop, reason=error.message)
        return None
    metrics.loop_succeeded.labels(loop).set(clock.now().timestamp())
    return done
