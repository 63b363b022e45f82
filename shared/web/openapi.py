"""The OpenAPI 3.1 document, made from the declarations that also serve.

Every route is in it with every error that it can answer, so that generated clients know them too;
what follows from the declaration (a body can be malformed, a limit exceeded) is added here, and
only the rest is declared by hand.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypeForm

from shared.web.errors import CODES
from shared.web.examples import JsonObject, example_of, is_object
from shared.web.openapi_parts import (
    EXAMPLE_ID,
    HEADERS,
    OWN_SCHEMAS,
    PAGINATION_EXAMPLE,
    PARAMETERS,
    SECURITY,
)
from shared.web.routes import Route

_JSON = "application/json"
_SCHEMAS = "#/components/schemas/"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_NO_CONTENT = 204
_Place: TypeAlias = tuple[TypeForm[object], JsonSchemaMode]


def document(routes: Sequence[Route], *, title: str, version: str, description: str) -> JsonObject:
    """The whole document; raises ``ValueError`` if two routes claim the same path and method."""
    models = _Models(routes)
    paths: dict[str, JsonObject] = {}
    for route in routes:
        for path in route.paths():
            operations = paths.setdefault(template(path), {})
            if route.method.lower() in operations:
                raise ValueError(f"{route.method} {path} is declared twice")
            operations[route.method.lower()] = _operation(route, path, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": models.components,
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "securitySchemes": SECURITY,
        },
    }


def template(path: str) -> str:
    """aiohttp's path as OpenAPI writes it: without the patterns of its placeholders."""
    return _PLACEHOLDER.sub(r"{\1}", path)


class _Models:
    """The schemas of every type that the routes name, and where to find each."""

    def __init__(self, routes: Iterable[Route]) -> None:
        wanted: dict[_Place, None] = {}
        for route in routes:
            for model in (route.request, route.form, route.query):
                if model is not None:
                    wanted[model, "validation"] = None
            if route.response is not None:
                wanted[route.response, "serialization"] = None
        self._places = list(wanted)
        schemas, definitions = _generated(tuple(self._places))
        self._schemas = schemas
        self.components: JsonObject = {**OWN_SCHEMAS, **definitions}

    def schema(self, kind: TypeForm[object], mode: JsonSchemaMode) -> JsonObject:
        return self._schemas[str(self._places.index((kind, mode))), mode]

    def resolved(self, kind: TypeForm[object]) -> JsonObject:
        """The schema itself in the place of a reference to it."""
        schema = self.schema(kind, "validation")
        target = self.components.get(str(schema.get("$ref", "")).removeprefix(_SCHEMAS))
        return target if is_object(target) else schema

    def example(self, schema: JsonObject) -> object:
        return example_of(schema, self.components)


@lru_cache(maxsize=4)
def _generated(
    places: tuple[_Place, ...],
) -> tuple[Mapping[tuple[str, JsonSchemaMode], JsonObject], JsonObject]:
    """The schema of each place, and the definitions they refer to; both shared by who asks again.

    It takes longer than all else that a gateway does to start, and tests start hundreds.
    """
    schemas, defined = TypeAdapter.json_schemas(
        [
            (str(place), mode, TypeAdapter[object](kind))
            for place, (kind, mode) in enumerate(places)
        ],
        by_alias=True,
        ref_template=_SCHEMAS + "{model}",
    )
    definitions = defined.get("$defs")
    return schemas, definitions if is_object(definitions) else {}


def _operation(route: Route, path: str, models: _Models) -> JsonObject:
    operation: JsonObject = {
        "operationId": _operation_id(route.method, path),
        "summary": route.summary,
        "description": _description(route, path),
        "tags": [route.tag],
        "security": [] if route.permission is None else [{"bearer": []}, {"apiKey": []}],
        "parameters": _parameters(route, path, models),
        "responses": {
            str(route.status): _success(route, models),
            **_failures(route, path),
        },
    }
    content: JsonObject = {}
    for media_type, model in ((_JSON, route.request), ("multipart/form-data", route.form)):
        if model is not None:
            schema = models.schema(model, "validation")
            content[media_type] = {"schema": schema, "example": models.example(schema)}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(method: str, path: str) -> str:
    words = [method.lower()]
    for step in template(path).strip("/").removeprefix("api/").split("/"):
        named = step.removeprefix("{").removesuffix("}")
        parts = [part for part in re.split(r"[^A-Za-z0-9]+", named) if part]
        if step.startswith("{"):
            words.append("By")
        words.extend(part[:1].upper() + part[1:] for part in parts)
    return "".join(words)


