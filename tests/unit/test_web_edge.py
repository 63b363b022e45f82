"""What every route shares: ids, errors, headers, one line in the log, one sample in the metrics."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import orjson
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from shared import errors
from shared.web.edge import LOGGED, REQUEST_ID, RESPONSE_HEADERS, Edge
from shared.web.envelope import respond
from shared.web.request_log import JsonRequestLog, RequestLog
from tests.support.clock import HandClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Client = TestClient[web.Request, web.Application]
CORS = "https://app.example"


async def fine(request: web.Request) -> web.StreamResponse:
    return respond({"id": request.match_info.get("id")})


def failing(error: BaseException) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    return handler


@asynccontextmanager
async def served(
    handler: Handler = fine,
    *,
    registry: CollectorRegistry | None = None,
    cors: tuple[str, ...] = (),
    clock: HandClock | None = None,
    request_log: RequestLog | None = None,
) -> AsyncIterator[Client]:
    app = web.Application()
    edge = Edge(
        service="gateway",
        clock=clock or HandClock(),
        registry=registry or CollectorRegistry(),
        cors_origins=cors,
        request_log=request_log,
    )
    edge.install(app)
    app.router.add_get("/api/things/{id}", handler)
    app.router.add_post("/api/things", handler)
    app.router.add_get("/health", handler)
    async with TestClient(TestServer(app)) as client:
        yield client


async def problem(client: Client, path: str = "/api/things/1") -> tuple[int, dict[str, object]]:
    response = await client.get(path)
    answer = await response.json()
    assert set(answer) == {"success", "error"}
    assert answer["success"] is False
    assert answer["error"]["requestId"] == response.headers["X-Request-Id"]
    return response.status, answer["error"]


@pytest.mark.parametrize("given", ["order-4711", "a", "A.b_c-9" * 18])
async def test_a_sane_request_id_is_taken(given: str) -> None:
    async with served() as client:
        response = await client.get("/api/things/1", headers={"X-Request-Id": given})

    assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "grün", "<script>", "a,b"])
async def test_any_other_request_id_is_replaced(given: str) -> None:
    async with served() as client:
        response = await client.get("/api/things/1", headers={"X-Request-Id": given})

    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])


async def test_the_request_id_is_there_for_handlers_and_bound_to_their_log_lines() -> None:
    seen: list[object] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.extend([request[REQUEST_ID], structlog.contextvars.get_contextvars()["request_id"]])
        return respond(None)

    async with served(handler) as client:
        await client.get("/api/things/1", headers={"X-Request-Id": "mine"})

    assert seen == ["mine", "mine"]


async def test_what_one_request_binds_is_gone_in_the_next_on_the_same_connection() -> None:
    seen: list[dict[str, object]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(dict(structlog.contextvars.get_contextvars()))
        structlog.contextvars.bind_contextvars(tenant_id=request.match_info["id"])
        return respond(None)

    async with served(handler) as client:
        for tenant in ("1", "2"):
            await client.get(f"/api/things/{tenant}")

    assert all("tenant_id" not in bound for bound in seen)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.Rejected("no"), 422, "VALIDATION_FAILED"),
        (errors.Rejected("no", code="NOT_ON_WHATSAPP"), 422, "NOT_ON_WHATSAPP"),
        (errors.Rejected("no", code="INSTANCE_NOT_READY"), 409, "INSTANCE_NOT_READY"),
        (errors.Rejected("no", code="IDEMPOTENCY_MISMATCH"), 422, "IDEMPOTENCY_MISMATCH"),
        (errors.Forbidden("no", code="WEBHOOK_VERIFICATION_FAILED"), 403, None),
        (errors.NotFound("no", code="CONFIG_NOT_FOUND"), 404, "CONFIG_NOT_FOUND"),
        (errors.BadRequest("no"), 400, "BAD_REQUEST"),
        (errors.BadRequest("no", code="REQUEST_TIMEOUT"), 408, "REQUEST_TIMEOUT"),
        (errors.Unauthenticated("no"), 401, "UNAUTHORIZED"),
        (errors.Forbidden("no"), 403, "FORBIDDEN"),
        (errors.NotFound("no"), 404, "NOT_FOUND"),
        (errors.Conflict("no"), 409, "CONFLICT"),
        (errors.Fenced("no"), 409, "CONFLICT"),
        (errors.PayloadTooLarge("no"), 413, "PAYLOAD_TOO_LARGE"),
        (errors.UnsupportedMediaType("no"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (errors.Throttled("no"), 429, "RATE_LIMIT_EXCEEDED"),
        (errors.Throttled("no", code="QUOTA_EXCEEDED"), 429, "QUOTA_EXCEEDED"),
        (errors.Transient("no"), 503, "ENGINE_UNAVAILABLE"),
        (errors.Unconfirmed("no"), 504, "UNCONFIRMED"),
        (errors.PlatformError("no", code="MESSAGE_PROCESSING_FAILED"), 500, None),
    ],
)
async def test_each_error_has_its_status_and_says_what_to_do(
    error: errors.PlatformError, status: int, code: str | None
) -> None:
    async with served(failing(error)) as client:
        answered, body = await problem(client)

    assert answered == status
    assert body["code"] == code or (code is None and body["code"] == error.code)
    assert body["message"] == "no"


async def test_what_an_error_knows_is_told_and_when_to_come_back() -> None:
    error = errors.Throttled(
        "slow down", data={"resetsAt": "soon"}, retry_after=timedelta(seconds=1.2)
    )
    async with served(failing(error)) as client:
        response = await client.get("/api/things/1")
        body = await response.json()

    assert response.headers["Retry-After"] == "2"
    assert body["error"]["data"] == {"resetsAt": "soon"}


async def test_every_answer_that_asks_to_come_back_says_when() -> None:
    async with served(failing(errors.Transient("later"))) as client:
        response = await client.get("/api/things/1")

    assert response.headers["Retry-After"] == "5"


async def test_who_is_not_known_is_told_how_to_be() -> None:
    async with served(failing(errors.Unauthenticated("who?"))) as client:
        response = await client.get("/api/things/1")

    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "error", [RuntimeError("password=hunter2"), errors.Unroutable("queue x is missing")]
)
async def test_a_bug_tells_the_caller_only_the_request_id_and_the_log_the_rest(
    error: Exception,
) -> None:
    with capture_logs() as lines:
        async with served(failing(error)) as client:
            status, body = await problem(client)

    assert status == 500
    assert body["code"] == "INTERNAL_SERVER_ERROR"
    assert str(error) not in str(body)
    [crash] = [line for line in lines if line["event"] == "request_crashed"]
    assert crash["exc_info"] is error
    assert crash["request_id"] == body["requestId"]


async def test_a_path_that_does_not_exist_is_answered_in_the_envelope() -> None:
    async with served() as client:
        status, body = await problem(client, "/api/nothing")

    assert (status, body["code"]) == (404, "NOT_FOUND")
    assert "GET /api/nothing" in str(body["message"])


async def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_does() -> None:
    async with served() as client:
        response = await client.put("/api/things", json={})
        body = await response.json()

    assert (response.status, body["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "OPTIONS, POST"


async def test_aiohttps_own_413_is_answered_in_the_envelope() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise web.HTTPRequestEntityTooLarge(1, 2)

    async with served(handler) as client:
        status, body = await problem(client)

    assert (status, body["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_redirect_that_a_handler_raises_passes_with_all_headers() -> None:
    async with served(failing(web.HTTPFound("https://example.com/"))) as client:
        response = await client.get("/api/things/1", allow_redirects=False)

    assert response.status == 302
    assert response.headers["Location"] == "https://example.com/"
    assert "X-Request-Id" in response.headers


async def test_the_headers_are_those_of_helmet() -> None:
    async with served() as client:
        response = await client.get("/api/things/1")

    assert response.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-XSS-Protection"] == "0"
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert "aiohttp" not in response.headers["Server"]


async def test_an_answer_keeps_a_header_that_it_set_itself() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Content-Security-Policy": "default-src 'none'"})

    async with served(handler) as client:
        response = await client.get("/api/things/1")

    assert response.headers.getall("Content-Security-Policy") == ["default-src 'none'"]


async def test_headers_for_whatever_is_answered_are_on_errors_too() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        request[RESPONSE_HEADERS] = {"RateLimit-Limit": "100"}
        raise errors.Conflict("no")

    async with served(handler) as client:
        response = await client.get("/api/things/1")

    assert (response.status, response.headers["RateLimit-Limit"]) == (409, "100")


async def test_a_streamed_answer_has_the_headers_too() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a,b\n")
        return response

    async with served(handler) as client:
        response = await client.get("/api/things/1")
        assert await response.text() == "a,b\n"

    assert "X-Request-Id" in response.headers
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_stream_that_breaks_is_cut_off_and_not_continued_with_an_error() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a,b\n")
        raise RuntimeError("the database went away")

    with capture_logs() as lines:
        async with served(handler) as client:
            with pytest.raises(aiohttp.ClientError):
                await (await client.get("/api/things/1")).read()

    assert [line["event"] for line in lines] == ["request_crashed", "request_handled"]
    assert lines[1]["status"] == 500


async def test_a_caller_that_leaves_is_no_crash() -> None:
    waiting, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        waiting.set()
        try:
            await request.read()
        finally:
            gone.set()
        return respond(None)

    with capture_logs() as lines:
        async with served(handler) as client:
            _, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(b"POST /api/things HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            await waiting.wait()
            writer.transport.abort()
            await gone.wait()

    assert [(line["event"], line["status"]) for line in lines] == [("request_handled", 499)]


async def test_each_request_leaves_one_line_without_anything_private() -> None:
    clock = HandClock()

    async def handler(request: web.Request) -> web.StreamResponse:
        clock.move(timedelta(milliseconds=12.5))
        return respond({"secret": "not in the log"}, status=201)

    with capture_logs() as lines:
        async with served(handler, clock=clock) as client:
            await client.get(
                "/api/things/4711?token=abc",
                headers={"X-Request-Id": "mine", "Authorization": "Bearer abc"},
            )

    assert lines == [
        {
            "event": "request_handled",
            "log_level": "info",
            "method": "GET",
            "route": "/api/things/{id}",
            "status": 201,
            "duration_ms": 12.5,
            "request_id": "mine",
        }
    ]


async def test_probes_are_logged_at_debug() -> None:
    with capture_logs() as lines:
        async with served() as client:
            await client.get("/health")

    assert [line["log_level"] for line in lines] == ["debug"]


async def test_the_short_way_to_the_log_writes_the_same_line() -> None:
    stream, clock = io.BytesIO(), HandClock()

    async def handler(request: web.Request) -> web.StreamResponse:
        request[LOGGED] = {"tenant_id": "t1"}
        structlog.contextvars.bind_contextvars(phone="+491701234567")
        return respond(None)

    async with served(handler, clock=clock, request_log=JsonRequestLog(stream, clock)) as client:
        await client.get("/api/things/1", headers={"X-Request-Id": "mine"})
        await client.get("/health")

    [line] = stream.getvalue().splitlines()
    assert orjson.loads(line) == {
        "event": "request_handled",
        "level": "info",
        "timestamp": clock.now().isoformat().replace("+00:00", "Z"),
        "method": "GET",
        "route": "/api/things/{id}",
        "status": 200,
        "duration_ms": 0.0,
        "request_id": "mine",
        "tenant_id": "t1",
    }


async def test_durations_are_counted_by_method_route_and_class_of_status() -> None:
    registry = CollectorRegistry()
    async with served(registry=registry) as client:
        await client.get("/api/things/1")
        await client.get("/api/things/2")
        await client.get("/api/nothing/3")
        await client.request("PROPFIND", "/api/nothing")

    def count(method: str, route: str, status: str) -> float | None:
        return registry.get_sample_value(
            "waypost_gateway_http_request_seconds_count",
            {"method": method, "route": route, "status": status},
        )

    assert count("GET", "/api/things/{id}", "2xx") == 2
    assert count("GET", "unmatched", "4xx") == 1
    assert count("OTHER", "unmatched", "4xx") == 1


async def test_no_origin_is_allowed_by_default() -> None:
    async with served() as client:
        response = await client.get("/api/things/1", headers={"Origin": CORS})
        asked = await client.options(
            "/api/things", headers={"Origin": CORS, "Access-Control-Request-Method": "POST"}
        )

    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Access-Control-Allow-Methods" not in asked.headers


async def test_a_configured_origin_may_ask_and_read() -> None:
    async with served(cors=(CORS + "/",)) as client:
        asked = await client.options(
            "/api/things", headers={"Origin": CORS, "Access-Control-Request-Method": "POST"}
        )
        response = await client.get("/api/things/1", headers={"Origin": CORS})
        failed = await client.get("/api/nothing", headers={"Origin": CORS})

    assert asked.status == 204
    assert "Idempotency-Key" in asked.headers["Access-Control-Allow-Headers"]
    for answer in (asked, response, failed):
        assert answer.headers["Access-Control-Allow-Origin"] == CORS
        assert answer.headers["Vary"] == "Origin"
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Request-Id", "Content-Range", "ETag"} <= set(exposed)


async def test_another_origin_may_not_and_caches_are_told() -> None:
    async with served(cors=(CORS,)) as client:
        response = await client.get("/api/things/1", headers={"Origin": "https://evil.example"})
        asked = await client.options(
            "/api/things",
            headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        )

    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Methods" not in asked.headers


async def test_a_star_allows_every_origin() -> None:
    async with served(cors=("*",)) as client:
        response = await client.get("/api/things/1", headers={"Origin": "https://any.example"})

    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in response.headers
