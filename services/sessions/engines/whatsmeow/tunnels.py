"""A connection through somebody's proxy: dialled, checked and agreed upon within a deadline.

A tenant chooses its proxy, so its name may lead anywhere, and somewhere else the next moment. The
name is therefore looked up once, what it leads to is checked, and just that is dialled; TLS goes by
the name all the same.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from aiohttp import AsyncResolver
from aiohttp.abc import AbstractResolver

# How long it may take from the look-up of the name to the proxy's word that it is through.
REACH: Final = 5.0
PORTION: Final = 64 * 1024
PORTS: Final = {"http": 80, "https": 443, "socks5": 1080}

# Of anything that SOCKS5 counts in one byte.
LONGEST: Final = 255

_HEAD_END: Final = b"\r\n\r\n"
_SOCKS: Final = 5
_NO_PASSWORD, _PASSWORD = 0, 2
_ADDRESS_LENGTHS: Final = {1: 4, 4: 16}

Tunnel = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Permits = Callable[[str], bool]


class NoWay(OSError):
    """There is no way through: out of reach, not permitted, or the proxy does not want to."""


def _by_dns() -> AbstractResolver:
    # Not the loop's own look-up: each takes a thread, and a few dead names would take all.
    return AsyncResolver(timeout=REACH / 2, tries=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A proxy, and which addresses it may have; ``None``: any, for it is the operator's.

    ``patience`` is in seconds.
    """

    url: str
    permits: Permits | None = None
    patience: float = REACH
    resolver: Callable[[], AbstractResolver] = field(default=_by_dns, repr=False)

    @property
    def scheme(self) -> str:
        """How it is spoken with. Without a scheme, as some write ``HTTPS_PROXY``, by http."""
        return self._parts.scheme

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens."""
        return self._parts.hostname or "", self._parts.port or PORTS.get(self.scheme, 80)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, if it wants any."""
        parts = self._parts
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    async def reached(self) -> bool:
        """Whether anything listens there, and may be dialled."""
        return await _done(self._dialled(), within=self.patience)

    async def leads_to(self, host: str, port: int) -> bool:
        """Whether it leads to a place."""
        return await _done(self.through(host, port), within=self.patience)

    async def through(self, host: str, port: int) -> Tunnel:
        """A connection to a place behind it. Raises ``NoWay``, at the latest after ``REACH``."""
        try:
            async with asyncio.timeout(self.patience):
                tunnel = await self._dialled()
                try:
                    await self._agree(tunnel, host, port)
                except BaseException:
                    tunnel[1].transport.abort()
                    raise
                return tunnel
        except NoWay:
            raise
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoWay("The proxy does not lead there.") from error

    async def _dialled(self) -> Tunnel:
        host, port = self.place
        secure = self.scheme == "https"
        failed: Exception | None = None
        for address in await self._addresses(host, port):
            try:
                return await asyncio.open_connection(
                    address,
                    port,
                    ssl=_trusting() if secure else None,
                    server_hostname=host if secure else None,
                    limit=PORTION,
                )
            except OSError as error:
                failed = error
        raise NoWay("The proxy cannot be reached.") from failed

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        resolver = self.resolver()
        try:
            found = await resolver.resolve(host, port)
        finally:
            await resolver.close()
        addresses = [one["host"] for one in found]
        if self.permits is not None and not all(map(self.permits, addresses)):
            # All of them: else whoever owns the name tries until the order suits.
            raise NoWay("The proxy is at an address that is not permitted.")
        return addresses

    async def _agree(self, tunnel: Tunnel, host: str, port: int) -> None:
        if self.scheme == "socks5":
            await self._agree_by_socks(tunnel, host, port)
        else:
            await self._agree_by_http(tunnel, host, port)

    async def _agree_by_http(self, tunnel: Tunnel, host: str, port: int) -> None:
        reader, writer = tunnel
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if self.credentials is not None:
            told = b64encode(":".join(self.credentials).encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {told}")
        writer.write("\r\n".join(lines).encode("ascii") + _HEAD_END)
        await writer.drain()
        version, status, *_ = (await reader.readuntil(_HEAD_END)).split(None, 2)
        if not version.startswith(b"HTTP/1.") or status != b"200":
            raise NoWay("The proxy has refused.")

    async def _agree_by_socks(self, tunnel: Tunnel, host: str, port: int) -> None:
        """As RFC 1928 has it, and RFC 1929 for user and password."""
        reader, writer = tunnel
        ways = bytes([_NO_PASSWORD] if self.credentials is None else [_NO_PASSWORD, _PASSWORD])
        writer.write(bytes([_SOCKS, len(ways)]) + ways)
        version, chosen = await reader.readexactly(2)
        if version != _SOCKS or chosen not in ways:
            raise NoWay("The proxy wants a user and a password, or is none for SOCKS5.")
        if chosen == _PASSWORD and self.credentials is not None:
            user, password = (_counted(one) for one in self.credentials)
            writer.write(b"\x01" + user + password)
            if (await reader.readexactly(2))[1] != 0:
                raise NoWay("The proxy does not know this user and password.")
        writer.write(bytes([_SOCKS, 1, 0]) + _socks_address(host) + port.to_bytes(2, "big"))
        version, refusal, _, kind = await reader.readexactly(4)
        if version != _SOCKS or refusal:
            raise NoWay("The proxy has refused.")
        length = _ADDRESS_LENGTHS.get(kind) or (await reader.readexactly(1))[0]
        await reader.readexactly(length + 2)

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url if "://" in self.url else f"http://{self.url}")


async def reached(host: str, port: int) -> bool:
    """Whether anything can be reached there directly."""
    return await _done(asyncio.open_connection(host, port), within=REACH)


async def _done(dialling: Awaitable[Tunnel], *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            _, writer = await dialling
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _socks_address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return b"\x03" + _counted(host)
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


def _counted(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > LONGEST:
        raise NoWay("A name, a user or a password is too long for SOCKS5.")
    return len(raw).to_bytes(1, "big") + raw


@cache
def _trusting() -> ssl.SSLContext:
    return ssl.create_default_context()
