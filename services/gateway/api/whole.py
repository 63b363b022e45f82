"""An answer that is written in one piece, for the route where each microsecond counts.

aiohttp builds an answer from a dictionary of headers, merges ours into it, and serializes all of
them anew each time: half of what accepting a message costs. Most of them never change, so here
they are bytes that were made once.
"""

from math import ceil
from typing import Final

from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from aiohttp.web_request import BaseRequest
from typing_extensions import override

from shared.web.headers import ORIGIN, SECURITY
from shared.web.limits import Allowance

_LINES: Final = {"Content-Type": "application/json", "Server": "waypost", **SECURITY}
_HEAD: Final = "HTTP/1.1 202 Accepted\r\n" + "".join(
    f"{name}: {value}\r\n" for name, value in _LINES.items()
)


def possible(request: web.Request) -> bool:
    """Whether the request can be answered so: by HTTP/1.1 as it is by default, and not to a page
    of somebody else's, which needs headers of its own.
    """
    return request.keep_alive and request.version == HttpVersion11 and ORIGIN not in request.headers


class Whole(web.StreamResponse):
    """A 202 with all its headers. Only for requests that were found ``possible``."""

    def __init__(self, body: str, *, request_id: str, allowance: Allowance, vary: str) -> None:
        # Not super().__init__(): what it prepares is what this class does without.
        _, limit, remaining, reset_after = allowance
        self._bytes = (
            f"{_HEAD}{vary}Date: {rfc822_formatted_time()}\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\nRateLimit-Limit: {limit}\r\n"
            f"RateLimit-Remaining: {remaining}\r\n"
            f"RateLimit-Reset: {ceil(reset_after.total_seconds())}\r\n\r\n{body}"
        ).encode("ascii")

    @property
    @override
    def status(self) -> int:
        return 202

    @property
    @override
    def keep_alive(self) -> bool | None:
        return True

    @override
    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        # Past aiohttp's writer, which has nothing to add to what is whole but the wait for whoever
        # does not read.
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("nobody is there to be answered")
        transport.write(self._bytes)
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        return None
