"""Which URLs name a proxy, and what is shown of them."""

import pytest

from services.gateway.domain.proxies import NotAProxy, checked, masked


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy.example.org:3128", "http://proxy.example.org:3128"),
        ("https://proxy.example.org:443", "https://proxy.example.org:443"),
        ("socks5://198.51.100.7:1080", "socks5://198.51.100.7:1080"),
        ("socks5://[2001:db8::1]:1080", "socks5://[2001:db8::1]:1080"),
        ("socks5://ada:secret@example.org:1080", "socks5://***@example.org:1080"),
        ("http://ada:s%40cret@example.org:1", "http://***@example.org:1"),
        ("http://ada@example.org:1", "http://***@example.org:1"),
    ],
)
def test_a_proxy_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert checked(url) == url
    assert masked(url) == shown


def test_a_slash_at_the_end_is_tolerated() -> None:
    assert checked("http://example.org:3128/") == "http://example.org:3128"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy",
        "proxy.example.org:3128",
        "ftp://example.org:21",
        "socks4://example.org:1080",
        "socks5h://example.org:1080",
        "http://example.org",
        "http://example.org:0",
        "http://example.org:65536",
        "http://example.org:port",
        "http://:3128",
        "http://example.org:3128/path",
        "http://example.org:3128?x=1",
        "http://example.org:3128#x",
        "http://exa mple.com:3128",
        "http://exa\\mple.com:3128",
        "http://exämple.com:3128",
        "http://[::1:3128",
        "http://example.org:3128\r\nX: y",
        "http://" + "a" * 2048 + ":1",
    ],
)
def test_what_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(NotAProxy) as refused:
        checked(url)
    assert not url or url not in str(refused.value)
