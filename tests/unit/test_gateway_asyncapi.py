"""The description of what is published is valid AsyncAPI 3.0, and true of what is published."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft7Validator, FormatChecker

from services.gateway.api.asyncapi import document
from shared.broker.topology import TOPOLOGY
from shared.contracts.envelope import decode, encode
from shared.contracts.events import EVENTS

GOLDEN = Path(__file__).parents[1] / "contract" / "golden" / "events"
DOCUMENT: Any = orjson.loads(orjson.dumps(document(title="Waypost", version="1.2.3")))

# What AsyncAPI 3.0.0 knows of each object, and what of that it requires.
FIELDS = {
    "document": (
        {"asyncapi", "info"},
        {"id", "servers", "defaultContentType", "channels", "operations", "components"},
    ),
    "info": (
        {"title", "version"},
        {"description", "termsOfService", "contact", "license", "tags", "externalDocs"},
    ),
    "server": (
        {"host", "protocol"},
        {"protocolVersion", "pathname", "description", "title", "summary", "bindings"},
    ),
    "channel": (
        {"address", "messages"},
        {"title", "summary", "description", "servers", "parameters", "tags", "bindings"},
    ),
    "operation": (
        {"action", "channel"},
        {"title", "summary", "description", "bindings", "messages", "reply"},
    ),
    "message": (
        {"payload"},
        {"name", "title", "summary", "description", "contentType", "headers", "bindings"},
    ),
    "parameter": (set(), {"enum", "default", "description", "examples", "location"}),
    "components": (set(), {"schemas", "messages", "servers", "channels", "operations"}),
}


def check(kind: str, given: dict[str, Any]) -> None:
    required, optional = FIELDS[kind]
    assert required <= set(given) <= required | optional, (kind, given)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, dict):
        if "$ref" in value:
            assert set(value) == {"$ref"} or "description" in value
            yield value["$ref"]
        for each in value.values():
            yield from references(each)


def resolved(reference: str) -> Any:
    found = DOCUMENT
    start, *path = reference.split("/")
    assert start == "#"
    for name in path:
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return found


def test_every_object_has_what_the_specification_asks_for_and_nothing_else() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    check("document", DOCUMENT)
    check("info", DOCUMENT["info"])
    check("components", DOCUMENT["components"])
    for server in DOCUMENT["servers"].values():
        check("server", server)
    for message in DOCUMENT["components"]["messages"].values():
        check("message", message)
    for operation in DOCUMENT["operations"].values():
        check("operation", operation)
        assert operation["action"] == "send"
        assert operation["bindings"]["amqp"]["deliveryMode"] in {1, 2}
    for named in DOCUMENT["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in named)


def test_a_channel_declares_just_the_parameters_of_its_address() -> None:
    exchanges = {exchange.name: exchange.kind for exchange in TOPOLOGY.exchanges}
    for channel in DOCUMENT["channels"].values():
        check("channel", channel)
        assert set(re.findall(r"\{(.*?)\}", channel["address"])) == set(channel["parameters"])
        for parameter in channel["parameters"].values():
            check("parameter", parameter)
        amqp = channel["bindings"]["amqp"]
        assert amqp["is"] == "routingKey"
        assert exchanges[amqp["exchange"]["name"]] == amqp["exchange"]["type"]


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert "#/components/schemas/Envelope" in found
    for reference in found:
        assert resolved(reference) is not None
    for operation in DOCUMENT["operations"].values():
        assert operation["channel"]["$ref"].startswith("#/channels/")
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert schemas <= found, "a schema that nothing names"


def test_every_schema_is_one() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft7Validator.check_schema(schema)
        assert "null" not in orjson.dumps(schema).decode(), name
        assert "discriminator" not in orjson.dumps(schema).decode(), name


@pytest.mark.parametrize("event", EVENTS.values(), ids=list(EVENTS))
def test_what_is_published_is_what_is_described(event: Any) -> None:
    body = (GOLDEN / f"{event.TYPE}.v{event.VERSION}.json").read_bytes()
    emitted = decode(body)
    published = orjson.loads(encode(emitted))
    valid = validator(event.TYPE)
    assert [error.message for error in valid.iter_errors(published)] == []
    for change in ({"type": "dev.waypost.other.v1"}, {"sequence": "1"}, {"data": None}):
        assert not valid.is_valid({**published, **change}), change
    # Of nothing that is required can anything be missing, and nothing else is told.
    described = DOCUMENT["components"]["schemas"][event.__name__]
    assert set(published["data"]) <= set(described["properties"])
    for name in described.get("required", ()):
        data = {key: value for key, value in published["data"].items() if key != name}
        assert not valid.is_valid({**published, "data": data}), name
    channel = DOCUMENT["channels"][event.TYPE]
    assert resolved(channel["messages"][event.TYPE]["$ref"])["name"] == published["type"]
    address = channel["address"].format(
        tenantId=emitted.tenant_id, instanceId=emitted.instance_id or "none"
    )
    assert address == emitted.routing_key


def validator(event: str) -> Draft7Validator:
    schema = {
        "$ref": f"#/components/schemas/{event}",
        "components": {"schemas": DOCUMENT["components"]["schemas"]},
    }
    return Draft7Validator(schema, format_checker=FormatChecker())


def test_batches_hold_every_event_under_its_name() -> None:
    batches = DOCUMENT["channels"]["batches"]
    assert batches["parameters"]["name"]["enum"] == list(EVENTS)
    payload = DOCUMENT["components"]["messages"]["batch"]["payload"]
    assert len(payload["items"]["oneOf"]) == len(EVENTS)
