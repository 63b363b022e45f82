"""The description of the API is valid, complete, and shown without help from anywhere else."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client import CollectorRegistry
from pydantic import Field, WithJsonSchema

from shared.web.docs import add_docs
from shared.web.edge import Edge
from shared.web.envelope import respond
from shared.web.examples import JsonObject, example_of, is_object
from shared.web.openapi import document, template
from shared.web.pagination import PageQuery
from shared.web.routes import Also, Route, add_routes
from shared.web.schemas import ApiModel, ApiView, Instant
from tests.support.clock import HandClock

Client = TestClient[web.Request, web.Application]


class SendText(ApiModel):
    to: str = Field(examples=["+12025550100"])
    message: str = Field(max_length=4096, examples=["Hello"])
    reply_to: UUID | None = None


class Upload(ApiModel):
    to: str
    image: Annotated[
        bytes, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})
    ]


class Nested(ApiView):
    phone: str | None = None


class Message(ApiView):
    id: UUID
    created_at: Instant
    sender: Nested
    tags: tuple[str, ...] = ()


class MessageQuery(PageQuery):
    status: list[str] | None = Field(default=None, description="Only these.")
    search: str


async def echo(request: web.Request) -> web.StreamResponse:
    return respond(request.match_info.get("id", request.path))


SEND = Route(
    method="POST",
    path="/api/messages/text",
    handler=echo,
    summary="Send a text",
    tag="Messages",
    permission="can_send_messages",
    request=SendText,
    response=Message,
    status=202,
    idempotent=True,
    limited=True,
    errors=("INSTANCE_NOT_READY", "QUOTA_EXCEEDED"),
)
LIST = Route(
    method="GET",
    path="/api/messages",
    handler=echo,
    summary="List messages",
    tag="Messages",
    permission="authenticated",
    query=MessageQuery,
    response=Message,
    paginated=True,
)
QR = Route(
    method="GET",
    path="/api/instances/{id}/qr",
    aliases=("/api/clients/{id}/qr",),
    handler=echo,
    summary="The QR to scan",
    tag="Instances",
    permission="authenticated",
    response=Nested,
    raw={"image/png": "The picture.", "image/svg+xml": "The picture."},
)
IMAGE = replace(
    SEND, path="/api/messages/image", summary="Send an image", request=SendText, form=Upload
)
DELETE = Route(
    method="DELETE",
    path=r"/api/messages/{id:[0-9a-f-]{36}}",
    handler=echo,
    summary="Revoke a message",
    tag="Messages",
    permission="can_send_messages",
    status=204,
)
VERSION = Route(
    method="GET",
    path="/api/version",
    handler=echo,
    summary="What runs here",
    tag="Operation",
    permission=None,
    response=dict[str, str],
)
ROUTES = (SEND, LIST, QR, IMAGE, DELETE, VERSION)


def described(routes: Sequence[Route] = ROUTES) -> JsonObject:
    return document(routes, title="Waypost", version="1.0.0", description="Talks on WhatsApp.")


def at(value: object, *path: str) -> JsonObject:
    """The object at ``path`` in a piece of JSON."""
    for step in path:
        assert is_object(value)
        value = value[step]
    assert is_object(value)
    return value


def operation(method: str, path: str) -> JsonObject:
    return at(described(), "paths", path, method)


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(described()).validate()


def test_a_body_and_an_answer_are_described_by_their_models_with_examples() -> None:
    sending = operation("post", "/api/messages/text")
    body = at(sending, "requestBody", "content", "application/json")
    answer = at(sending, "responses", "202", "content", "application/json")

    assert body["schema"] == {"$ref": "#/components/schemas/SendText"}
    assert body["example"] == {"to": "+12025550100", "message": "Hello"}
    assert at(answer, "schema", "properties")["data"] == {"$ref": "#/components/schemas/Message"}
    assert at(answer, "example")["success"] is True
    assert at(answer, "example", "data")["createdAt"] == "2026-01-15T10:30:00.000Z"


def test_every_error_that_follows_and_every_declared_one_is_there_with_an_example() -> None:
    answers = at(operation("post", "/api/messages/text"), "responses")
    codes = {
        code
        for status in answers
        if status != "202"
        for code in at(answers, status, "content", "application/json", "examples")
    }

    assert codes == {
        "BAD_REQUEST",
        "CONFLICT",
        "ENGINE_UNAVAILABLE",
        "FORBIDDEN",
        "IDEMPOTENCY_MISMATCH",
        "INSTANCE_NOT_READY",
        "INTERNAL_SERVER_ERROR",
        "PAYLOAD_TOO_LARGE",
        "QUOTA_EXCEEDED",
        "RATE_LIMIT_EXCEEDED",
        "REQUEST_TIMEOUT",
        "UNAUTHORIZED",
        "UNSUPPORTED_MEDIA_TYPE",
        "VALIDATION_FAILED",
    }


def test_headers_are_described_on_answers_and_requests() -> None:
    sending = operation("post", "/api/messages/text")

    assert {"X-Request-Id", "RateLimit-Remaining", "Idempotency-Replayed"} <= set(
        at(sending, "responses", "202", "headers")
    )
    assert {"Retry-After", "RateLimit-Reset"} <= set(at(sending, "responses", "429", "headers"))
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in list_of(sending["parameters"])


def list_of(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def test_a_query_is_described_field_by_field() -> None:
    named = {
        parameter["name"]: parameter
        for parameter in list_of(operation("get", "/api/messages")["parameters"])
        if is_object(parameter) and parameter.get("in") == "query"
    }

    assert set(named) == {"limit", "cursor", "status", "search"}
    assert (named["search"]["required"], named["limit"]["required"]) == (True, False)
    assert named["status"]["description"] == "Only these."


def test_a_list_has_its_items_and_its_pagination() -> None:
    answer = at(
        operation("get", "/api/messages"), "responses", "200", "content", "application/json"
    )

    assert at(answer, "schema", "properties", "data")["type"] == "array"
    assert set(at(answer, "schema", "properties")) == {"success", "data", "pagination"}


def test_other_media_types_and_forms_are_described_beside_json() -> None:
    qr = at(operation("get", "/api/instances/{id}/qr"), "responses", "200", "content")
    image = at(operation("post", "/api/messages/image"), "requestBody", "content")

    assert set(qr) == {"application/json", "image/png", "image/svg+xml"}
    assert set(image) == {"application/json", "multipart/form-data"}


def test_an_alias_is_named_by_its_route_and_is_no_operation_of_its_own() -> None:
    assert "/api/clients/{id}/qr" not in at(described(), "paths")
    told = str(operation("get", "/api/instances/{id}/qr")["description"])
    assert "Also served as `/api/clients/{id}/qr`." in told


def test_what_was_made_leads_to_what_can_be_done_with_it() -> None:
    make = replace(SEND, path="/api/things", query=None)
    one = replace(LIST, path="/api/things/{id}", paginated=False)
    add = replace(SEND, path="/api/things/{id}/parts")
    part = replace(LIST, path="/api/things/{id}/parts/{partId}", paginated=False)
    paths = at(described([make, one, add, part]), "paths")

    links = at(paths, "/api/things", "post", "responses", "202", "links")
    assert links == {
        name: {"operationId": name, "parameters": {"id": "$response.body#/data/id"}}
        for name in ("getThingsById", "postThingsByIdParts")
    }
    assert at(paths, "/api/things/{id}/parts", "post", "responses", "202", "links") == {
        "getThingsByIdPartsByPartId": {
            "operationId": "getThingsByIdPartsByPartId",
            "parameters": {"id": "$request.path.id", "partId": "$response.body#/data/id"},
        }
    }


def test_answers_that_are_neither_the_success_nor_an_error_are_described() -> None:
    download = replace(
        QR,
        headers=("ETag",),
        also=(
            Also(status=206, description="A part", headers=("Content-Range",), raw={"*/*": "It."}),
            Also(status=304, description="The same", headers=("ETag",)),
            Also(status=416, description="No such part", problem="BAD_REQUEST"),
        ),
    )
    made = at(described([download]), "paths", "/api/instances/{id}/qr", "get")
    answers = at(made, "responses")

    assert "ETag" in at(answers, "200", "headers")
    assert "Content-Range" in at(answers, "206", "headers")
    assert "content" not in at(answers, "304")
    assert "BAD_REQUEST" in at(answers, "416", "content", "application/json", "examples")
    for name in ("Range", "IfNoneMatch"):
        assert {"$ref": f"#/components/parameters/{name}"} in list_of(made["parameters"])


def test_patterns_of_placeholders_stay_inside() -> None:
    deleting = operation("delete", "/api/messages/{id}")

    assert template(r"/a/{id:\d{1,3}}/{rest:.*}") == "/a/{id}/{rest}"
    assert "content" not in at(deleting, "responses", "204")


def test_who_may_call_is_said() -> None:
    assert operation("get", "/api/version")["security"] == []
    sending = operation("post", "/api/messages/text")
    assert sending["security"] == [{"bearer": []}, {"apiKey": []}]
    assert "`can_send_messages`" in str(sending["description"])


def test_two_routes_for_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        described([SEND, SEND])


def test_an_error_that_no_table_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="OOPS"):
        described([replace(SEND, errors=("OOPS",))])


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "string", "examples": ["own", "other"]}, "own"),
        ({"type": "string", "default": "usual"}, "usual"),
        ({"const": "fixed"}, "fixed"),
        ({"enum": ["first", "second"]}, "first"),
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "array", "items": {"type": "boolean"}}, [True]),
        ({"type": "string", "format": "date"}, "2026-01-15"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, 1.0),
        ({"type": "object"}, {}),
        ({"$ref": "#/components/schemas/Loop"}, {"next": None}),
    ],
)
def test_an_example_is_made_where_none_is_given(schema: JsonObject, example: object) -> None:
    loop: JsonObject = {
        "type": "object",
        "required": ["next"],
        "properties": {"next": {"$ref": "#/components/schemas/Loop"}, "more": {"type": "string"}},
    }
    made = example_of(schema, {"Loop": loop})

    assert made == example or (is_object(made) and set(made) == {"next"})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    Edge(service="gateway", clock=HandClock(), registry=CollectorRegistry()).install(app)
    add_routes(app, ROUTES)
    add_docs(app, described)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_routes_are_served_under_all_their_paths(client: Client) -> None:
    for path in ("/api/instances/7/qr", "/api/clients/7/qr"):
        assert (await (await client.get(path)).json())["data"] == "7"
    assert (await client.head("/api/messages")).status == 200
    assert (await client.delete("/api/messages/not-a-uuid")).status == 404


async def test_a_path_without_placeholders_takes_only_what_is_declared_for_it(
    client: Client,
) -> None:
    """Else it would be read as the id of something under a path with a placeholder."""
    refused = await client.delete("/api/messages/text")

    assert (refused.status, refused.headers["Allow"]) == (405, "OPTIONS, POST")


async def test_everything_may_be_asked_for_its_options(client: Client) -> None:
    answer = await client.options("/api/messages")

    assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert (await client.options("/api/nothing")).status == 404


async def test_the_document_is_served(client: Client) -> None:
    served = await (await client.get("/openapi.json")).json()

    assert served["openapi"] == "3.1.0"


async def test_the_page_loads_everything_from_here_and_runs_nothing_inline(client: Client) -> None:
    response = await client.get("/docs")
    page = await response.text()

    assert "//" not in page.replace("<!doctype", "")
    assert "<script>" not in page
    assert "style=" not in page
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "upgrade-insecure-requests" not in policy
    for name, kind in (
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ):
        if name != "start.js":
            assert f"/docs/{name}" in page
        file = await client.get(f"/docs/{name}")
        assert (file.status, file.content_type) == (200, kind)
    assert "/openapi.json" in await (await client.get("/docs/start.js")).text()


@pytest.mark.parametrize("name", ["swagger-editor.js", "..%2fcore.py", "%2e%2e/core.py", "nothing"])
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert (await client.get(f"/docs/{name}")).status == 404
