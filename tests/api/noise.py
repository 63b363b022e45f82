"""What a fuzzer sends: requests as a caller may send them, spoilt in one way each.

``KINDS`` maps the name of each way to what makes such a request. All chance comes from the
``Random`` that is passed in, so a seed makes the same requests again.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
_PLACEHOLDER: Final = re.compile(r"\{([^}]*)\}")
# A caller may do these to what the run itself needs, so they get ids of nothing.
_ENDING: Final = re.compile(r"/(?:disconnect|logout|restart|regenerate)$")

STRANGE: Final = (
    "\x00",
    "a\x00b",
    "\u202eevil",
    "\u200b\u200d\ufeff",
    "\U0001f4a9" * 40,
    "\u0130\u0131\ufdfa",
    "e\u0301" * 500,
    "' OR 1=1 --",
    "%s%n{0}${jndi:ldap://x}",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "\r\nX-Injected: 1",
    " " * 300,
    "0" * 5000,
    "",
)
NUMBERS: Final = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 1e308, -0.0, 1e-320, math.nan,
    math.inf, -math.inf,
)  # fmt: skip
VALUES: Final[Sequence[Any]] = (*STRANGE, *NUMBERS, None, True, False, [], {}, [[]], {"a": {}})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the description, with an example of everything that it takes."""

    method: str
    path: str
    ids: Mapping[str, str]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    form: Any = None


@dataclass(frozen=True, kw_only=True)
class Noise:
    """One request, as bytes. ``answered`` is false where the server may just as well hang up."""

    raw: bytes
    head: bool = False
    answered: bool = True


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request before it is bytes."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    framed: bool = True

    def with_header(self, name: str | bytes, value: str | bytes) -> "Request":
        """The same with one header more; a header may be there twice."""
        return replace(self, headers=(*self.headers, (_bytes(name), _bytes(value))))

    def noise(self, *, answered: bool = True) -> Noise:
        """As bytes."""
        lines = [f"{self.method} {self.target} HTTP/1.1".encode("utf-8", "surrogatepass")]
        lines += [b"Host: localhost"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.framed and (self.body or self.method in {"POST", "PUT", "PATCH"}):
            lines.append(b"Content-Length: %d" % len(self.body))
        raw = b"\r\n".join(lines) + b"\r\n\r\n" + self.body
        return Noise(raw=raw, head=self.method == "HEAD", answered=answered)


Way = Callable[[Random, Request, Operation], Noise]


def operations(document: Any, ids: Mapping[str, str]) -> list[Operation]:
    """Everything that the description offers; ``ids`` are of what exists, by their place."""
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            found.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    ids=ids,
                    query={
                        parameter["name"]: parameter.get("example", "1")
                        for parameter in operation.get("parameters", ())
                        if parameter.get("in") == "query"
                    },
                    body=content.get(JSON, {}).get("example"),
                    form=content.get(FORM, {}).get("example"),
                )
            )
    # It would end the very login that everything else is asked with.
    return [operation for operation in found if operation.path != "/api/auth/logout"]


def plain(random: Random, operation: Operation, credential: Mapping[str, str]) -> Request:
    """The request as it should be, or nearly: optional fields come and go."""
    request = Request(method=operation.method, target=_path(random, operation))
    for name, value in credential.items():
        request = request.with_header(name, value)
    if operation.query and random.random() < 0.5:
        chosen = random.sample(sorted(operation.query), random.randint(1, len(operation.query)))
        told = "&".join(f"{name}={quote(str(operation.query[name]))}" for name in chosen)
        request = replace(request, target=f"{request.target}?{told}")
    if isinstance(operation.form, dict) and random.random() < 0.3:
        return _as_form(random, request, operation.form)
    if operation.body is None:
        return request
    body = json.dumps(_thinned(random, operation.body)).encode()
    return replace(request.with_header("Content-Type", JSON), body=body)


def _path(random: Random, operation: Operation) -> str:
    spare = operation.method == "DELETE" or _ENDING.search(operation.path) is not None

    def filled(found: "re.Match[str]") -> str:
        real = None if spare else operation.ids.get(found[1])
        unknown = str(UUID(int=random.getrandbits(128)))
        return real if real is not None and random.random() < 0.6 else unknown

    return _PLACEHOLDER.sub(filled, operation.path)


