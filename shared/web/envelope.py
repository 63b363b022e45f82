"""The shape of every JSON answer, and the one place that writes JSON for callers.

Times are RFC 3339 in UTC with milliseconds and ``Z``: what JavaScript prints, and of one length.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import orjson
from aiohttp import web
from multidict import CIMultiDict, istr
from pydantic import BaseModel

_CONTENT_TYPE = istr("Content-Type")
_JSON = "application/json"
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Pagination:
    """Where a page lies in its list. ``page`` and ``total`` only where a route offers them."""

    limit: int
    next_cursor: str | None
    has_more: bool
    page: int | None = None
    total: int | None = None

    def as_json(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "limit": self.limit,
            "nextCursor": self.next_cursor,
            "hasMore": self.has_more,
        }
        if self.page is not None:
            shown["page"] = self.page
        if self.total is not None:
            shown["total"] = self.total
        return shown


def instant(moment: datetime) -> str:
    """``2026-01-15T10:30:00.000Z``; raises ``ValueError`` for a time that has no zone."""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("a time without a zone cannot be told to anybody")
    if offset:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def dumps(value: object) -> bytes:
    """JSON of plain data, pydantic models (by alias), times, dates, UUIDs and enums."""
    return orjson.dumps(value, default=_default, option=_OPTIONS)


def succeeded(data: object) -> bytes:
    """The body of an answer that went well."""
    return dumps({"success": True, "data": data})


def listed(items: object, pagination: Pagination) -> bytes:
    """The body of one page of a list."""
    return dumps({"success": True, "data": items, "pagination": pagination.as_json()})


def failed(
    code: str, message: str, *, request_id: str, data: Mapping[str, object] | None = None
) -> bytes:
    """The body of an answer that did not go well."""
    error: dict[str, object] = {"code": code, "message": message}
    if data:
        error["data"] = data
    error["requestId"] = request_id
    return dumps({"success": False, "error": error})


def json_response(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer from JSON that is already bytes."""
    fields = CIMultiDict(headers) if headers else CIMultiDict[str]()
    fields[_CONTENT_TYPE] = _JSON
    return web.Response(body=body, status=status, headers=fields)


def respond(
    data: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """What a handler returns: ``data`` in the success envelope."""
    return json_response(succeeded(data), status=status, headers=headers)


def respond_page(items: object, pagination: Pagination) -> web.Response:
    """What a handler of a list returns."""
    return json_response(listed(items, pagination))


def respond_whole(items: Sized) -> web.Response:
    """What a handler of a list returns that is short enough to be given whole."""
    return respond_page(items, Pagination(limit=len(items), next_cursor=None, has_more=False))


def _default(value: object) -> object:
    if isinstance(value, BaseModel):
        return orjson.Fragment(type(value).__pydantic_serializer__.to_json(value, by_alias=True))
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")
