"""An example for any JSON Schema: the author's own where there is one, else the plainest value."""

from collections.abc import Mapping
from typing import TypeGuard

JsonObject = dict[str, object]

_REF = "#/components/schemas/"
_DEEPEST = 6

_BY_FORMAT: Mapping[str, str] = {
    "uuid": "0198c5a0-7e31-7c44-a1b2-3c4d5e6f7081",
    "date-time": "2026-01-15T10:30:00.000Z",
    "date": "2026-01-15",
    "time": "08:30:00",
    "duration": "PT5M",
    "uri": "https://example.com/hook",
    "email": "ada@example.com",
    "binary": "",
}
_BY_TYPE: Mapping[str, object] = {
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "null": None,
    "string": "text",
}


def is_object(value: object) -> TypeGuard[JsonObject]:
    """Whether this piece of JSON is an object."""
    return isinstance(value, dict)


def example_of(schema: object, components: Mapping[str, object], depth: int = 0) -> object:
    """A value that fits ``schema``, as far as examples, defaults, formats and bounds can tell."""
    if not is_object(schema) or depth > _DEEPEST:
        return None
    own = _own(schema)
    if own is not _NONE:
        return own
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return example_of(components.get(reference.removeprefix(_REF)), components, depth)
    for combination in ("anyOf", "oneOf", "allOf"):
        options = schema.get(combination)
        if isinstance(options, list) and options:
            return example_of(options[0], components, depth + 1)
    return _by_type(schema, components, depth)


_NONE = object()


def _own(schema: JsonObject) -> object:
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        return examples[0]
    for word in ("example", "const", "default"):
        if schema.get(word) is not None:
            return schema[word]
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[0]
    return _NONE


def _by_type(schema: JsonObject, components: Mapping[str, object], depth: int) -> object:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties")
        if not is_object(properties):
            return {}
        required = schema.get("required")
        shown = required if isinstance(required, list) else []
        # What is optional is shown where its author has said how: some fields exclude one another.
        return {
            name: example_of(inner, components, depth + 1)
            for name, inner in properties.items()
            if name in shown or (is_object(inner) and "examples" in inner)
        }
    if kind == "array":
        items = schema.get("items", schema.get("prefixItems"))
        parts = items if isinstance(items, list) else [items]
        return [example_of(part, components, depth + 1) for part in parts if part is not None]
    if kind == "string" and isinstance(schema.get("format"), str):
        return _BY_FORMAT.get(str(schema["format"]), "text")
    if kind in {"integer", "number"} and isinstance(schema.get("minimum"), int):
        return schema["minimum"]
    return _BY_TYPE.get(str(kind))
