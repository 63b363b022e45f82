"""Which network addresses a customer's URL may lead to.

``ipaddress.is_global`` is not enough: on Python 3.11 it says yes to NAT64 (``64:ff9b::7f00:1``),
6to4, IPv4-compatible and site-local addresses, all of which can lead back inside. So IPv4 is a
list of what is denied, and IPv6 the other way round: global unicast, minus what is special in it.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT, and Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by its number, but Azure's host agent inside every VM
        "169.254.0.0/16",  # link-local: the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_ALLOWED_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other assignments that wrap IPv4 addresses
        "2001:db8::/32",
        "2002::/16",  # 6to4: wraps an IPv4 address
        "3fff::/20",
    )
)


def networks(text: Iterable[str]) -> tuple[Network, ...]:
    """Networks as an operator writes them; raises ``ValueError`` naming the one that is wrong."""
    return tuple(ip_network(part.strip(), strict=False) for part in text)


def permitted(address: str, *, allowed: Iterable[Network] = ()) -> bool:
    """Whether ``address``, as it would be dialled, lies outside of everything private.

    ``allowed`` is what an operator has opened on purpose (loopback in development); it wins over
    the deny list. What is not an IP address at all is not permitted.
    """
    try:
        # A scope (``fe80::1%eth0``) says which link, not which address.
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if any(parsed in network for network in allowed):
        return True
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _DENIED_V4)
    return parsed in _ALLOWED_V6 and not any(parsed in network for network in _DENIED_V6)
