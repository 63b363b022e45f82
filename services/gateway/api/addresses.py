"""Where requests come from."""

from typing import Final

from aiohttp import web
from multidict import istr

X_FORWARDED_FOR: Final = istr("X-Forwarded-For")


def client_address(request: web.Request, *, trusted_proxies: int) -> str:
    """Where the request came from: what the outermost of our own proxies saw.

    What stands further left in ``X-Forwarded-For`` was written by whoever sent it.
    """
    if trusted_proxies:
        forwarded = ",".join(request.headers.getall(X_FORWARDED_FOR, ())).split(",")
        if len(forwarded) >= trusted_proxies and forwarded[-trusted_proxies].strip():
            return forwarded[-trusted_proxies].strip()
    return request.remote or "unknown"
