"""The server: TLS with a websocket and media, a proxy before it, the admin API beside it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from aiohttp import web

from tests.whatsapp import admin, login, media, pairing, protobuf, router
from tests.whatsapp.certificates import noise_chain, tls_identity
from tests.whatsapp.connection import Connection, Frames, Trace
from tests.whatsapp.keys import KeyPair
from tests.whatsapp.noise import Handshake, Refused
from tests.whatsapp.proxy import Proxy
from tests.whatsapp.stanza import Stanza
from tests.whatsapp.world import World

# Seconds that a client has to say goodbye once the server has.
GOODBYE = 1.0


@dataclass(frozen=True)
class Addresses:
    """Where a running server is, and what to trust."""

    proxy: int
    admin: int
    tls: int
    authority: Path
    noise_root: bytes


class WhatsApp:
    """What clients reach."""

    def __init__(self, world: World, *, traced: Trace | None = None) -> None:
        self.root = KeyPair()
        self._world = world
        self._traced = traced
        self._static = KeyPair()
        self._certificates = noise_chain(self.root, self._static.public)
        self._numbers = count(1)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=media.AT_MOST)
        application.router.add_get("/ws/chat", self._chat)
        application.router.add_post("/mms/{kind}/{token}", self._upload)
        application.router.add_get("/v/{name}", self._download)
        return application

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self._world.faults.strikes("refuse_connections", None):
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(timeout=GOODBYE, max_msg_size=0, compress=False)
        await socket.prepare(request)
        connection = Connection(next(self._numbers), request, socket, Frames(socket))
        try:
            payload = await connection.shake_hands(Handshake(self._static, self._certificates))
        except (EOFError, Refused, ConnectionError):
            return socket
        self._world.connections[connection.number] = connection
        try:
            self._welcome(connection, payload)
            await connection.serve(
                lambda stanza: self._handle(connection, stanza), traced=self._traced
            )
        finally:
            login.leave(self._world, connection)
        return socket

    def _welcome(self, connection: Connection, payload: bytes) -> None:
        wish = protobuf.read(payload)
        if login.USERNAME in wish:
            login.log_in(self._world, connection, wish)
        else:
            pairing.offer(self._world, connection, wish)

    def _handle(self, connection: Connection, stanza: Stanza) -> None:
        router.handle(self._world, connection, stanza)

    async def _upload(self, request: web.Request) -> web.Response:
        return await media.upload(self._world, request)

    async def _download(self, request: web.Request) -> web.Response:
        return await media.download(self._world, request)


@asynccontextmanager
async def running(
    folder: Path, *, proxy_port: int = 0, admin_port: int = 0, traced: Trace | None = None
) -> AsyncIterator[Addresses]:
    """A server on loopback for as long as the context is open; its certificates in ``folder``."""
    world = World()
    whatsapp = WhatsApp(world, traced=traced)
    identity = tls_identity(folder)
    async with (
        _listening(whatsapp.application(), tls=identity.context) as tls,
        _listening(admin.application(world), port=admin_port) as admin_at,
        Proxy(
            port=proxy_port,
            upstream=tls,
            refusing=lambda: world.faults.strikes("refuse_connections", None) is not None,
            asked=lambda target, user: world.happenings.tell("proxied", target=target, user=user),
        ) as proxy,
    ):
        world.port = tls
        yield Addresses(
            proxy=proxy.port,
            admin=admin_at,
            tls=tls,
            authority=identity.authority,
            noise_root=whatsapp.root.public,
        )
        for connection in list(world.connections.values()):
            connection.drop("the server ends")


@asynccontextmanager
async def _listening(
    application: web.Application, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=GOODBYE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
