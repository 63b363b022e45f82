"""The OpenAPI 3.1 document, made from the declarations that also serve.

Every route is in it with every error that it can answer, so that generated clients know them too;
what follows from the declaration (a body can be malformed, a limit exceeded) is added here, and
only the rest is declared by hand.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
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
    PARAMETERS_OF_STATUS,
    SECURITY,
)
from shared.web.routes import Also, Raw, Route

_JSON = "application/json"
_SCHEMAS = "#/components/schemas/"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_FORM = "multipart/form-data"
_NO_CONTENT = 204
_RETRIED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_Place: TypeAlias = tuple[TypeForm[object], JsonSchemaMode]


def document(routes: Sequence[Route], *, title: str, version: str, description: str) -> JsonObject:
    """The whole document; raises ``ValueError`` if two routes claim the same path and method."""
    models = _Models(routes)
    paths: dict[str, JsonObject] = {}
    taken: set[tuple[str, str]] = set()
    for route in routes:
        for path in route.paths():
            if (route.method, template(path)) in taken:
                raise ValueError(f"{route.method} {path} is declared twice")
            taken.add((route.method, template(path)))
        operations = paths.setdefault(template(route.path), {})
        operations[route.method.lower()] = _operation(route, models, links_of(route, routes))
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


def links_of(route: Route, routes: Iterable[Route]) -> JsonObject:
    """What can be done with that which ``route`` has made: every route below its path."""
    if route.method != "POST" or route.response is None:
        return {}
    made = route.makes or f"{template(route.path)}/{{"
    links: JsonObject = {}
    for other in routes:
        path = template(other.path)
        names = _PLACEHOLDER.findall(path)
        known = _PLACEHOLDER.findall(route.path)
        below = f"{path}/".startswith(made + "/") if route.makes else path.startswith(made)
        if not below or names[: len(known)] != known or len(names) != len(known) + 1:
            continue
        links[_operation_id(other.method, path)] = {
            "operationId": _operation_id(other.method, path),
            "parameters": {name: f"$request.path.{name}" for name in known}
            | {names[-1]: "$response.body#/data/id"},
        }
    return links


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


def _operation(route: Route, models: _Models, links: JsonObject) -> JsonObject:
    operation: JsonObject = {
        "operationId": _operation_id(route.method, route.path),
        "summary": route.summary,
        "description": _description(route),
        "tags": [route.tag],
        "security": [] if route.permission is None else [{"bearer": []}, {"apiKey": []}],
        "parameters": _parameters(route, models),
        "responses": {
            str(route.status): _success(route, models, links),
            **{str(answer.status): _further(route, answer) for answer in route.also},
            **_failures(route),
        },
    }
    content: JsonObject = {}
    for media_type, model in ((_JSON, route.request), (_FORM, route.form)):
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


def _description(route: Route) -> str:
    parts = [route.description] if route.description else []
    if route.aliases:
        named = ", ".join(f"`{template(path)}`" for path in route.aliases)
        parts.append(f"Also served as {named}.")
    if route.permission == "authenticated":
        parts.append("For any valid credential.")
    elif route.permission is not None:
        parts.append(f"Needs the permission `{route.permission}`.")
    return "\n\n".join(parts)


def _parameters(route: Route, models: _Models) -> list[JsonObject]:
    parameters: list[JsonObject] = [
        {"name": name, "in": "path", "required": True, **_path_value(name)}
        for name in _PLACEHOLDER.findall(route.path)
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
    if not route.bare:
        parameters.append({"$ref": "#/components/parameters/RequestId"})
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    parameters += [
        {"$ref": f"#/components/parameters/{name}"}
        for name in PARAMETERS_OF_STATUS
        for answer in route.also
        if answer.status == PARAMETERS_OF_STATUS[name]
    ]
    return parameters


def _path_value(name: str) -> JsonObject:
    if name.lower().endswith("id"):
        return {"schema": {"type": "string", "format": "uuid"}, "example": EXAMPLE_ID}
    return {"schema": {"type": "string"}, "example": "text"}


def _success(route: Route, models: _Models, links: JsonObject) -> JsonObject:
    answer: JsonObject = {
        "description": route.summary,
        "headers": _header_refs(route) | _refs(route.headers),
    }
    content: JsonObject = {}
    if route.status != _NO_CONTENT and (route.response is not None or not route.raw):
        content[_JSON] = _enveloped(route, models)
    content |= _raw(route.raw)
    if content:
        answer["content"] = content
    if links:
        answer["links"] = links
    return answer


def _further(route: Route, also: Also) -> JsonObject:
    answer: JsonObject = {
        "description": also.description,
        "headers": _header_refs(route) | _refs(also.headers),
    }
    content = _raw(also.raw)
    if also.problem is not None:
        content[_JSON] = _error_content([also.problem])
    if content:
        answer["content"] = content
    return answer


def _raw(raw: Mapping[str, str | Raw]) -> JsonObject:
    content: JsonObject = {}
    for media_type, told in raw.items():
        held = Raw(description=told) if isinstance(told, str) else told
        shown: JsonObject = {"schema": {**held.schema, "description": held.description}}
        if held.example is not None:
            shown["example"] = held.example
        content[media_type] = shown
    return content


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


def _failures(route: Route) -> dict[str, JsonObject]:
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*_implied(route), *route.errors)):
        if code not in CODES:
            raise ValueError(f"{route.method} {route.path} declares an unknown error, {code}")
        by_status.setdefault(CODES[code][0], []).append(code)
    return {
        str(status): {
            "description": " or ".join(codes),
            "headers": _header_refs(route, status),
            "content": {_JSON: _error_content(codes)},
        }
        for status, codes in sorted(by_status.items())
    }


def _error_content(codes: Iterable[str]) -> JsonObject:
    return {
        "schema": {"$ref": f"{_SCHEMAS}Error"},
        "examples": {code: {"value": _error_example(code)} for code in codes},
    }


def _implied(route: Route) -> Iterable[str]:
    if route.bare:
        return
    yield from ("BAD_REQUEST", "REQUEST_TIMEOUT")
    if route.request is not None or route.form is not None:
        yield from ("PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_FAILED")
    if route.query is not None:
        yield "VALIDATION_FAILED"
    if route.permission is not None:
        yield from ("UNAUTHORIZED", "FORBIDDEN")
    if "{" in route.path:
        yield "NOT_FOUND"
    if route.idempotent:
        yield from ("IDEMPOTENCY_MISMATCH", "CONFLICT")
    if route.limited:
        yield "RATE_LIMIT_EXCEEDED"
    yield from ("INTERNAL_SERVER_ERROR", "ENGINE_UNAVAILABLE")


def _error_example(code: str) -> JsonObject:
    error: JsonObject = {"code": code, "message": CODES[code][1]}
    if code == "VALIDATION_FAILED":
        error["data"] = {"fields": {"to": "is missing; add it"}}
    error["requestId"] = EXAMPLE_ID
    return {"success": False, "error": error}


def _header_refs(route: Route, status: int = 0) -> JsonObject:
    names = [] if route.bare else ["X-Request-Id"]
    if route.limited:
        names += ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
    if status in _RETRIED:
        names.append("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        names.append("WWW-Authenticate")
    if route.idempotent and not status:
        names.append("Idempotency-Replayed")
    return _refs(names)


def _refs(names: Iterable[str]) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
