"""The AsyncAPI 3.0 document: what programs that share our broker can listen to.

Made from the contracts that also publish, so that it cannot say anything else. Commands are not in
it: they are between our own services, and change without notice.
"""

from collections.abc import Sequence
from inspect import cleandoc
from typing import Final

from pydantic.json_schema import models_json_schema

from shared.broker.topology import BATCHES, EVENTS
from shared.contracts import events
from shared.contracts.envelope import BATCH, PREFIX, STRUCTURED
from shared.contracts.model import Event
from shared.web.examples import JsonObject, is_object

_SCHEMAS: Final = "#/components/schemas/"
_AMQP: Final = "0.3.0"
_DESCRIPTION: Final = """
What Waypost publishes to RabbitMQ, for those whom its operator lets in. Bind a queue of your own;
the queues that are there belong to Waypost. An event may come more than once: drop
repeats by its `id`. Fields are only ever added, so ignore what you do not know.
"""
_EVENT: Final = "Each event by itself, once its transaction is committed."
_BATCH: Final = (
    "The same events as Waypost's own services take them, several at a time; all of a batch have"
    " the name that is the routing key."
)
_UUID: Final[JsonObject] = {"type": "string", "format": "uuid"}
_ENVELOPE: Final[JsonObject] = {
    "description": "What all events have: CloudEvents 1.0 in its JSON format.",
    "type": "object",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {**_UUID, "description": "The same for an event that is told again."},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"type": "string"},
        "subject": {"type": "string", "description": "What it is about."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"type": "string", "format": "uri"},
        "tenantid": {**_UUID, "description": "The organization."},
        "instanceid": {**_UUID, "description": "Missing for what concerns no instance."},
        "partitionkey": {
            "type": "string",
            "description": "What order holds within: for messages, the chat.",
        },
        "sequence": {
            "type": "string",
            "pattern": "^[0-9]{20}$",
            "description": "Sorts, as text, the events of one partition as they happened.",
        },
        "traceparent": {
            "type": "string",
            "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        },
        "correlationid": {
            "type": "string",
            "description": "The id of the request that this follows from, else its own id.",
        },
        "data": {"type": "object"},
    },
    "required": [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "tenantid",
        "partitionkey",
        "sequence",
        "traceparent",
        "correlationid",
        "data",
    ],
}


def document(*, title: str, version: str) -> JsonObject:
    """The whole document."""
    known = list(events.EVENTS.values())
    channels = {event.TYPE: _channel(event) for event in known}
    operations = {event.TYPE: _operation(event.TYPE) for event in known}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": cleandoc(_DESCRIPTION)},
        "defaultContentType": STRUCTURED,
        "servers": {
            "rabbitmq": {
                "host": "rabbitmq:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The broker of AMQP_URL.",
            }
        },
        "channels": {**channels, "batches": _batches(known)},
        "operations": {**operations, "batches": _operation("batches")},
        "components": {
            "messages": {event.TYPE: _message(event) for event in known} | {"batch": _batch(known)},
            "schemas": _schemas(known),
        },
    }


def _channel(event: type[Event]) -> JsonObject:
    return {
        "address": f"ev.{{tenantId}}.{{instanceId}}.{event.TYPE}.v{event.VERSION}",
        "title": event.TYPE,
        "summary": _summary(event),
        "description": _EVENT,
        "parameters": {
            "tenantId": {"description": "The organization, or * for all."},
            "instanceId": {"description": "The instance; none for what concerns none; * for all."},
        },
        "messages": {event.TYPE: {"$ref": f"#/components/messages/{event.TYPE}"}},
        "bindings": _published_to(EVENTS),
    }


def _batches(known: Sequence[type[Event]]) -> JsonObject:
    return {
        "address": "{name}",
        "title": "Batches",
        "description": _BATCH,
        "parameters": {
            "name": {
                "description": "The name of the events.",
                "enum": [event.TYPE for event in known],
            }
        },
        "messages": {"batch": {"$ref": "#/components/messages/batch"}},
        "bindings": _published_to(BATCHES),
    }


def _published_to(exchange: str) -> JsonObject:
    return {
        "amqp": {
            "is": "routingKey",
            "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
            "bindingVersion": _AMQP,
        }
    }


def _operation(channel: str) -> JsonObject:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"amqp": {"deliveryMode": 2, "bindingVersion": _AMQP}},
    }


def _message(event: type[Event]) -> JsonObject:
    return {
        "name": f"{PREFIX}{event.TYPE}.v{event.VERSION}",
        "title": event.TYPE,
        "summary": _summary(event),
        "description": _said(event.__doc__),
        "contentType": STRUCTURED,
        "payload": {"$ref": f"{_SCHEMAS}{event.TYPE}"},
    }


def _batch(known: Sequence[type[Event]]) -> JsonObject:
    return {
        "name": "batch",
        "title": "Events of one name",
        "contentType": BATCH,
        "payload": {
            "type": "array",
            "items": {"oneOf": [{"$ref": f"{_SCHEMAS}{event.TYPE}"} for event in known]},
        },
    }


def _schemas(known: Sequence[type[Event]]) -> JsonObject:
    # As a reader must expect them: what has a default may be missing.
    _, data = models_json_schema(
        [(event, "validation") for event in known], by_alias=True, ref_template=_SCHEMAS + "{model}"
    )
    return {
        "Envelope": _ENVELOPE,
        **{event.TYPE: _enveloped(event) for event in known},
        **{name: _plain(schema) for name, schema in data["$defs"].items()},
    }


def _enveloped(event: type[Event]) -> JsonObject:
    own: JsonObject = {
        "type": {"const": f"{PREFIX}{event.TYPE}.v{event.VERSION}"},
        "dataschema": {"const": f"urn:waypost:event:{event.TYPE}:v{event.VERSION}"},
        "data": {"$ref": f"{_SCHEMAS}{event.__name__}"},
    }
    return {"allOf": [{"$ref": f"{_SCHEMAS}Envelope"}, {"properties": own}]}


def _plain(schema: object) -> object:
    """A schema of pydantic's as AsyncAPI has it, where what is absent is absent and never null."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not is_object(schema):
        return schema
    match schema:
        case {"anyOf": [some, {"type": "null"}]} if is_object(some):
            others = {name: each for name, each in schema.items() if name != "anyOf"}
            return _plain({**others, **some})
        case {"properties": properties} if is_object(properties):
            fields = {name: _plain(each) for name, each in properties.items()}
            return {**_kept(schema), "properties": fields}
        case _:
            return {name: _plain(each) for name, each in _kept(schema).items()}


def _kept(schema: JsonObject) -> JsonObject:
    """Without titles, which repeat the names, and OpenAPI's discriminators: the kinds tell."""
    kept = {name: each for name, each in schema.items() if name not in {"title", "discriminator"}}
    if kept.get("default", ...) is None:
        del kept["default"]
    if isinstance(said := kept.get("description"), str):
        kept["description"] = _said(said)
    return kept


def _summary(event: type[Event]) -> str:
    return _said(event.__doc__).partition("\n")[0]


def _said(docstring: str | None) -> str:
    return cleandoc(docstring or "").replace("``", "`")
