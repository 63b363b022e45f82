"""Reading what a caller sent: no more than allowed, no longer than allowed, and only what fits.

Models are validated from the raw bytes: a ``dict`` in between costs a third more, and loses the
line and column of what is malformed.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from types import UnionType
from typing import TypeVar, Union, get_args, get_origin

import orjson
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError
from multidict import istr
from pydantic import AwareDatetime, BaseModel, ValidationError

from shared.errors import BadRequest, PayloadTooLarge, Rejected, UnsupportedMediaType
from shared.web.problems import fields_of

ModelT = TypeVar("ModelT", bound=BaseModel)

BODY = web.RequestKey("body", bytes)
"""The body of a request, where it was read before whoever reads it here."""

_CONTENT_TYPE = istr("Content-Type")
_JSON = "application/json"
_LISTS = (list, tuple, set, frozenset)
_UTF8 = frozenset({"utf-8", "utf8"})
_NUL = "\x00"
_NO_TIME = "must be a time such as 2026-01-15T10:30:00.000Z, or a date where it takes one"
_NUL_FOUND = "holds the character U+0000, which cannot be stored; remove it"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """``largest`` is in bytes, after decompression; ``deadline`` is for the whole of the body."""

    largest: int = 1024 * 1024
    deadline: timedelta = timedelta(seconds=30)


DEFAULT_LIMITS = BodyLimits()


async def read_bytes(request: web.Request, limits: BodyLimits = DEFAULT_LIMITS) -> bytes:
    """The body as it came.

    Raises ``PayloadTooLarge`` as soon as it is known to be too large, which for a declared length
    is before any of it was read, and ``BadRequest`` if it is malformed or takes too long: a caller
    that sends a byte a second must not hold a handler for a day.
    """
    declared = request.content_length
    if declared is not None and declared > limits.largest:
        raise _too_large(limits)
    content = request.content
    try:
        if content.is_eof():
            # All of it came with the headers, as small bodies do: no waiting, so no timer.
            body = content.read_nowait() or request.get(BODY, b"")
        else:
            async with asyncio.timeout(limits.deadline.total_seconds()):
                body = await _gather(request, limits)
    except TimeoutError:
        raise BadRequest(
            "The body did not arrive in time; send it again, or send less.",
            code="REQUEST_TIMEOUT",
        ) from None
    except (PayloadEncodingError, web.RequestPayloadError):
        raise BadRequest("The body's transfer or content encoding is broken; resend it.") from None
    if len(body) > limits.largest:
        raise _too_large(limits)
    return body


async def read_model(
    request: web.Request, model: type[ModelT], limits: BodyLimits = DEFAULT_LIMITS
) -> ModelT:
    """The JSON body as a model; raises what the caller should be told."""
    return parse(await read_json(request, limits), model)


async def read_json(request: web.Request, limits: BodyLimits = DEFAULT_LIMITS) -> bytes:
    """The body as it came, if it says that it is JSON; for where it must be read in another way."""
    declared = request.headers.get(_CONTENT_TYPE)
    if declared != _JSON:
        _require_json(declared)
    return await read_bytes(request, limits)


def parse(raw: bytes, model: type[ModelT]) -> ModelT:
    """``raw`` as a model: ``BadRequest`` if it is not JSON, ``Rejected`` if it does not fit.

    Strictly, as the schema says: ``"5"`` is no number and ``1`` is not true.
    """
    try:
        read = model.model_validate_json(raw, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        if not raw.strip():
            raise BadRequest("The body is empty; send a JSON object.") from None
        for details in error.errors(include_url=False, include_input=False):
            if details["type"] == "json_invalid":
                where = details.get("ctx", {}).get("error", "it cannot be read")
                raise BadRequest(f"The body is not valid JSON: {where}.") from None
        raise invalid(fields_of(error)) from None
    if b"\\u0000" in raw:
        _refuse_nul(raw)
    return read


def read_query(request: web.Request, model: type[ModelT]) -> ModelT:
    """The query string as a model.

    A field that is a list takes its name repeated, and values parted by commas.
    """
    lists = _list_fields(model)
    values: dict[str, object] = {}
    for name in request.query:
        given = request.query.getall(name)
        if name in lists:
            values[name] = [part for value in given for part in value.split(",") if part]
        else:
            # Given twice, it stays a list, which no scalar field takes: better than picking one.
            values[name] = given[0] if len(given) == 1 else given
    return validated(values, model)


def validated(values: Mapping[str, object], model: type[ModelT]) -> ModelT:
    """Fields that did not come as JSON (query, form) as a model; raises ``Rejected``."""
    fields = {name: _NUL_FOUND for name, value in values.items() if _has_nul(value)}
    # pydantic would read a number as seconds since 1970, which is no date in any description.
    fields |= {name: _NO_TIME for name in _time_fields(model) if _is_number(values.get(name))}
    if fields:
        raise invalid(fields)
    try:
        return model.model_validate(dict(values), by_alias=True, by_name=False)
    except ValidationError as error:
        raise invalid(fields_of(error)) from None


def invalid(fields: Mapping[str, str]) -> Rejected:
    """A ``VALIDATION_FAILED`` about these fields, for rules that no schema can hold."""
    named = ", ".join(f"`{name}`" for name in list(fields)[:3])
    more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
    return Rejected(
        f"The request is not valid: correct {named}{more}; see `data.fields`.",
        data={"fields": dict(fields)},
    )


async def _gather(request: web.Request, limits: BodyLimits) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limits.largest:
            raise _too_large(limits)
    return bytes(body)


def _too_large(limits: BodyLimits) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body is larger than {limits.largest} bytes; send less.",
        data={"maxBytes": limits.largest},
    )


def _require_json(declared: str | None) -> None:
    kind, _, parameters = (declared or "").lower().partition(";")
    kind = kind.strip()
    name, _, charset = parameters.strip().partition("=")
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(
            f"Send the body as {_JSON}, with the header Content-Type: {_JSON}."
        )
    if name.strip() == "charset" and charset.strip().strip('"') not in _UTF8:
        raise UnsupportedMediaType("JSON is UTF-8; send it so, without another charset.")


def _refuse_nul(raw: bytes) -> None:
    # PostgreSQL has no text with U+0000. The escape may itself be escaped, hence the second look.
    fields = {path: _NUL_FOUND for path, text in _strings(orjson.loads(raw)) if _NUL in text}
    if fields:
        raise invalid(fields)


def _strings(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path or "body", value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(name, f"{path}.{name}".lstrip("."))
            yield from _strings(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{path}.{index}".lstrip("."))


def _has_nul(value: object) -> bool:
    return any(_NUL in text for _, text in _strings(value))


@lru_cache(maxsize=256)
def _list_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names, as on the wire, of the fields that hold lists."""
    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if _is_list(field.annotation)
    )


@lru_cache(maxsize=256)
def _time_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names, as on the wire, of the fields that hold times or dates."""
    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if _is_time(field.annotation)
    )


def _is_time(annotation: object) -> bool:
    if get_origin(annotation) is not None:
        return any(_is_time(option) for option in get_args(annotation))
    return annotation is AwareDatetime or (
        isinstance(annotation, type) and issubclass(annotation, date)
    )


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _is_list(annotation: object) -> bool:
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        return any(_is_list(option) for option in get_args(annotation))
    return annotation in _LISTS or origin in _LISTS
