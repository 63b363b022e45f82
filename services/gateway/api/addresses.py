"""Where requests come from."""

from ipaddress import IPv6Network, ip_address
from typing import Final

from aiohttp import web
from multidict import istr

X_FORWARDED_FOR: Final = istr("X-Forwarded-For")

# Of IPv6 nobody is given less than a network of this many bits.
_NETWORK: Final = 64


def client_address(request: web.Request, *, trusted_proxies: int) -> str:
    """Where the request came from: what the outermost of our own proxies saw.

    What stands further left in ``X-Forwarded-For`` was written by whoever sent it.
    """
    if trusted_proxies:
        forwarded = ",".join(request.headers.getall(X_FORWARDED_FOR, ())).split(",")
        if len(forwarded) >= trusted_proxies and forwarded[-trusted_proxies].strip():
            return forwarded[-trusted_proxies].strip()
    return request.remote or "unknown"


def counted_as(address: str) -> str:
    """Under what an address is counted where it may ask only so often: of IPv6, its network.

    Else whoever has one address has all that a limit is worth 2^64 times, and every one of them
    takes up memory.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), _NETWORK), strict=False))
