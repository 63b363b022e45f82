"""Media: encrypted files, which clients upload and download by HTTPS beside their connection.

1. ``w:m``: the client asks where, and gets a host and a token to show there (``auth``).
2. ``POST /mms/<kind>/<hash>``: the file, encrypted by the client; the answer gives its address. The
   address and the key travel in a message.
3. ``GET`` on that address, with whatever the client adds to it.

A client that came by the proxy is sent to WhatsApp's own host, which it reaches by the proxy again;
one that came straight to this port is sent to this port.

Source: whatsmeow ``mediaconn.go``, ``upload.go``, ``download.go``; Baileys ``getWAUploadToServer``.
"""

import secrets

from aiohttp import web

from tests.whatsapp.certificates import MEDIA_HOST, WEB_HOST
from tests.whatsapp.connection import Connection
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import Medium, World

AT_MOST = 256 << 20


def answer(world: World, connection: Connection, query: Stanza) -> list[Stanza] | None:
    """Answer a ``w:m`` query."""
    host = MEDIA_HOST if connection.host == WEB_HOST else f"127.0.0.1:{world.port}"
    return [
        Stanza(
            "media_conn",
            {
                "auth": str(connection.owner),
                "ttl": 300,
                "auth_ttl": 21_600,
                "max_buckets": 12,
            },
            [Stanza("host", {"hostname": host, "maxContentLengthBytes": AT_MOST})],
        )
    ]


async def upload(world: World, request: web.Request) -> web.Response:
    """Take a file."""
    data = await request.read()
    kind = request.match_info["kind"]
    name = secrets.token_hex(12)
    world.media[name] = Medium(kind=kind, data=data)
    # A client appends "&hash=…", so there must be something to append it to.
    path = f"/v/{name}?ccb=11-4"
    world.happenings.tell(
        "uploaded", phone=_phone(request), kind=kind, size=len(data), path=path, status=200
    )
    return web.json_response(
        {"url": f"https://{MEDIA_HOST}{path}", "direct_path": path, "handle": name}
    )


async def download(world: World, request: web.Request) -> web.Response:
    """Give a file, or say that it is gone."""
    medium = world.media.get(request.match_info["name"])
    if world.faults.strikes("media_404", None):
        medium = None
    world.happenings.tell(
        "downloaded",
        phone="",
        kind=medium.kind if medium else "",
        size=len(medium.data) if medium else 0,
        path=request.path,
        status=200 if medium else 404,
    )
    if medium is None:
        raise web.HTTPNotFound
    return web.Response(body=medium.data, content_type="application/octet-stream")


def _phone(request: web.Request) -> str:
    return request.query.get("auth", "").partition(":")[0]
