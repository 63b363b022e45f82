"""Answers that are longer than what fits on the way, for readers of any speed.

Whoever takes anything of an answer within ``PATIENCE`` is waited for; whoever takes nothing is cut
off. That is the reader's doing, so it counts as a caller who left (499) and not as a crash.
"""

import asyncio
import socket
from datetime import timedelta
from typing import Final

from aiohttp import ClientConnectionResetError, web

PATIENCE: Final = timedelta(minutes=1)
"""How long a reader may take nothing before it counts as gone."""

_PIECE: Final = 64 * 1024


async def prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Begin an answer that ``write`` goes on with.

    The system tells that there is room again once a third of its buffer is free, which may be a
    megabyte: a slow reader would seem to take nothing for minutes. So little is left to wait there.
    """
    connected = None if request.transport is None else request.transport.get_extra_info("socket")
    if hasattr(socket, "TCP_NOTSENT_LOWAT") and connected is not None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _PIECE)
    await response.prepare(request)


async def write(
    request: web.Request,
    response: web.StreamResponse,
    data: bytes,
    *,
    patience: timedelta = PATIENCE,
) -> None:
    """Send ``data`` piece by piece. Raises if its reader is gone; there is nobody to tell then."""
    left = memoryview(data)
    while left:
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await response.write(left[:_PIECE])
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ClientConnectionResetError("the reader takes nothing") from None
        left = left[_PIECE:]
