"""Lets live clients in, listens to what they want, and sends them away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self
from uuid import UUID

import orjson
import socketio
from aiohttp import web
from engineio.packet import MESSAGE, Packet
from typing_extensions import override

from services.gateway.api.addresses import counted_as
from services.gateway.api.callers import Callers, shown_token
from services.gateway.api.events import POSITIONS, cursor_lost
from services.gateway.api.gate import Gate
from services.gateway.api.live.client import Client, Leaving
from services.gateway.api.live.schemas import Hello, Wish
from services.gateway.api.live.wire import (
    BODY,
    DRIVER,
    Backlog,
    event_packet,
    payload_acceptable,
)
from services.gateway.api.tail import Tail
from services.gateway.domain.access import ACCESS, Needs, require
from services.gateway.domain.event_names import Selection
from services.gateway.domain.interest import Interest, TooManyInstances
from services.gateway.domain.masking import Sight, sight_of
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import events, instances
from services.gateway.store.events import LoggedEvent
from shared.clock import Clock
from shared.contracts.public import public_event
from shared.db.database import Database
from shared.errors import (
    BadRequest,
    NotFound,
    PlatformError,
    Rejected,
    Throttled,
    Transient,
    Unauthenticated,
)
from shared.log import get_logger
from shared.security.sealing import KeyRing
from shared.security.tokens import AccessTokens, kind_of
from shared.web.body import BodyLimits, read_bytes, validated
from shared.web.errors import CODES
from shared.web.limits import Limit, RateLimiter

log = get_logger()

PATH: Final = "/socket.io/"

_ROOT: Final = "/"
_GOODBYE: Final = Packet(MESSAGE, "1")
_SOON: Final = timedelta(seconds=5)

_WORDS: Final = {
    Leaving.EXPIRED: "The credential has expired; connect again with a new one.",
    Leaving.REVOKED: "The credential does not hold any more; connect with another one.",
    Leaving.CHANGED: "What you may see has changed; connect again.",
    Leaving.SLOW: "You take events more slowly than they come; connect again with your last cursor,"
    " and take more at once or ask for less.",
    Leaving.CHATTY: "Too many messages; say what you want once.",
    Leaving.SILENT: "You have not said who you are in time; connect again and do.",
    Leaving.UNAVAILABLE: "Events cannot be read at this moment; connect again with your cursor.",
    Leaving.RESTARTING: "This server is being restarted; connect again with your last cursor.",
}
# To whom connecting again in the same way leads nowhere.
_FOR_GOOD: Final = frozenset({Leaving.REVOKED, Leaving.CHATTY})


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLimits:
    """How much live clients may take. Numbers of clients are those of this replica."""

    clients: int
    clients_per_tenant: int
    backlog_events: int
    backlog_bytes: int
    connects_per_minute: int


class Live:
    """Socket.IO at ``/socket.io/``."""

    RHYTHM: Final = timedelta(milliseconds=500)
    # Until a connection has said whose it is.
    SILENCE: Final = timedelta(seconds=10)
    # How often a client to which nothing happens is told how far the log has come.
    CURSOR_EVERY: Final = timedelta(minutes=10)
    # The largest thing that a client may say, in bytes, and how often it may say anything.
    LARGEST: Final = 16 * 1024
    ASKED_AT_MOST: Final = 50
    ASKED_WITHIN: Final = timedelta(seconds=10)

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        tail: Tail,
        callers: Callers,
        tokens: AccessTokens,
        gate: Gate,
        limiter: RateLimiter,
        limits: LiveLimits,
        metrics: GatewayMetrics,
        clock: Clock,
        cors_origins: Iterable[str] = (),
    ) -> None:
        self._database = database
        self._ring = ring
        self._tail = tail
        self._callers = callers
        self._tokens = tokens
        self._gate = gate
        self._limiter = limiter
        self._limits = limits
        self._connects = Limit(limits.connects_per_minute, timedelta(minutes=1))
        self._metrics = metrics
        self._clock = clock
        self._clients: dict[str, Client] = {}
        self._strangers: dict[str, float] = {}
        self._group: asyncio.TaskGroup | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._closed = False
        self._latest: tuple[LoggedEvent, dict[Sight, Packet]] | None = None
        self._server = _server(cors_origins, largest=self.LARGEST)
        metrics.live_connections.set_function(lambda: len(self._server.eio.sockets))
        self._server.on("connect", self._connected)
        self._server.on("disconnect", self._disconnected)
        self._server.on("subscribe", self._subscribe)
        self._server.on("unsubscribe", self._unsubscribe)
        self._server.on("*", self._unknown)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve clients for as long as the context is open."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                self._group = None
                for task in self._working:
                    task.cancel()

    def add_routes(self, app: web.Application) -> None:
        """Serve Socket.IO beside the API."""
        for path in (PATH, PATH.rstrip("/")):
            for method in ("GET", "POST", "OPTIONS"):
                app.router.add_route(method, path, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A request of Engine.IO: a handshake, a poll, something said, or a WebSocket's life."""
        if "j" in request.query:
            raise BadRequest("JSONP is not served; use the transports websocket or polling.")
        if "sid" not in request.query and request.method == "GET":
            await self._make_room(request)
        if request.method == "POST":
            body = await read_bytes(request, BodyLimits(largest=self.LARGEST))
            if not payload_acceptable(body):
                raise BadRequest("This is nothing that a Socket.IO client has to say here.")
            request[BODY] = body
        answer: web.StreamResponse = await self._server.handle_request(request)
        return answer

    async def watch(self) -> None:
        """Look after the clients until cancelled."""
        while True:
            await self._clock.sleep(self.RHYTHM)
            await self.step()
            self._metrics.loop_succeeded.labels("live").set(self._clock.now().timestamp())

    async def step(self) -> None:
        """Send away whose credential does not hold any more, and who never said who they are."""
        now = self._clock.monotonic()
        for client in tuple(self._clients.values()):
            if self._socket(client.eio_sid) is None:
                self._forget(client, "transport close")
                continue
            why = await self._no_longer(client)
            if why is not None:
                client.send_away(why)
            elif now - client.told_at > self.CURSOR_EVERY.total_seconds():
                client.told_at = now
                client.tell_cursor(self._tail)
        await self._send_strangers_away(now)

    async def close(self) -> None:
        """Tell every client to connect again, elsewhere: the process is about to stop."""
        if self._closed:
            return
        self._closed = True
        for client in tuple(self._clients.values()):
            client.send_away(Leaving.RESTARTING)
        await asyncio.gather(*self._working, return_exceptions=True)
        for eio_sid in tuple(self._server.eio.sockets):
            await self._hang_up(eio_sid)
        await self._server.shutdown()

    async def _make_room(self, request: web.Request) -> None:
        """Raise ``Transient`` or ``Throttled`` if nobody else can be let in now."""
        if self._closed:
            raise Transient("This server is being restarted; connect again.", retry_after=_SOON)
        if len(self._server.eio.sockets) >= self._limits.clients:
            self._metrics.live_refused.labels("full").inc()
            raise Transient("Too many are connected here; connect again.", retry_after=_SOON)
        address = counted_as(self._gate.address(request))
        allowance = await self._limiter.hit(f"live:{address}", self._connects)
        if not allowance.allowed:
            self._metrics.live_refused.labels("rate").inc()
            raise Throttled(
                "Too many connections from your address; wait, then connect again.",
                retry_after=allowance.reset_after,
            )

    async def _connected(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        try:
            await self._let_in(sid, environ["aiohttp.request"], auth)
        except PlatformError as error:
            self._metrics.live_refused.labels("credential").inc()
            raise socketio.exceptions.ConnectionRefusedError(error.message, _told(error)) from error

    async def _let_in(self, sid: str, request: web.Request, auth: object) -> None:
        hello = _hello(auth)
        token = _token(request, hello)
        principal = await self._principal(request, token)
        allowance = await self._limiter.hit(principal.limit_key, self._gate.limit(principal))
        if not allowance.allowed:
            raise Throttled("Too many requests; wait.", retry_after=allowance.reset_after)
        require(principal, ACCESS[Needs.READ])
        interest = await self._interest(principal, Interest(), hello)
        after = POSITIONS.decode(hello.after, field="after") if hello.after else None
        if after is not None:
            await self._check_cursor(principal, after)
        eio_sid: str = self._server.manager.eio_sid_from_sid(sid, _ROOT)
        socket = self._socket(eio_sid)
        same = sum(one.tenant_id == principal.tenant_id for one in self._clients.values())
        if same >= self._limits.clients_per_tenant:
            raise Throttled(
                f"Your organization has {same} live connections here, which is as many as it may;"
                " close one.",
                retry_after=_SOON,
            )
        if self._group is None or self._closed or socket is None:
            raise Transient("This server is being restarted; connect again.", retry_after=_SOON)
        client = Client(
            sid=sid,
            eio_sid=eio_sid,
            token=token,
            expires_at=None
            if kind_of(token) is not None
            else self._tokens.read(token, now=self._clock.now()).expires_at,
            principal=principal,
            interest=interest,
            backlog=socket.queue,
            most_events=self._limits.backlog_events,
            most_bytes=self._limits.backlog_bytes,
            packet_of=partial(self._packet_of, sight_of(principal)),
            cursor_packet=_cursor,
            leave=self._leave,
            connected_at=self._clock.monotonic(),
        )
        # Taken before anything is waited for again, so that no limit is passed by many at once.
        self._clients[sid] = client
        self._metrics.live_clients.inc()
        try:
            await self._tail.join(client)
        except BaseException:
            self._remove(client)
            raise
        if sid not in self._clients:
            self._tail.leave(client)
            raise Transient("The connection was closed while it was made.")
        client.joined = True
        if after is None:
            client.go_live(self._tail.position)
            client.tell_cursor(self._tail)
        else:
            client.position = after
            self._start(
                client.catch_up(self._database, self._ring, self._tail), f"catching up {sid}"
            )
        log.info(
            "live_connected",
            tenant_id=str(principal.tenant_id),
            instance_id=str(principal.instance_id or ""),
            catching_up=after is not None,
        )

    async def _principal(self, request: web.Request, token: str) -> Principal:
        try:
            return await self._callers.holder(token, request)
        except Unauthenticated:
            allowance = await self._gate.stranger(request)
            if not allowance.allowed:
                raise Throttled(
                    "Too many attempts; wait.", retry_after=allowance.reset_after
                ) from None
            raise

    async def _check_cursor(self, principal: Principal, after: int) -> None:
        async with self._database.tx() as tx:
            found = await events.page(
                tx,
                scope_of(principal),
                Selection(),
                ring=self._ring,
                after=after,
                limit=1,
                through=after,
            )
        if not found.follows(after):
            raise cursor_lost(found)

    async def _subscribe(self, sid: str, *said: object) -> dict[str, object]:
        return await self._changed(sid, said, more=True)

    async def _unsubscribe(self, sid: str, *said: object) -> dict[str, object]:
        return await self._changed(sid, said, more=False)

    async def _unknown(self, name: str, sid: str, *_said: object) -> dict[str, object]:
        client = self._clients.get(sid)
        if client is not None:
            self._count(client)
        return _failed(BadRequest(f"There is no {name[:40]!r}; say subscribe or unsubscribe."))

    async def _changed(
        self, sid: str, said: tuple[object, ...], *, more: bool
    ) -> dict[str, object]:
        client = self._clients.get(sid)
        if client is None:
            return _failed(Transient("The connection is being closed; connect again."))
        try:
            self._count(client)
            wish = validated(_object(said[0] if said else {}), Wish)
            client.interest = await self._interest(
                client.principal, client.interest, wish, more=more
            )
        except PlatformError as error:
            return _failed(error)
        return {"success": True, "data": _shown(client.interest)}

    async def _interest(
        self, principal: Principal, interest: Interest, wish: Wish, *, more: bool = True
    ) -> Interest:
        """The interest changed as wished. Raises ``NotFound`` for an instance that is not seen."""
        if wish.instances:
            async with self._database.tx() as tx:
                known = await instances.existing(tx, scope_of(principal), wish.instances)
            unknown = [str(one) for one in wish.instances if one not in known]
            if unknown:
                raise NotFound(f"There is no instance {unknown[0]}; check the id.")
        try:
            change = interest.adding if more else interest.removing
            return change(wish.types, wish.instances)
        except TooManyInstances as error:
            raise Rejected(str(error)) from error

    def _count(self, client: Client) -> None:
        """Send it away if it says too much."""
        now = self._clock.monotonic()
        since = now - self.ASKED_WITHIN.total_seconds()
        client.asked = [at for at in client.asked if at > since] + [now]
        if len(client.asked) > self.ASKED_AT_MOST:
            client.send_away(Leaving.CHATTY)
            raise Throttled(_WORDS[Leaving.CHATTY])

    async def _no_longer(self, client: Client) -> Leaving | None:
        """Why it may stay no longer, if so. What cannot be asked now is asked again later."""
        if client.expires_at is not None and client.expires_at <= self._clock.now():
            return Leaving.EXPIRED
        try:
            principal = await self._callers.holder(client.token)
            require(principal, ACCESS[Needs.READ])
        except Transient:
            return None
        except Rejected:
            return Leaving.REVOKED
        same = scope_of(principal) == client.scope
        same = same and sight_of(principal) == sight_of(client.principal)
        return None if same else Leaving.CHANGED

    async def _send_strangers_away(self, now: float) -> None:
        """Close connections on which nobody has said in time who they are."""
        known = {client.eio_sid for client in self._clients.values()}
        connected = set(self._server.eio.sockets) - known
        self._strangers = {eio_sid: self._strangers.get(eio_sid, now) for eio_sid in connected}
        for eio_sid, since in tuple(self._strangers.items()):
            if now - since > self.SILENCE.total_seconds():
                del self._strangers[eio_sid]
                self._metrics.live_dropped.labels(Leaving.SILENT.lower()).inc()
                await self._hang_up(eio_sid, _closing(Leaving.SILENT))

    def _leave(self, client: Client, why: Leaving) -> None:
        """Begin to send a client away."""
        self._metrics.live_dropped.labels(why.lower()).inc()
        packets = [_closing(why)]
        if why in _FOR_GOOD:
            # Told so by Socket.IO itself, clients do not connect again by themselves.
            packets.append(_GOODBYE)
        self._start(self._hang_up(client.eio_sid, *packets), f"hanging up {client.sid}")

    async def _hang_up(self, eio_sid: str, *packets: Packet) -> None:
        socket = self._socket(eio_sid)
        if socket is None:
            return
        for packet in packets:
            socket.queue.put_nowait(packet)
        await socket.close(wait=False, reason=self._server.reason.SERVER_DISCONNECT)
        # What ends the writer, once it has written the above, and with it the connection.
        socket.queue.put_nowait(None)

    async def _disconnected(self, sid: str, reason: str = "") -> None:
        client = self._clients.get(sid)
        if client is not None:
            self._forget(client, reason)

    def _forget(self, client: Client, reason: str) -> None:
        self._remove(client)
        if client.joined:
            self._tail.leave(client)
        if client.leaving is None:
            client.gone()
        log.info(
            "live_disconnected",
            tenant_id=str(client.tenant_id),
            reason=(client.leaving or reason).lower(),
            sent=client.sent,
            duration=round(self._clock.monotonic() - client.connected_at, 3),
        )

    def _remove(self, client: Client) -> None:
        if self._clients.pop(client.sid, None) is not None:
            self._metrics.live_clients.dec()

    def _socket(self, eio_sid: str) -> Any:
        """Engine.IO's connection, unless it is closed; ``None`` then."""
        socket = self._server.eio.sockets.get(eio_sid)
        return None if socket is None or socket.closed or socket.closing else socket

    def _packet_of(self, sight: Sight, event: LoggedEvent) -> Packet:
        """An event as it is sent: made once for all who see alike, which are told it in a row."""
        self._metrics.live_sent.inc()
        if self._latest is None or self._latest[0] is not event:
            self._latest = (event, {})
        made = self._latest[1]
        if sight not in made:
            made[sight] = self._made(sight, event)
        return made[sight]

    def _made(self, sight: Sight, event: LoggedEvent) -> Packet:
        envelope = orjson.loads(event.body)
        shown = public_event(
            event_id=envelope["id"],
            name=event.type,
            instance_id=event.instance_id,
            instance_name=event.instance_name and sight.text(event.instance_name),
            data=sight.data(envelope["data"]),
            timestamp=envelope["time"],
        )
        shown["cursor"] = POSITIONS.encode(event.sequence)
        return event_packet(event.type, orjson.dumps(shown))

    def _start(self, work: Any, name: str) -> None:
        """Let something be done beside, by a task that ends with the server."""
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(work, name=name)
        self._working.add(task)
        task.add_done_callback(self._working.discard)


def _server(cors_origins: Iterable[str], *, largest: int) -> Any:
    """A Socket.IO server over Engine.IO as ``wire`` bounds it."""
    origins = [origin.rstrip("/") for origin in cors_origins]
    # Frames are looked at before they get there, so what it complains of is a defect.
    quiet = logging.getLogger("waypost.socketio")
    quiet.setLevel(logging.ERROR)
    server = socketio.AsyncServer(
        async_mode="aiohttp",
        # Without any, pages of our own host alone; an empty list would let in everybody.
        cors_allowed_origins=("*" if "*" in origins else origins) or None,
        cors_credentials=False,
        max_http_buffer_size=largest,
        http_compression=False,
        ping_interval=25,
        ping_timeout=20,
        async_handlers=False,
        logger=quiet,
        engineio_logger=quiet,
    )
    server.eio._async = DRIVER
    server.eio.create_queue = Backlog
    # Said of every stranger's mistake, the first time even as an error.
    server.eio.log_message_keys = _EverySaid()
    return server


class _EverySaid(set[str]):
    """Whatever it is, it has been said before."""

    @override
    def __contains__(self, _key: object) -> bool:
        return True


def _hello(auth: object) -> Hello:
    return validated(_object(auth or {}), Hello)


def _object(said: object) -> dict[str, object]:
    if not isinstance(said, dict):
        raise BadRequest("Say it as an object, such as {types: ['message.*']}.")
    return said


def _token(request: web.Request, hello: Hello) -> str:
    """The credential: said, or in a header, or in the query, where browsers can put it."""
    return hello.token or hello.api_key or request.query.get("token") or shown_token(request)


def _shown(interest: Interest) -> dict[str, object]:
    def listed(some: frozenset[str] | frozenset[UUID] | None) -> list[str]:
        return ["*"] if some is None else sorted(str(one) for one in some)

    shown: dict[str, object] = {
        "types": listed(interest.types),
        "instances": listed(interest.instances),
    }
    if interest.without:
        shown["without"] = listed(interest.without)
    return shown


def _told(error: PlatformError) -> dict[str, object]:
    told: dict[str, object] = {"code": error.code}
    if error.data:
        told["data"] = dict(error.data)
    if isinstance(error, Transient) and error.retry_after is not None:
        told["retryAfter"] = error.retry_after.total_seconds()
    return told


def _failed(error: PlatformError) -> dict[str, object]:
    message = error.message if error.code in CODES else CODES["INTERNAL_SERVER_ERROR"][1]
    return {"success": False, "error": {"message": message, **_told(error)}}


def _cursor(position: int) -> Packet:
    return event_packet("cursor", orjson.dumps({"cursor": POSITIONS.encode(position)}))


def _closing(why: Leaving) -> Packet:
    told = {"code": why.value, "message": _WORDS[why], "reconnect": why not in _FOR_GOOD}
    return event_packet("closing", orjson.dumps(told))
