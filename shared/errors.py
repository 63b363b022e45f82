"""Errors that answer one question: is it worth trying again?"""

from collections.abc import Mapping
from datetime import timedelta


class PlatformError(Exception):
    """Anything that Waypost raises on purpose. ``code`` is stable and public."""

    code = "INTERNAL_SERVER_ERROR"

    def __init__(
        self, message: str, *, code: str | None = None, data: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code


class Rejected(PlatformError):
    """Never retry: the request itself is wrong."""

    code = "VALIDATION_FAILED"


class BadRequest(Rejected):
    """The request cannot even be read."""

    code = "BAD_REQUEST"


class Unauthenticated(Rejected):
    """Nobody we know is asking."""

    code = "UNAUTHORIZED"


class Forbidden(Rejected):
    """We know who asks, and they may not."""

    code = "FORBIDDEN"


class NotFound(Rejected):
    """It does not exist, or not for whoever is asking: the two are never told apart."""

    code = "NOT_FOUND"


class Conflict(Rejected):
    """It cannot be done in the state that things are in."""

    code = "CONFLICT"


class PayloadTooLarge(Rejected):
    """The body is larger than the route accepts."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(Rejected):
    """The body is of a type that the route does not accept."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class Unroutable(Rejected):
    """A message has no queue to go to: the topology is not what the code believes."""

    code = "INTERNAL_SERVER_ERROR"


class Fenced(Rejected):
    """Somebody else owns this now; whatever was being done must stop."""

    code = "CONFLICT"


class Transient(PlatformError):
    """Retry later: the world is wrong, the request is not."""

    code = "ENGINE_UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        data: Mapping[str, object] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message, code=code, data=data)
        self.retry_after = retry_after


class Away(Transient):
    """What is needed cannot be reached at all: no request is to blame, and none gets through."""


class Throttled(Transient):
    """We, or WhatsApp, said slow down."""

    code = "RATE_LIMIT_EXCEEDED"


class Unconfirmed(PlatformError):
    """May or may not have happened: repeating it blindly might say it twice."""

    code = "UNCONFIRMED"