def _thinned(random: Random, body: Any) -> Any:
    if not isinstance(body, dict) or random.random() < 0.5:
        return body
    return {name: value for name, value in body.items() if random.random() < 0.7}


def _as_form(random: Random, request: Request, form: Mapping[str, Any]) -> Request:
    boundary = f"b{random.getrandbits(64):x}"
    body = b""
    for name, value in form.items():
        told = value if isinstance(value, str) else json.dumps(value)
        file = '; filename="a.png"' if told == "(the file)" else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode()
        body += b"\r\n" + told.encode() + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    made = request.with_header("Content-Type", f"{FORM}; boundary={boundary}")
    return replace(made, body=body)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def _with_body(request: Request, body: bytes) -> Noise:
    if not any(name == b"Content-Type" for name, _ in request.headers):
        request = request.with_header("Content-Type", JSON)
    method = request.method if request.method not in {"GET", "HEAD"} else "POST"
    return replace(request, method=method, body=body).noise()


def _valid(random: Random, request: Request, operation: Operation) -> Noise:
    return request.noise()


def _truncated(random: Random, request: Request, operation: Operation) -> Noise:
    body = request.body or b'{"a": [1, 2, "three"]}'
    return _with_body(request, body[: random.randrange(len(body))])


def _types(random: Random, request: Request, operation: Operation) -> Noise:
    known = operation.body if isinstance(operation.body, dict) else {}
    body = dict(known or {"a": 1})
    for name in random.sample(sorted(body), random.randint(1, len(body))):
        body[name] = random.choice(VALUES)
    return _with_body(request, json.dumps(body).encode("utf-8", "surrogatepass"))


def _strings(random: Random, request: Request, operation: Operation) -> Noise:
    body = _everywhere(random, operation.body if operation.body is not None else {"a": "b"})
    ascii_only = random.random() < 0.5
    return _with_body(
        request, json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    )


