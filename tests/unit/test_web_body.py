"""Bodies and queries: limits hold while reading, and errors name the field and the fix."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Annotated, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from shared.errors import BadRequest, Rejected
from shared.web.body import BodyLimits, parse, read_bytes, read_model, read_query, validated
from shared.web.edge import Edge
from shared.web.envelope import respond
from shared.web.schemas import ApiModel, Instant
from tests.support.clock import HandClock

Client = TestClient[web.Request, web.Application]


class Media(ApiModel):
    file_name: str = ""


class Text(ApiModel):
    kind: Literal["text"] = "text"
    body: str = Field(max_length=5)


class Poll(ApiModel):
    kind: Literal["poll"]
    options: list[str]


class Send(ApiModel):
    to: str = Field(min_length=1)
    link_preview: bool = True
    media: Media | None = None
    copies: int = Field(default=1, ge=1, le=3)
    ratio: float = 0.0
    content: Annotated[Text | Poll, Field(discriminator="kind")] | None = None
    scheduled_at: Instant | None = None

    @field_validator("to")
    @classmethod
    def not_ourselves(cls, to: str) -> str:
        if to == "me":
            raise ValueError("is this instance's own number; name somebody else")
        return to


class Filter(ApiModel):
    limit: int = 50
    from_date: Instant | None = None
    status: list[Literal["sent", "failed"]] | None = None


LIMITS = BodyLimits(largest=200, deadline=timedelta(milliseconds=100))


async def take(request: web.Request) -> web.StreamResponse:
    return respond(await read_model(request, Send, LIMITS))


async def take_raw(request: web.Request) -> web.StreamResponse:
    return respond(len(await read_bytes(request, LIMITS)))


async def search(request: web.Request) -> web.StreamResponse:
    return respond(read_query(request, Filter))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    Edge(service="gateway", clock=HandClock(), registry=CollectorRegistry()).install(app)
    app.router.add_post("/send", take)
    app.router.add_post("/raw", take_raw)
    app.router.add_get("/search", search)
    async with TestClient(TestServer(app)) as client:
        yield client


@asynccontextmanager
async def connection(
    client: Client,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def fields(raw: bytes, model: type[BaseModel] = Send) -> dict[str, str]:
    with pytest.raises(Rejected) as raised:
        parse(raw, model)
    assert raised.value.code == "VALIDATION_FAILED"
    assert raised.value.data is not None
    found = raised.value.data["fields"]
    assert isinstance(found, dict)
    return found


async def test_a_body_that_fits_is_read_by_its_names_on_the_wire(client: Client) -> None:
    response = await client.post("/send", json={"to": "1", "linkPreview": False})

    assert response.status == 200
    assert (await response.json())["data"]["linkPreview"] is False


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", {"to": "is missing; add it"}),
        (
            b'{"to":"1","titel":1}',
            {"titel": "is not a field here; remove it or check its spelling"},
        ),
        (b'{"to":"1","link_preview":false}', {"link_preview": None}),
        (b'{"to":""}', {"to": "is too short; at least 1 characters"}),
        (b'{"to":1}', {"to": "must be a string"}),
        (b'{"to":"me"}', {"to": "is this instance's own number; name somebody else"}),
        (b'{"to":"1","copies":4}', {"copies": "must be 3 or less"}),
        (b'{"to":"1","copies":1.5}', {"copies": "must be a whole number"}),
        (b'{"to":"1","ratio":NaN}', {"ratio": "must be a finite number"}),
        (b'{"to":"1","media":{"x":1}}', {"media.x": None}),
        (b'{"to":"1","media":3}', {"media": "must be an object"}),
        (
            b'{"to":"1","content":{"kind":"text","body":"too long"}}',
            {"content.text.body": "is too long; at most 5 characters"},
        ),
        (
            b'{"to":"1","content":{"kind":"song"}}',
            {"content": "must be one of 'text', 'poll'"},
        ),
        (b'{"to":"1","content":{}}', {"content": None}),
        (b'{"to":"1","scheduledAt":"soon"}', {"scheduledAt": None}),
        (
            b'{"to":"1","scheduledAt":"2026-01-15T10:30:00"}',
            {"scheduledAt": "lacks its offset from UTC; end it with Z"},
        ),
        (b"[]", {"body": "must be an object"}),
        (b'"text"', {"body": "must be an object"}),
        (b"null", {"body": "must be an object"}),
        (b'{"to":"a\\u0000b"}', {"to": None}),
        (b'{"to":"1","media":{"fileName":"\\u0000"}}', {"media.fileName": None}),
    ],
)
def test_each_bad_field_is_named_with_what_to_do(
    raw: bytes, expected: dict[str, str | None]
) -> None:
    found = fields(raw)

    assert set(found) == set(expected)
    for name, words in expected.items():
        assert words is None or found[name] == words


def test_several_bad_fields_are_told_at_once() -> None:
    assert set(fields(b'{"copies":0,"ratio":"x","titel":1}')) == {"to", "copies", "ratio", "titel"}


def test_what_was_sent_is_never_repeated_back() -> None:
    raw = b'{"to":"1","copies":"hunter2","content":{"kind":"hunter2"},"media":"hunter2"}'

    assert "hunter2" not in str(fields(raw))


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert parse(b'{"to":"\\\\u0000"}', Send).to == "\\u0000"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"{",
        b'{"to":}',
        b'{"to":"1"} {}',
        b'{"to":"\xff"}',
        b'{"to":"\xc3"}',
        b'{"to":"\xed\xa0\x80"}',
        b'{"to":"\\ud800"}',
        b'{"to":"a\x00b"}',
        b"\xef\xbb\xbf{}",
        b'{"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        '{"to":"1"}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_in_utf8_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest) as raised:
        parse(raw, Send)

    assert raised.value.code == "BAD_REQUEST"


@pytest.mark.parametrize(
    "declared",
    ["application/json", "Application/JSON; charset=UTF-8", "application/problem+json"],
)
async def test_json_by_its_names_is_taken(client: Client, declared: str) -> None:
    response = await client.post("/send", data=b'{"to":"1"}', headers={"Content-Type": declared})

    assert response.status == 200


@pytest.mark.parametrize(
    "declared",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
async def test_anything_else_is_an_unsupported_media_type(client: Client, declared: str) -> None:
    response = await client.post("/send", data=b'{"to":"1"}', headers={"Content-Type": declared})

    assert response.status == 415
    assert (await response.json())["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


async def test_a_body_of_just_the_limit_is_read(client: Client) -> None:
    response = await client.post("/raw", data=b"x" * 200)

    assert (await response.json())["data"] == 200


async def test_a_declared_length_past_the_limit_is_refused_before_any_of_it_came(
    client: Client,
) -> None:
    async with connection(client) as (reader, writer):
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        status = await reader.readline()

    assert b" 413 " in status


async def test_a_chunked_body_is_refused_as_soon_as_it_is_past_the_limit(client: Client) -> None:
    async with connection(client) as (reader, writer):
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"c9\r\n" + b"x" * 201 + b"\r\n")  # and never the end of it
        head = await reader.readuntil(b"\r\n\r\n")

    assert b" 413 " in head
    assert b"Connection: close" in head


async def test_a_body_that_unpacks_past_the_limit_is_refused(client: Client) -> None:
    response = await client.post("/raw", data=b"x" * 100_000, compress="deflate")

    assert response.status == 413


async def test_a_body_that_takes_too_long_is_refused(client: Client) -> None:
    async with connection(client) as (reader, writer):
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(1000)

    assert b" 408 " in head
    assert b"REQUEST_TIMEOUT" in body


async def test_a_body_with_a_broken_encoding_is_a_bad_request(client: Client) -> None:
    async with connection(client) as (reader, writer):
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"not a length\r\n")
        status = await reader.readline()

    assert b" 400 " in status


async def test_a_query_is_read_with_lists_repeated_or_by_commas(client: Client) -> None:
    response = await client.get(
        "/search?limit=3&status=sent,failed&status=sent&fromDate=2026-01-15T11:30:00%2B01:00"
    )

    assert (await response.json())["data"] == {
        "limit": 3,
        "fromDate": "2026-01-15T10:30:00.000Z",
        "status": ["sent", "failed", "sent"],
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("lmit=1", "lmit"),
        ("from_date=2026-01-15T10:30:00Z", "from_date"),
        ("status=lost", "status.0"),
        ("limit=%00", "limit"),
    ],
)
async def test_a_bad_query_is_named(client: Client, query: str, field: str) -> None:
    response = await client.get(f"/search?{query}")

    assert response.status == 422
    assert list((await response.json())["error"]["data"]["fields"]) == [field]


def test_fields_from_elsewhere_are_validated_alike() -> None:
    assert validated({"to": "1", "copies": "2"}, Send).copies == 2
    with pytest.raises(Rejected, match="`to`"):
        validated({}, Send)


def bad_fields(refused: Rejected) -> list[str]:
    assert refused.data is not None
    fields = refused.data["fields"]
    assert isinstance(fields, dict)
    return list(fields)


class Period(ApiModel):
    since: AwareDatetime | date | None = None
    days: tuple[date, ...] = ()
    count: int = 0


@pytest.mark.parametrize("number", ["0", "0.5", "1e9", "-1", "NaN"])
def test_a_number_is_no_time(number: str) -> None:
    with pytest.raises(Rejected) as refused:
        validated({"since": number, "days": ["2026-01-15"], "count": number}, Period)

    assert "since" in bad_fields(refused.value)
    assert validated({"since": "2026-01-15", "count": "5"}, Period).count == 5


@pytest.mark.parametrize("raw", [b'{"count": "5"}', b'{"count": true}', b'{"count": 1.5}'])
def test_json_is_what_it_says_it_is(raw: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(raw, Period)

    assert bad_fields(refused.value) == ["count"]
