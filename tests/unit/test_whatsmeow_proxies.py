"""The way through a proxy: how it is agreed upon, checked, bounded, and taken away again."""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from urllib.parse import urlsplit

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from services.sessions.engines.whatsmeow.relay import Relay
from services.sessions.engines.whatsmeow.tunnels import NoWay, Tunnel, Way
from tests.support.proxies import silent, socks

PATIENCE = 5.0


class Rebound(AbstractResolver):
    """A name that leads to another place each time it is looked up."""

    def __init__(self, answers: Iterator[str]) -> None:
        self._answers = answers

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in next(self._answers).split()
        ]

    @override
    async def close(self) -> None:
        pass


def leading(url: str, *answers: str) -> Way:
    """A tenant's proxy, which must not be on loopback but at its very first address."""
    found = iter(answers)
    return Way(
        url=url, permits=lambda address: address == "127.0.0.1", resolver=lambda: Rebound(found)
    )


def asking(relay: Relay, *, word: str | None = None) -> bytes:
    """What a worker says to a relay, knowing its word or not."""
    given = f"session:{word}" if word else urlsplit(relay.url).netloc.rpartition("@")[0]
    told = b64encode(given.encode()).decode()
    lines = ["CONNECT web.whatsapp.com:443 HTTP/1.1", f"Proxy-Authorization: Basic {told}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def spoken_with(relay: Relay, *, word: str | None = None) -> tuple[bytes, Tunnel]:
    """What a relay answers to a worker."""
    at = urlsplit(relay.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(asking(relay, word=word))
    async with asyncio.timeout(PATIENCE):
        return await reader.readuntil(b"\r\n\r\n"), (reader, writer)


async def test_what_was_checked_is_what_is_dialled() -> None:
    async with silent(agrees=True) as proxy:
        way = leading(f"http://proxy.example.org:{proxy.port}", "127.0.0.1", "127.0.0.2")
        _, writer = await way.through("web.whatsapp.com", 443)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()
        # The name leads elsewhere by now, and that is noticed before it is dialled.
        with pytest.raises(NoWay):
            await way.through("web.whatsapp.com", 443)
        assert len(proxy.asked) == 1


async def test_a_name_that_leads_inside_among_others_is_refused_as_a_whole() -> None:
    async with silent(agrees=True) as proxy:
        way = leading(f"http://proxy.example.org:{proxy.port}", "127.0.0.1 10.0.0.1")
        assert not await way.leads_to("web.whatsapp.com", 443)
        assert proxy.asked == []


async def test_a_proxy_that_says_nothing_is_given_up_in_time() -> None:
    async with silent(agrees=False) as proxy:
        way = Way(url=proxy.url, patience=0.2)
        began = monotonic()
        assert not await way.leads_to("web.whatsapp.com", 443)
        assert monotonic() - began < PATIENCE
        assert proxy.asked[0].startswith(b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\n")


async def test_credentials_are_told_to_a_proxy_as_they_are() -> None:
    async with silent(agrees=True) as proxy:
        url = f"http://ada:s%40cret@127.0.0.1:{proxy.port}"
        assert await Way(url=url).leads_to("web.whatsapp.com", 443)
        assert b"Proxy-Authorization: Basic YWRhOnNAY3JldA==\r\n" in proxy.asked[0]


async def test_a_socks_proxy_is_spoken_with_in_its_own_way() -> None:
    async with socks("ada", "s@cret") as proxy:
        way = Way(url=f"socks5://ada:s%40cret@127.0.0.1:{proxy.port}")
        async with asyncio.timeout(PATIENCE):
            reader, writer = await way.through("web.whatsapp.com", 443)
            writer.write(b"Hello")
            assert await reader.readexactly(5) == b"Hello"
        writer.close()
        assert proxy.wanted == [("web.whatsapp.com", 443)]
        wrong = Way(url=f"socks5://ada:wrong@127.0.0.1:{proxy.port}")
        assert not await wrong.leads_to("web.whatsapp.com", 443)
        endless = Way(url=f"socks5://{'a' * 256}:x@127.0.0.1:{proxy.port}")
        assert not await endless.leads_to("web.whatsapp.com", 443)


async def test_a_relay_carries_for_who_knows_its_word_and_for_nobody_else() -> None:
    async with socks("ada", "x") as proxy:
        way = Way(url=f"socks5://ada:x@127.0.0.1:{proxy.port}")
        async with Relay.along(way) as relay:
            answer, (reader, writer) = await spoken_with(relay)
            assert answer.startswith(b"HTTP/1.1 200 ")
            writer.write(b"Hello")
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(5) == b"Hello"
            writer.close()
            answer, (_, writer) = await spoken_with(relay, word="guessed")
            assert answer.startswith(b"HTTP/1.1 502 ")
            writer.close()
        assert len(proxy.wanted) == 1
        assert "ada" not in relay.url


async def test_a_relay_that_is_cut_ends_what_has_stalled() -> None:
    async with silent(agrees=True) as proxy, Relay.along(Way(url=proxy.url)) as relay:
        answer, (reader, writer) = await spoken_with(relay)
        assert answer.startswith(b"HTTP/1.1 200 ")
        relay.cut()
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        at = urlsplit(relay.url)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(at.hostname, at.port)


async def test_a_relay_says_at_once_that_a_proxy_does_not_want_to() -> None:
    async with (
        silent(agrees=False) as proxy,
        Relay.along(Way(url=proxy.url, patience=0.2)) as relay,
    ):
        answer, (_, writer) = await spoken_with(relay)
        assert answer.startswith(b"HTTP/1.1 502 ")
        writer.close()
