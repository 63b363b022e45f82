"""Headers that go with every answer: what helmet sets by default, and CORS for those we trust."""

from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDict, istr

ORIGIN = istr("Origin")
SERVER = istr("Server")
X_REQUEST_ID = istr("X-Request-Id")

CONTENT_SECURITY_POLICY = (
    "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';"
    "frame-ancestors 'self';img-src 'self' data:;object-src 'none';script-src 'self';"
    "script-src-attr 'none';style-src 'self' https: 'unsafe-inline'"
)

# helmet 8's defaults, in its order. An answer that sets one of them itself keeps its own.
SECURITY = CIMultiDict(
    {
        istr("Content-Security-Policy"): CONTENT_SECURITY_POLICY + ";upgrade-insecure-requests",
        istr("Cross-Origin-Opener-Policy"): "same-origin",
        istr("Cross-Origin-Resource-Policy"): "same-origin",
        istr("Origin-Agent-Cluster"): "?1",
        istr("Referrer-Policy"): "no-referrer",
        istr("Strict-Transport-Security"): "max-age=31536000; includeSubDomains",
        istr("X-Content-Type-Options"): "nosniff",
        istr("X-DNS-Prefetch-Control"): "off",
        istr("X-Download-Options"): "noopen",
        istr("X-Frame-Options"): "SAMEORIGIN",
        istr("X-Permitted-Cross-Domain-Policies"): "none",
        istr("X-XSS-Protection"): "0",
    }
)

_ALLOW_ORIGIN = istr("Access-Control-Allow-Origin")
_REQUEST_METHOD = istr("Access-Control-Request-Method")
_VARY = istr("Vary")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-Id"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED = (
    "X-Request-Id, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, "
    "Idempotency-Replayed, Content-Disposition, Content-Range, ETag"
)


class Cors:
    """Which web pages of others may call: those of the origins given, ``*`` for all.

    No credentials mode: callers show a token in a header, there is no cookie to be sent along.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/") for origin in origins)
        self._any = "*" in self._origins

    def __bool__(self) -> bool:
        """Whether any origin is allowed at all; by default none is."""
        return bool(self._origins)

    @property
    def varies(self) -> bool:
        """Whether a cache must tell answers apart by the origin of who has asked."""
        return bool(self._origins) and not self._any

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks beforehand; nothing if this is not such a question."""
        if _REQUEST_METHOD not in request.headers or self._allowed(request) is None:
            return None
        return web.Response(status=204, headers=_PREFLIGHT)

    def mark(self, request: web.Request, headers: CIMultiDict[str]) -> None:
        """Tell the browser that asked whether its page may read this answer."""
        origin = self._allowed(request)
        if not self._any:
            # Also without a match: a cache must not give this answer to another origin.
            headers.add(_VARY, "Origin")
        if origin is not None:
            headers[_ALLOW_ORIGIN] = "*" if self._any else origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED

    def _allowed(self, request: web.Request) -> str | None:
        origin = request.headers.get(ORIGIN)
        if origin is None:
            return None
        return origin if self._any or origin in self._origins else None