def _everywhere(random: Random, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _everywhere(random, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_everywhere(random, inner) for inner in value]
    if isinstance(value, str) and random.random() < 0.5:
        return random.choice((*STRANGE, "\ud800", "\udfff\ud800"))
    return value


def _shapes(random: Random, request: Request, operation: Operation) -> Noise:
    depth = random.choice((50, 150, 199, 201, 1000, 50_000))
    body = random.choice(
        (
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            b'{"to":' + b"[" * depth + b"]" * depth + b"}",
            b"{" + b",".join(b'"k%d":1' % i for i in range(depth)) + b"}",
            b'{"to":"+12025550199","to":"+12025550198","message":"a","message":"b"}',
            b"[]",
            b"null",
            b'"text"',
            b"1" * depth,
            b"-",
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            b"\xff\xfe\x00",
            b'{"message":"\\ud800"}',
            b'{"message":"\xed\xa0\x80"}',
            b'{"a":NaN,"b":Infinity,"c":-Infinity}',
            b'{"a":1e999999,"b":-1e-999999}',
            b"{}" + b" " * depth,
        )
    )
    return _with_body(request, body)


def _big(random: Random, request: Request, operation: Operation) -> Noise:
    size = random.choice((1 << 20, 2 << 20, 10 << 20)) if random.random() < 0.05 else 64 * 1024
    name = random.choice(("message", "name", "to", "url", "base64", "email"))
    return _with_body(request, b'{"%s":"%s"}' % (name.encode(), b"x" * size))


def _content_type(random: Random, request: Request, operation: Operation) -> Noise:
    kept = tuple(pair for pair in request.headers if pair[0] != b"Content-Type")
    given = random.choice(
        (
            "text/plain", "application/json; charset=utf-16", "application/json;charset", "", ";",
            "multipart/form-data", "multipart/form-data; boundary=", "application/xml", "a/b/c",
            "multipart/form-data; boundary=" + "b" * 300, "application/x-www-form-urlencoded",
            "APPLICATION/JSON", "application/json, text/plain", b"\xff\xfe", "multipart/mixed",
            "application/vnd.api+json", "multipart/form-data; boundary=\"a'b\"",
        )
    )  # fmt: skip
    return replace(request, headers=kept).with_header("Content-Type", given).noise()


def _encoding(random: Random, request: Request, operation: Operation) -> Noise:
    given = random.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", "x", ""))
    return request.with_header("Content-Encoding", given).noise(answered=False)


def _headers(random: Random, request: Request, operation: Operation) -> Noise:
    strange = random.choice(STRANGE).replace("\r", "").replace("\n", "").replace("\x00", "")
    name, value = random.choice(
        (
            ("X-Request-Id", strange),
            ("X-Request-Id", "a" * 129),
            ("Idempotency-Key", strange),
            ("Idempotency-Key", "k" * 256),
            ("Idempotency-Key", "same"),
            ("Range", "bytes=9-1"),
            ("Range", "bytes=-" + "9" * 400),
            ("Range", "items=0-0,1-1"),
            ("If-None-Match", "*," * 100),
            ("If-None-Match", strange),
            ("If-Range", "W/" + strange),
            ("Accept", "image/png;q=x, */*;q=" + "9" * 100),
            ("Accept", strange),
            ("Origin", "null"),
            ("Cookie", "a=b; " * 50),
            ("X-Forwarded-For", strange),
            ("Expect", "100-continue"),
            ("Expect", "the-unexpected"),
            ("Connection", "close, keep-alive"),
            ("Accept-Encoding", "gzip;q=0, *;q=0"),
            ("If-Modified-Since", "yesterday"),
        )
    )
    return request.with_header(name, value).noise()


def _credentials(random: Random, request: Request, operation: Operation) -> Noise:
    name, value = random.choice(
        (
            ("Authorization", "Bearer"),
            ("Authorization", "Bearer " + "a.b.c"),
            ("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."),
            ("Authorization", b"Bearer \xc3\xa9\xff"),
            ("Authorization", "Basic YTpi"),
            ("Authorization", "Bearer api_" + "x" * 7000),
            ("Authorization", "Bearer sk_" + "é" * 40),
            ("X-API-Key", b"api_\xff\xfe"),
            ("X-API-Key", "rt_" + "0" * 43),
            ("X-API-Key", ""),
        )
    )
    kept: tuple[tuple[bytes, bytes], ...] = request.headers if random.random() < 0.3 else ()
    return replace(request, headers=kept).with_header(name, value).noise()


def _oversized(random: Random, request: Request, operation: Operation) -> Noise:
    if random.random() < 0.5:
        return request.with_header("X-Long", "y" * random.choice((8000, 8191, 70_000))).noise(
            answered=False
        )
    for number in range(random.choice((60, 130, 400))):
        request = request.with_header(f"X-{number}", "z")
    return request.noise(answered=False)


def _framing(random: Random, request: Request, operation: Operation) -> Noise:
    length = random.choice((b"-1", b"+5", b"0x10", b"1e3", b"", b"5, 5", b"\xff", b"9" * 40, b"5"))
    lines: tuple[tuple[bytes, bytes], ...] = random.choice(
        (
            ((b"Content-Length", length),),
            ((b"Content-Length", b"5"), (b"Content-Length", b"6")),
            ((b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")),
            ((b"Transfer-Encoding", b"xchunked"),),
            ((b"Transfer-Encoding", b"chunked, identity"),),
            ((b"Transfer-Encoding", b"identity"),),
            ((b"Transfer-Encoding ", b"chunked"),),
            ((b"Transfer-Encoding", b"\x0bchunked"),),
            ((b"Upgrade", b"websocket"), (b"Connection", b"upgrade")),
            ((b" Folded", b"x"),),
            ((b"A\x00B", b"x"),),
            ((b"", b"x"),),
        )
    )
    spoilt = replace(request, framed=False, headers=(*request.headers, *lines), body=b"12345")
    return spoilt.with_header("Connection", "close").noise(answered=False)


def _chunks(random: Random, request: Request, operation: Operation) -> Noise:
    body = random.choice(
        (
            b"zz\r\n\r\n0\r\n\r\n",
            b"5\r\nabc\r\n0\r\n\r\n",
            b"-5\r\nabcde\r\n0\r\n\r\n",
            b"5;" + b"e" * 9000 + b"\r\nabcde\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nabc",
            b"2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
            b"2\r\n{}\r\n0\r\n\r\n",
            b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
            b"2\n{}\n0\n\n",
        )
    )
    method = request.method if request.method not in {"GET", "HEAD"} else "POST"
    spoilt = replace(request, framed=False, method=method, body=body)
    spoilt = spoilt.with_header("Transfer-Encoding", "chunked").with_header("Connection", "close")
    return spoilt.noise(answered=False)


def _paths(random: Random, request: Request, operation: Operation) -> Noise:
    target = request.target.partition("?")[0]
    spoilt = random.choice(
        (
            target + "/",
            target.replace("/", "//"),
            target.replace("/", "%2f", 2),
            target + "/../../health",
            target + "/%2e%2e/%2e%2e",
            target + "%00",
            target + "%ff%fe",
            target + "/" + "a" * 4000,
            target + ";a=b",
            target.upper(),
            "http://elsewhere.invalid" + target,
            "*",
            "/" + quote(random.choice(STRANGE)),
            "/api/" + quote(random.choice(STRANGE), safe=""),
            "/docs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            target + "#fragment",
            "//" + target,
            "/%",
            "/api/instances/%zz",
        )
    )
    return replace(request, target=spoilt).noise()


def _ids(random: Random, request: Request, operation: Operation) -> Noise:
    def other(found: "re.Match[str]") -> str:
        return random.choice(
            (
                quote(random.choice(STRANGE) or "-", safe=""), "0", "-1", "null", "undefined",
                "%00", "%ff", "{" + found[1] + "}", "urn:uuid:" + str(UUID(int=7)),
                str(UUID(int=0)), "9" * 500, "120363000000000001@g.us", "%2e%2e",
            )
        )  # fmt: skip

    return replace(request, target=_PLACEHOLDER.sub(other, operation.path)).noise()


def _methods(random: Random, request: Request, operation: Operation) -> Noise:
    method = random.choice(
        ("HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "get", "PROPFIND", "A" * 60)
    )
    # What follows CONNECT is not HTTP any more, and aiohttp ends such a connection.
    return replace(request, method=method).noise(answered=method != "CONNECT")


def _queries(random: Random, request: Request, operation: Operation) -> Noise:
    known = sorted(operation.query) or ["limit", "cursor"]
    parts = []
    for _ in range(random.randint(1, 6)):
        value = random.choice((*STRANGE, *(str(number) for number in NUMBERS), "2026-13-45", "[]"))
        parts.append(f"{random.choice((*known, 'unknown'))}={quote(value[:1000], safe='')}")
    whole = "&".join(parts)
    text = random.choice((whole, "&".join(parts * 20)[:7000], "=&=&&", "%00=%00", "a[b]="))
    return replace(request, target=request.target.partition("?")[0] + "?" + text).noise()


def _cursors(random: Random, request: Request, operation: Operation) -> Noise:
    cursor = bytearray(b"WzEsIm1lc3NhZ2VzIixbIjIwMjYtMDEtMDFUMDA6MDA6MDBaIiwiMDE5Il1d")
    cursor[random.randrange(len(cursor))] ^= 1 << random.randrange(7)
    name = "after" if "after" in operation.query else "cursor"
    path = request.target.partition("?")[0]
    return replace(request, method="GET", target=f"{path}?{name}={quote(bytes(cursor))}").noise()


def _lines(random: Random, request: Request, operation: Operation) -> Noise:
    """Not HTTP, or not quite."""
    whole = request.with_header("Connection", "close").noise().raw
    first, _, rest = whole.partition(b"\r\n")
    raw = random.choice(
        (
            first.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n" + rest,
            first.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n" + rest,
            first.replace(b" HTTP/1.1", b"") + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 80,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET  /  HTTP/1.1\r\n\r\n",
            b"GET\t/health\tHTTP/1.1\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET /health HTTP/1.1\nHost: a\nConnection: close\n\n",
            b"\r\n\r\n" + whole,
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
            b"\x00" * 100 + b"\r\n\r\n",
        )
    )
    return Noise(raw=raw, head=request.method == "HEAD", answered=False)


KINDS: Final[Mapping[str, tuple[Way, int]]] = {
    "valid": (_valid, 12),
    "body truncated": (_truncated, 8),
    "body types": (_types, 10),
    "body strings": (_strings, 10),
    "body shapes": (_shapes, 8),
    "body big": (_big, 1),
    "content type": (_content_type, 5),
    "content encoding": (_encoding, 3),
    "headers": (_headers, 8),
    "credentials": (_credentials, 5),
    "head oversized": (_oversized, 2),
    "framing": (_framing, 4),
    "chunks": (_chunks, 3),
    "paths": (_paths, 6),
    "ids": (_ids, 6),
    "methods": (_methods, 4),
    "queries": (_queries, 8),
    "cursors": (_cursors, 3),
    "request lines": (_lines, 3),
}
"""Every way to spoil a request, and how often it is taken compared with the others."""
