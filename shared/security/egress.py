"""HTTP to places that customers name, without letting them name a place inside.

Four layers, because each alone has a hole. The URL policy gives an early and readable answer, but
knows no DNS. The vetted resolver refuses names that lead inside, but aiohttp does not ask it about
IP literals. The guard on the socket sees the very address that is dialled, whatever it came from,
and so leaves no gap between check and use for DNS rebinding: it is the one that counts. And no
redirect, proxy or cookie is ever followed or kept, for each would leave through another door.
"""

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from aiohttp import (
    AsyncResolver,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.payload import Payload
from typing_extensions import override
from yarl import URL

from shared.errors import Rejected
from shared.security.addresses import Network, permitted

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

_LONGEST_URL = 2048
_LONGEST_LINE = 8190
_FIRST_OPEN_PORT = 1024
_DIGITS = frozenset("0123456789")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


class AddressRefused(OSError):
    """A dial or a DNS answer led to an address that is not permitted.

    An ``OSError`` because aiohttp then reports it like any connection that could not be made.
    """


class UrlRefused(Rejected):
    """A URL that may not be called; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """What URLs may be called.

    ``allowed_networks`` opens private networks on purpose, ``allow_http`` plain HTTP to anywhere
    else too (to an allowed literal it is always open), ``own_hosts`` are our own names, which a
    webhook must not call: it would loop.
    """

    allowed_networks: tuple[Network, ...] = ()
    allow_http: bool = False
    own_hosts: frozenset[str] = frozenset()

    def permits(self, address: str) -> bool:
        """Whether this address may be dialled."""
        return permitted(address, allowed=self.allowed_networks)

    def vet(self, text: str) -> URL:
        """The URL, if it may be called as far as can be told without DNS; else ``UrlRefused``."""
        if len(text) > _LONGEST_URL:
            raise UrlRefused(f"The URL is longer than {_LONGEST_URL} characters; shorten it.")
        if "\\" in text or _UNPRINTABLE.search(text):
            # Parsers disagree about these, and disagreement is how hosts are smuggled.
            raise UrlRefused("The URL holds a space, backslash or control character; encode it.")
        try:
            url = URL(text)
            host, port = url.raw_host, url.port
        except ValueError:
            raise UrlRefused("This is not a URL; write it like https://example.com/hook.") from None
        if url.scheme not in {"https", "http"} or not host or port is None:
            raise UrlRefused("The URL must start with https:// and name a host.")
        if url.user is not None or url.password is not None:
            raise UrlRefused("The URL holds credentials; send them as a custom header instead.")
        if port not in {80, 443} and port < _FIRST_OPEN_PORT:
            raise UrlRefused(f"Port {port} is not allowed; use 443, 80 or one from 1024 up.")
        self._vet_host(host.rstrip(".").lower(), scheme=url.scheme)
        return url

    def _vet_host(self, host: str, *, scheme: str) -> None:
        if host in self.own_hosts or any(host.endswith(f".{own}") for own in self.own_hosts):
            raise UrlRefused("The URL leads back to this service; name a server of your own.")
        literal = _is_address(host)
        if literal and not self.permits(host):
            raise UrlRefused("The URL leads to a private address; use one that is public.")
        if not literal and host.rpartition(".")[2][:1] in _DIGITS:
            # 0x7f.1 or 127.1: not a name, but some resolvers would make an address of it.
            raise UrlRefused("The host is not a name; write its name or all of its address.")
        opened = literal and not permitted(host)
        if scheme == "http" and not self.allow_http and not opened:
            raise UrlRefused("The URL must start with https://.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """How much an ``EgressClient`` may have under way, and how long each step may take."""

    connections: int = 500
    connections_per_host: int = 8
    keep_alive: timedelta = timedelta(seconds=30)
    connect: timedelta = timedelta(seconds=5)
    total: timedelta = timedelta(seconds=15)


class VettedResolver(AbstractResolver):
    """Resolves names, and refuses a name as a whole if any of its addresses leads inside.

    Taking only the good ones of a mixed answer would let whoever owns the name try until the
    order suits them.
    """

    def __init__(self, inner: AbstractResolver, policy: EgressPolicy) -> None:
        self._inner = inner
        self._policy = policy

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of ``host``; raises ``AddressRefused`` rather than give a private one."""
        results = await self._inner.resolve(host, port, family)
        if not results or not all(self._policy.permits(result["host"]) for result in results):
            raise AddressRefused(f"{host} leads to an address that is not permitted")
        return results

    @override
    async def close(self) -> None:
        await self._inner.close()


def guarded_sockets(policy: EgressPolicy) -> Callable[[AddressInfo], socket.socket]:
    """A socket factory that refuses to make a socket for an address that is not permitted."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not policy.permits(str(address[0])):
            raise AddressRefused(f"{address[0]} is not permitted")
        return socket.socket(family, kind, protocol)

    return make


@dataclass(slots=True, kw_only=True)
class EgressClient:
    """The one way to call a URL that somebody else chose. Enter it inside the event loop.

    It wraps the ``ClientSession`` instead of giving it away because redirects are switched off
    per request in aiohttp: a caller who forgot it once would open the whole inside.
    ``resolver`` is for tests; by default names are asked of DNS without a thread each, so that a
    few customers with dead name servers cannot use up the threads of everybody.
    """

    policy: EgressPolicy
    limits: EgressLimits = field(default_factory=EgressLimits)
    resolver: AbstractResolver | None = None
    _session: ClientSession | None = field(default=None, init=False)
    _vet: Callable[[str], URL] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The answer depends on nothing but the text, and the same few URLs are called all the time.
        self._vet = lru_cache(maxsize=4096)(self.policy.vet)

    async def __aenter__(self) -> Self:
        seconds = self.limits.connect.total_seconds()
        # tries=2: c-ares waits for each try, so the two together stay within ``connect``.
        inner = self.resolver or AsyncResolver(timeout=seconds / 2, tries=2)
        connector = TCPConnector(
            resolver=VettedResolver(inner, self.policy),
            socket_factory=guarded_sockets(self.policy),
            use_dns_cache=False,
            limit=self.limits.connections,
            limit_per_host=self.limits.connections_per_host,
            keepalive_timeout=self.limits.keep_alive.total_seconds(),
        )
        self._session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,  # or a kilobyte could unpack into a gigabyte
            timeout=ClientTimeout(total=self.limits.total.total_seconds(), sock_connect=seconds),
            read_bufsize=16 * 1024,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def request(
        self,
        method: str,
        url: str | URL,
        *,
        body: bytes | Payload | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta | None = None,
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """One request, answered by whatever status comes first: a 3xx is an answer like another.

        Raises ``UrlRefused`` for a URL outside the policy and aiohttp's ``ClientError`` or
        ``TimeoutError`` for what fails on the way; ``was_refused`` tells our refusals among them.
        """
        if self._session is None:
            raise RuntimeError("enter the EgressClient before using it")
        vetted = self._vet(url if isinstance(url, str) else str(url))
        if timeout is None:
            return self._session.request(
                method, vetted, data=body, headers=headers, allow_redirects=False
            )
        deadline = ClientTimeout(
            total=timeout.total_seconds(), sock_connect=self.limits.connect.total_seconds()
        )
        return self._session.request(
            method, vetted, data=body, headers=headers, allow_redirects=False, timeout=deadline
        )


async def read_at_most(response: ClientResponse, limit: int) -> bytes:
    """The first ``limit`` bytes of the answer; the rest is never read.

    A response that was longer is closed, because the connection cannot be used again.
    """
    parts: list[bytes] = []
    left = limit
    while left > 0 and (chunk := await response.content.read(left)):
        parts.append(chunk)
        left -= len(chunk)
    if not response.content.at_eof():
        response.close()
    return b"".join(parts)


def was_refused(error: BaseException) -> bool:
    """Whether a failed request failed because of this module, not because of the network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefused | UrlRefused):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def host_names(hosts: Iterable[str]) -> frozenset[str]:
    """Host names as ``EgressPolicy.own_hosts`` wants them: lower case, without a final dot."""
    return frozenset(host.strip().rstrip(".").lower() for host in hosts if host.strip())


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
