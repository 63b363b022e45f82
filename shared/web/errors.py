"""From what was raised to what the caller is told: one table by type, one by code.

A status is looked up by the error's code first, because codes are public and precise
(``INSTANCE_NOT_READY`` is a ``Rejected`` like many, but a 409), then by its type, along the MRO.
Nothing else in Waypost names a status for an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus

from aiohttp import web

from shared import errors

_BY_TYPE: Mapping[type[BaseException], int] = {
    errors.Rejected: 422,
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Fenced: 409,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.Unroutable: 500,
    errors.Transient: 503,
    errors.Throttled: 429,
    errors.Unconfirmed: 504,
    errors.PlatformError: 500,
}

# What each public code means: its status, and the message that the API's description shows.
CODES: Mapping[str, tuple[int, str]] = {
    "BAD_REQUEST": (400, "The body is not valid JSON; check it near line 1, column 12."),
    "UNAUTHORIZED": (401, "No valid credential; send `Authorization: Bearer …` or `X-API-Key`."),
    "FORBIDDEN": (403, "This needs the permission `can_send_messages`; ask an administrator."),
    "WEBHOOK_VERIFICATION_FAILED": (403, "The signature does not match; check the app secret."),
    "NOT_FOUND": (404, "There is no such resource; check the id."),
    "CONFIG_NOT_FOUND": (404, "This instance has no such configuration; create it first."),
    "METHOD_NOT_ALLOWED": (405, "This path does not take PATCH; see the Allow header."),
    "REQUEST_TIMEOUT": (408, "The body did not arrive in time; send it again."),
    "CONFLICT": (409, "A request with this Idempotency-Key is in progress; wait for it."),
    "INSTANCE_NOT_READY": (409, "The instance is not connected; connect it first."),
    "PAYLOAD_TOO_LARGE": (413, "The body is larger than 1048576 bytes; send less."),
    "UNSUPPORTED_MEDIA_TYPE": (415, "Send the body as application/json."),
    "VALIDATION_FAILED": (422, "Some fields are not valid; see `data.fields`."),
    "IDEMPOTENCY_MISMATCH": (422, "This Idempotency-Key came with another body; use a new one."),
    "RATE_LIMIT_EXCEEDED": (429, "Too many requests; wait as long as Retry-After says."),
    "QUOTA_EXCEEDED": (429, "The plan's messages for this month are used up; see `data.resetsAt`."),
    "INTERNAL_SERVER_ERROR": (500, "Something went wrong here; quote the request id to support."),
    "MESSAGE_PROCESSING_FAILED": (500, "The message could not be processed; try again."),
    "ENGINE_UNAVAILABLE": (503, "WhatsApp cannot be reached; wait as long as Retry-After says."),
    "UNCONFIRMED": (504, "It may or may not have been done; look before you repeat it."),
}

_BY_HTTP_STATUS: Mapping[int, str] = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION_FAILED",
    429: "RATE_LIMIT_EXCEEDED",
    503: "ENGINE_UNAVAILABLE",
}

_INTERNAL = "INTERNAL_SERVER_ERROR"
_RETRY_SOON = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Problem:
    """What becomes of one error at the edge. ``bug`` asks for a traceback in the log."""

    status: int
    code: str
    message: str
    data: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    bug: bool = False


def status_of(error: errors.PlatformError) -> int:
    """The status for a platform error: by its code if that is public, else by its type."""
    known = CODES.get(error.code)
    if known is not None and error.code != _INTERNAL:
        return known[0]
    return next(_BY_TYPE[kind] for kind in type(error).__mro__ if kind in _BY_TYPE)


def methods_of(error: web.HTTPMethodNotAllowed) -> str:
    """What a path takes, for ``Allow``: everything may be asked for its options."""
    return ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))


def problem_of(error: BaseException, *, method: str, path: str) -> Problem:
    """What to answer for ``error``; never a word about what only we should know.

    A bare pydantic ``ValidationError`` is a bug like any other: what callers send is read by
    ``shared.web.body``, which raises ``Rejected``, so a bare one is about data of our own, and a
    422 would blame the caller for it.
    """
    match error:
        case errors.PlatformError():
            return _of_platform(error)
        case web.HTTPException():
            return _of_aiohttp(error, method=method, path=path)
        case _:
            return Problem(500, _INTERNAL, CODES[_INTERNAL][1], bug=True)


def _of_platform(error: errors.PlatformError) -> Problem:
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and error.code == _INTERNAL:
        # Raised on purpose, but about our own insides: its message is for the log.
        return Problem(status, _INTERNAL, CODES[_INTERNAL][1], bug=True)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Transient):
        wait = _RETRY_SOON if error.retry_after is None else error.retry_after
        headers["Retry-After"] = str(max(1, math.ceil(wait.total_seconds())))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, error.code, error.message, error.data, headers)


def _of_aiohttp(error: web.HTTPException, *, method: str, path: str) -> Problem:
    status = error.status
    code = _BY_HTTP_STATUS.get(status, "BAD_REQUEST" if status < 500 else _INTERNAL)
    headers: dict[str, str] = {}
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = methods_of(error)
            headers["Allow"] = allowed
            message = f"{path} does not take {method}; it takes {allowed}."
        case web.HTTPNotFound():
            message = f"There is no {method} {path}; /docs lists what there is."
        case web.HTTPRequestEntityTooLarge():
            message = "The body is too large; send less."
        case _:
            message = CODES.get(code, CODES[_INTERNAL])[1]
    return Problem(status, code, message, headers=headers, bug=status >= 500)
