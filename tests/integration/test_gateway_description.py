"""What the description says of the gateway is so, route by route and example by example."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.web.errors import CODES
from tests.support import gateway as gateway_support
from tests.support.gateway import Gateway

# What only a caller can know; no example can be right for everybody.
CALLERS_OWN = {"currentPassword", "instanceId", "messageId", "messageIds.0"}
METHODS = {"get", "post", "put", "patch", "delete"}
# The description and the page that shows it; and what speaks another protocol, which the
# description's own words tell of.
NOT_DESCRIBED = ("/openapi.json", "/asyncapi.json", "/docs", "/socket.io")


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """One that does not wait long for answers of instances: nobody is there to give any."""
    async with gateway_support.running(database_url, ask_seconds=0.1) as running:
        yield running


@pytest.fixture
async def description(gateway: Gateway) -> Any:
    """The document, as it is served."""
    return (await gateway.stranger().get("/openapi.json")).body


def operations(description: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in description["paths"].items():
        for method in METHODS & methods.keys():
            yield method, path, methods[method]


def resolved(description: Any, part: Any) -> Any:
    while "$ref" in part:
        target = description
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


def contents(description: Any, operation: Any) -> Iterator[tuple[str, Any]]:
    """Every body of an operation, in and out."""
    yield from (("request", media) for media in bodies(operation.get("requestBody", {})))
    for status, answer in operation["responses"].items():
        yield from ((status, media) for media in bodies(answer))
        for name, header in answer["headers"].items():
            yield f"{status} {name}", resolved(description, header)
    for parameter in operation["parameters"]:
        found = resolved(description, parameter)
        if "example" in found:
            yield found["name"], found


def bodies(part: Any) -> Iterator[Any]:
    yield from part.get("content", {}).values()


def examples(media: Any) -> Iterator[Any]:
    if "example" in media:
        yield media["example"]
    for example in media.get("examples", {}).values():
        yield example["value"]


def test_the_validator_of_examples_refuses_what_does_not_fit() -> None:
    assert list(faults({"components": {}}, {"type": "string", "format": "uuid"}, "text"))


def faults(description: Any, schema: Any, example: Any) -> Iterator[str]:
    validator = Draft202012Validator(
        {**schema, "components": description["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    yield from (error.message for error in validator.iter_errors(example))


async def test_it_is_valid_openapi(description: Any) -> None:
    OpenAPIV31SpecValidator(description).validate()


async def test_every_example_fits_its_own_schema(description: Any) -> None:
    wrong, seen = [], 0
    for method, path, operation in operations(description):
        for where, media in contents(description, operation):
            for example in examples(media):
                seen += 1
                wrong += [
                    f"{method} {path} {where}: {fault}"
                    for fault in faults(description, media["schema"], example)
                ]
    assert wrong == []
    assert seen > 1000


async def test_every_body_has_an_example(description: Any) -> None:
    bare = [
        f"{method} {path} {where}"
        for method, path, operation in operations(description)
        for where, media in contents(description, operation)
        if media["schema"].get("type") != "string" and not list(examples(media))
    ]
    assert bare == []


async def test_every_example_of_a_request_is_taken_as_it_stands(
    gateway: Gateway, description: Any
) -> None:
    """It may meet what is not there, but nothing is wrong with it."""
    admin, _ = await gateway.register("examples@example.com")
    sender = await gateway.sender()
    refused = []
    for method, path, operation in operations(description):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is None or path in {"/api/auth/logout", "/api/auth/deactivate"}:
            continue
        for customer in (admin, sender.customer):
            sent = dict(body["example"])
            if customer is admin:
                sent.pop("instanceId", None)
            place = path.replace("{id}", str(sender.instance))
            answer = await customer.call(method.upper(), place, json=sent)
            if answer.status == 422 and answer.code == "VALIDATION_FAILED":
                fields = answer.body["error"]["data"]["fields"]
                refused += [(method, path, name) for name in fields.keys() - CALLERS_OWN]

    assert refused == []


async def test_what_is_served_is_described_and_what_is_described_is_served(
    gateway: Gateway, description: Any
) -> None:
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in gateway.app.router.routes()
        if route.resource is not None
        and route.method.lower() in METHODS
        and not route.resource.canonical.startswith(NOT_DESCRIBED)
    }
    described = {(method, path) for method, path, _ in operations(description)}
    aliases = {
        (method, alias)
        for method, _, operation in operations(description)
        for alias in operation["description"].partition("Also served as ")[2].split("`")[1::2]
        if alias.startswith("/")
    }
    assert described | aliases == served
    assert not described & aliases
    assert "/socket.io" in description["info"]["description"]


async def test_every_operation_has_an_id_of_its_own_and_tells_its_headers(
    description: Any,
) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(set(ids)) == len(ids)
    for method, path, operation in operations(description):
        for status, answer in operation["responses"].items():
            if path.startswith("/api/"):
                assert "X-Request-Id" in answer["headers"], (method, path, status)
            if status in {"429", "503"} and path.startswith("/api/"):
                assert "Retry-After" in answer["headers"], (method, path, status)
        if operation["security"]:
            assert {"401", "403", "429"} <= operation["responses"].keys(), (method, path)


async def test_every_error_has_an_example_of_every_code_that_it_may_have(
    description: Any,
) -> None:
    for method, path, operation in operations(description):
        for status, answer in operation["responses"].items():
            media = answer.get("content", {}).get("application/json", {})
            if media.get("schema", {}).get("$ref", "").endswith("/Error"):
                assert media["examples"], (method, path, status)
                assert {CODES[code][0] for code in media["examples"]} <= {int(status), 400}
