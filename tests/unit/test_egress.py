"""No URL that a customer can write, and no answer that a customer's DNS can give, leads inside."""

import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from typing_extensions import override
from yarl import URL

from shared.security.addresses import networks, permitted
from shared.security.egress import (
    AddressRefused,
    EgressClient,
    EgressLimits,
    EgressPolicy,
    UrlRefused,
    guarded_sockets,
    host_names,
    read_at_most,
    was_refused,
)

LOOPBACK = networks(["127.0.0.0/8", "::1/128"])
PUBLIC = "93.184.216.34"


class ScriptedDns(AbstractResolver):
    """Answers what it was told, one list of addresses per question; the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in answer
        ]

    @override
    async def close(self) -> None:
        pass


class Inside:
    """A server on loopback that must not be reached; it counts those who did."""

    def __init__(self) -> None:
        self.reached: list[web.Request] = []
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self.server = TestServer(app)

    @property
    def port(self) -> int:
        port = self.server.port
        assert port is not None
        return port

    async def _answer(self, request: web.Request) -> web.Response:
        self.reached.append(request)
        if request.path == "/redirect":
            raise web.HTTPFound("/secret")
        if request.path == "/cookie":
            return web.Response(headers={"Set-Cookie": "a=b"})
        if request.path == "/zipped":
            return web.Response(body=b"\x1f\x8b not really", headers={"Content-Encoding": "gzip"})
        if request.path == "/long":
            return web.Response(body=b"x" * 1_000_000)
        return web.Response(text="inside")


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    inside = Inside()
    async with inside.server:
        yield inside


def client(
    *, allowed: bool = False, dns: AbstractResolver | None = None, allow_http: bool = True
) -> EgressClient:
    return EgressClient(
        policy=EgressPolicy(allowed_networks=LOOPBACK if allowed else (), allow_http=allow_http),
        limits=EgressLimits(total=timedelta(seconds=3)),
        resolver=dns or ScriptedDns([PUBLIC]),
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",  # noqa: S104 - nothing is bound to it, it is what is refused
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",
        "[2001::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00:ec2::254]",
        "[5f00::1]",
        "[ff02::1]",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "2130706433",
        "0",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "１２７.0.0.1",  # noqa: RUF001 - the ambiguity is the attack
        "127.0.0.1.",
        "%31%32%37.0.0.1",
    ],
)
async def test_no_way_to_write_a_private_address_is_let_through(host: str, inside: Inside) -> None:
    async with client(dns=ScriptedDns(["127.0.0.1"])) as egress:
        with pytest.raises((UrlRefused, aiohttp.ClientError, OSError)) as raised:
            async with egress.request("POST", f"http://{host}:{inside.port}/"):
                pass

    assert inside.reached == []
    assert was_refused(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
        ["fe80::1%eth0"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [],
    ],
)
async def test_a_name_that_leads_inside_is_refused_even_if_only_in_part(
    answer: list[str], inside: Inside
) -> None:
    async with client(dns=ScriptedDns(answer)) as egress:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            async with egress.request("POST", f"http://customer.example:{inside.port}/"):
                pass

    assert inside.reached == []
    assert was_refused(raised.value)


async def test_a_name_that_is_rebound_between_two_requests_is_refused(inside: Inside) -> None:
    """The first answer is good (loopback is allowed here), the second leads elsewhere inside."""
    dns = ScriptedDns(["127.0.0.1"], ["10.0.0.1"])
    url = f"http://customer.example:{inside.port}/"
    async with client(allowed=True, dns=dns) as egress:
        async with egress.request("GET", url, headers={"Connection": "close"}) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            async with egress.request("GET", url):
                pass

    assert dns.asked == ["customer.example", "customer.example"]
    assert was_refused(raised.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "127。0。0。1", "localhost"]
)
async def test_the_guard_on_the_socket_stands_alone(host: str, inside: Inside) -> None:
    """Nothing else is asked about a literal: without the guard these requests arrive."""
    guarded = aiohttp.TCPConnector(
        resolver=aiohttp.ThreadedResolver(), socket_factory=guarded_sockets(EgressPolicy())
    )
    async with aiohttp.ClientSession(connector=guarded) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(f"http://{host}:{inside.port}/")

    assert inside.reached == []
    assert was_refused(raised.value)


async def test_a_redirect_is_an_answer_and_not_followed(inside: Inside) -> None:
    async with (
        client(allowed=True) as egress,
        egress.request("POST", f"http://127.0.0.1:{inside.port}/redirect") as response,
    ):
        assert response.status == 302

    assert [request.path for request in inside.reached] == ["/redirect"]


async def test_an_allowed_network_is_reached_and_the_body_arrives(inside: Inside) -> None:
    async with (
        client(allowed=True, allow_http=False) as egress,
        egress.request(
            "POST",
            f"http://127.0.0.1:{inside.port}/hook",
            body=b"{}",
            headers={"webhook-id": "1"},
            timeout=timedelta(seconds=2),
        ) as response,
    ):
        assert await read_at_most(response, 100) == b"inside"

    [request] = inside.reached
    assert request.headers["webhook-id"] == "1"


async def test_names_are_asked_of_the_real_resolver_by_default(inside: Inside) -> None:
    policy = EgressPolicy(allowed_networks=LOOPBACK, allow_http=True)
    async with (
        EgressClient(policy=policy) as egress,
        egress.request("GET", f"http://localhost:{inside.port}/") as response,
    ):
        assert response.status == 200


async def test_proxies_of_the_environment_are_not_used(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with (
        client(allowed=True) as egress,
        egress.request("GET", f"http://127.0.0.1:{inside.port}/") as response,
    ):
        assert response.status == 200


async def test_cookies_are_not_kept(inside: Inside) -> None:
    async with client(allowed=True) as egress:
        for _ in range(2):
            async with egress.request("GET", f"http://127.0.0.1:{inside.port}/cookie"):
                pass

    assert all("Cookie" not in request.headers for request in inside.reached)


async def test_a_compressed_answer_stays_compressed(inside: Inside) -> None:
    async with (
        client(allowed=True) as egress,
        egress.request("GET", f"http://127.0.0.1:{inside.port}/zipped") as response,
    ):
        assert (await read_at_most(response, 100)).startswith(b"\x1f\x8b")


async def test_no_more_is_read_of_an_answer_than_asked_for(inside: Inside) -> None:
    async with (
        client(allowed=True) as egress,
        egress.request("GET", f"http://127.0.0.1:{inside.port}/long") as response,
    ):
        assert await read_at_most(response, 4096) == b"x" * 4096
        assert response.closed


async def test_a_failure_of_the_network_is_not_a_refusal(inside: Inside) -> None:
    url = f"http://127.0.0.1:{inside.port}/"
    await inside.server.close()
    async with client(allowed=True) as egress:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            async with egress.request("GET", url):
                pass

    assert not was_refused(raised.value)


async def test_a_client_that_was_not_entered_refuses_to_work() -> None:
    with pytest.raises(RuntimeError, match="enter"):
        client().request("GET", "https://example.com/")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "https"),
        ("example.com/hook", "https"),
        ("ftp://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("https:///hook", "https"),
        ("http://example.com/", "https"),
        ("https://user:secret@example.com/", "credentials"),
        ("https://user@example.com/", "credentials"),
        ("https://example.com:22/", "Port 22"),
        ("https://example.com:0/", "Port 0"),
        ("https://example.com:99999/", "not a URL"),
        ("https://exa\nmple.com/", "control character"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com/a b", "space"),
        ("https://example.com/" + "x" * 2048, "longer"),
        ("https://api.waypost.example/hook", "back to this service"),
        ("https://WAYPOST.example./hook", "back to this service"),
        ("https://10.0.0.1/", "private"),
        ("https://[::1]/", "private"),
        ("https://[::1/", "not a URL"),
        ("https://0x7f.1/", "not a name"),
    ],
)
def test_a_url_outside_the_policy_is_refused_with_what_to_change(url: str, why: str) -> None:
    policy = EgressPolicy(own_hosts=host_names(["Waypost.example.", ""]))

    with pytest.raises(UrlRefused, match=why):
        policy.vet(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?a=b",
        "https://example.com:8443/hook",
        "https://grüße.example/hook",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]/",
        "https://notwaypost.example/",
        "https://1and1.example/",
    ],
)
def test_a_public_url_is_fine(url: str) -> None:
    policy = EgressPolicy(own_hosts=host_names(["waypost.example"]))

    assert policy.vet(url) == URL(url)


def test_plain_http_is_open_to_allowed_literals_only_unless_allowed_at_large() -> None:
    policy = EgressPolicy(allowed_networks=LOOPBACK)

    assert policy.vet("http://127.0.0.1:8080/hook").port == 8080
    for url in ("http://93.184.216.34/", "http://example.com/"):
        with pytest.raises(UrlRefused, match="https"):
            policy.vet(url)
        assert EgressPolicy(allow_http=True).vet(url)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", PUBLIC, "2606:4700::1111", "::ffff:8.8.8.8", "2a00::1"]
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert permitted(address)


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "0x7f.0.0.1", "1.2.3.4.5", "::g"])
def test_what_is_no_address_is_not_permitted(address: str) -> None:
    assert not permitted(address, allowed=LOOPBACK)


@pytest.mark.parametrize(("opened", "beside"), [("127.0.0.9", "10.0.0.1"), ("::1", "fd00::1")])
def test_an_allowance_opens_what_it_names_and_nothing_else(opened: str, beside: str) -> None:
    assert permitted(opened, allowed=LOOPBACK)
    assert not permitted(beside, allowed=LOOPBACK)


def test_a_network_that_is_misspelt_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        networks(["127.0.0.0/8", "10.0.0.0/99"])


def test_a_refused_dial_is_an_os_error_so_that_aiohttp_reports_it_as_one() -> None:
    assert issubclass(AddressRefused, OSError)
