"""Proxies that instances connect by: which URLs name one, and what may be seen of them."""

from typing import Final
from urllib.parse import urlsplit

SCHEMES: Final = ("http", "https", "socks5")
HIDDEN: Final = "***"
_LONGEST: Final = 2048
_NAMES: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:")


class NotAProxy(ValueError):
    """The text names no proxy; the message says what to write."""


def checked(url: str) -> str:
    """The URL, if it names a proxy: a scheme, perhaps credentials, a host and a port.

    Raises ``NotAProxy``, which never repeats the URL: it may hold a password.
    """
    if len(url) > _LONGEST or not url.isascii() or any(not "!" <= letter <= "~" for letter in url):
        raise NotAProxy("must be a URL without spaces, percent-encoded where it is not ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotAProxy("must be a URL such as socks5://user:password@example.com:1080") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise NotAProxy("must start with http://, https:// or socks5:// and name a host")
    if not port:
        raise NotAProxy("must name the proxy's port, as in http://example.com:3128")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or set(parts.hostname) - _NAMES:
        raise NotAProxy("must end with the port: a proxy has no path")
    return url.removesuffix("/")


def place_of(url: str) -> str:
    """Where the proxy is: its host and port."""
    return url.partition("://")[2].rpartition("@")[2]


def masked(url: str) -> str:
    """The URL without its credentials."""
    place = place_of(url)
    scheme = url.partition("://")[0]
    return url if url == f"{scheme}://{place}" else f"{scheme}://{HIDDEN}@{place}"