def _description(route: Route, path: str) -> str:
    parts = [route.description] if route.description else []
    if path != route.path:
        parts.append(f"The same as `{route.method} {template(route.path)}`.")
    if route.permission == "authenticated":
        parts.append("For any valid credential.")
    elif route.permission is not None:
        parts.append(f"Needs the permission `{route.permission}`.")
    return "\n\n".join(parts)


def _parameters(route: Route, path: str, models: _Models) -> list[JsonObject]:
    parameters: list[JsonObject] = [
        {"name": name, "in": "path", "required": True, **_path_value(name)}
        for name in _PLACEHOLDER.findall(path)
    ]
    if route.query is not None:
        schema = models.resolved(route.query)
        required = schema.get("required")
        properties = schema.get("properties")
        for name, inner in properties.items() if is_object(properties) else ():
            parameter: JsonObject = {
                "name": name,
                "in": "query",
                "required": isinstance(required, list) and name in required,
                "schema": inner,
            }
            if is_object(inner) and "description" in inner:
                parameter["description"] = inner["description"]
            parameters.append(parameter)
    parameters.append({"$ref": "#/components/parameters/RequestId"})
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    return parameters


def _path_value(name: str) -> JsonObject:
    if name.lower().endswith("id"):
        return {"schema": {"type": "string", "format": "uuid"}, "example": EXAMPLE_ID}
    return {"schema": {"type": "string"}, "example": "text"}


def _success(route: Route, models: _Models) -> JsonObject:
    answer: JsonObject = {"description": route.summary, "headers": _header_refs(route)}
    content: JsonObject = {}
    if route.status != _NO_CONTENT and (route.response is not None or not route.raw):
        content[_JSON] = _enveloped(route, models)
    for media_type, description in route.raw.items():
        content[media_type] = {"schema": {"type": "string", "description": description}}
    if content:
        answer["content"] = content
    return answer


def _enveloped(route: Route, models: _Models) -> JsonObject:
    data: JsonObject = {"type": "null"}
    if route.response is not None:
        data = models.schema(route.response, "serialization")
    if route.paginated:
        data = {"type": "array", "items": data}
    properties: JsonObject = {"success": {"const": True}, "data": data}
    example: JsonObject = {"success": True, "data": models.example(data)}
    if route.paginated:
        properties["pagination"] = {"$ref": f"{_SCHEMAS}Pagination"}
        example["pagination"] = PAGINATION_EXAMPLE
    return {
        "schema": {"type": "object", "required": list(properties), "properties": properties},
        "example": example,
    }


def _failures(route: Route, path: str) -> dict[str, JsonObject]:
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*_implied(route, path), *route.errors)):
        if code not in CODES:
            raise ValueError(f"{route.method} {route.path} declares an unknown error, {code}")
        by_status.setdefault(CODES[code][0], []).append(code)
    return {
        str(status): {
            "description": " or ".join(codes),
            "headers": _header_refs(route, status),
            "content": {
                _JSON: {
                    "schema": {"$ref": f"{_SCHEMAS}Error"},
                    "examples": {code: {"value": _error_example(code)} for code in codes},
                }
            },
        }
        for status, codes in sorted(by_status.items())
    }


def _implied(route: Route, path: str) -> Iterable[str]:
    if route.request is not None or route.form is not None:
        yield from ("BAD_REQUEST", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE")
        yield from ("UNSUPPORTED_MEDIA_TYPE", "VALIDATION_FAILED")
    if route.query is not None:
        yield "VALIDATION_FAILED"
    if route.permission is not None:
        yield from ("UNAUTHORIZED", "FORBIDDEN")
    if "{" in path:
        yield "NOT_FOUND"
    if route.idempotent:
        yield from ("IDEMPOTENCY_MISMATCH", "CONFLICT")
    if route.limited:
        yield "RATE_LIMIT_EXCEEDED"
    yield "INTERNAL_SERVER_ERROR"


def _error_example(code: str) -> JsonObject:
    error: JsonObject = {"code": code, "message": CODES[code][1]}
    if code == "VALIDATION_FAILED":
        error["data"] = {"fields": {"to": "is missing; add it"}}
    error["requestId"] = EXAMPLE_ID
    return {"success": False, "error": error}


def _header_refs(route: Route, status: int = 0) -> Mapping[str, JsonObject]:
    names = ["X-Request-Id"]
    if route.limited:
        names += ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
    if status in {429, 503}:
        names.append("Retry-After")
    if route.idempotent and not status:
        names.append("Idempotency-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
