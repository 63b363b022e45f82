"""A session from its opening to its end: connecting, staying connected, beginning anew."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn
from uuid import UUID

from services.sessions.engines.port import (
    Banned,
    Connected,
    Deaf,
    Disconnected,
    Ending,
    Failed,
    Hindered,
    LoggedOut,
    Opening,
    Outgoing,
    Replaced,
    SessionDown,
    Sink,
    Stanza,
    Transmitted,
)
from services.sessions.engines.whatsmeow import wire
from services.sessions.engines.whatsmeow.arrivals import Arrivals
from services.sessions.engines.whatsmeow.devices import Assigned, Devices, patiently
from services.sessions.engines.whatsmeow.endings import Over, Trouble
from services.sessions.engines.whatsmeow.offering import Offering
from services.sessions.engines.whatsmeow.pairing import Pairing
from services.sessions.engines.whatsmeow.proxies import Proxies
from services.sessions.engines.whatsmeow.relay import Relay
from services.sessions.engines.whatsmeow.tunnels import Way
from services.sessions.engines.whatsmeow.wire import Frame
from services.sessions.engines.whatsmeow.workers import Died, Worker, Workers
from shared import backoff
from shared.clock import Clock
from shared.contracts.questions import Answer, PairByCode, Question
from shared.errors import Conflict, Fenced, Transient, Unconfirmed
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

# How long WhatsApp may take to let a device in, or to let it in again after a break, in seconds.
# whatsmeow tries again by itself, ever more slowly; after that long it begins anew.
LOGIN: Final = 45.0
BACK: Final = 60.0
# How long pairing may take after the phone has scanned: it uploads some hundred keys.
LINKING: Final = 90.0
FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(minutes=1)
# Logins that WhatsApp refuses without saying for what reason, before we leave it alone.
REFUSALS: Final = 5
CLOSING: Final = 15.0
# How long a session may take to close its connection itself before its proxy is taken away.
ORDERLY: Final = 3.0
QUIET: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a session works with. ``deaf_after``: the longest silence of a healthy connection.

    ``login`` waits for a turn to connect: a flood of logins looks like an attack.
    """

    workers: Workers
    devices: Devices
    proxies: Proxies
    clock: Clock
    sink: Sink
    device_name: str
    deaf_after: timedelta
    login: Callable[[], Awaitable[None]]


class Session:
    """One open session, under one lease."""

    def __init__(self, opening: Opening, parts: Parts) -> None:
        self.opening = opening
        self.online = False
        self.ending = False
        self.offering = Offering(sink=parts.sink, clock=parts.clock)
        self._parts = parts
        self._clock = parts.clock
        self._worker: Worker | None = None
        self._run = ""
        self._pairing: Pairing | None = None
        self._news: asyncio.Queue[Frame] = asyncio.Queue()
        self._arrived = Arrivals()
        self._heard_at: datetime | None = None
        self._looking: set[asyncio.Task[None]] = set()

    @property
    def instance_id(self) -> UUID:
        return self.opening.instance_id

    async def run(self) -> None:
        """Keep the session until it ends; tell how. Cancelled when it is closed."""
        async with asyncio.TaskGroup() as group:
            offering = group.create_task(self.offering.run())
            try:
                await self._keep()
            finally:
                self.online = False
                offering.cancel()
                for task in self._looking:
                    task.cancel()

    async def quieten(self) -> None:
        """Receive nothing more, and commit what has come, so that nobody has to send it again.

        Gives up after a moment, and at once if nothing is taken any more: then the next owner asks
        for it.
        """
        worker, was_online = self._worker, self.online
        self.ending, self.online = True, False
        if worker is None or not was_online:
            return
        self.offering.refused.clear()
        quiet = asyncio.ensure_future(worker.call("quieten", self._run))
        refused = asyncio.ensure_future(self.offering.refused.wait())
        both = (quiet, refused)
        await asyncio.wait(both, timeout=QUIET, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)

    async def transmit(self, outgoing: Outgoing) -> Transmitted:
        """As ``Engine.transmit``."""
        worker = self._connected()
        answers: list[bool] = []

        async def about(message_id: str) -> bool:
            answers.append(await self._note(outgoing.engine_message_id, message_id))
            return answers[-1]

        attachment = outgoing.attachment
        try:
            answer = await worker.call(
                "transmit",
                self._run,
                about=about,
                to=outgoing.to,
                content=wire.SENDABLE.dump_python(outgoing.content, mode="json", by_alias=True),
                path=None if attachment is None else str(attachment.path),
                mime_type=None if attachment is None else attachment.mime_type,
            )
        except Died as error:
            if True in answers:
                raise Unconfirmed("The worker that was sending it has ended.") from error
            raise SessionDown("The worker has ended.") from error
        except (Transient, Unconfirmed):
            if False in answers:
                raise Fenced("Another process owns this connection now.") from None
            raise
        return Transmitted(engine_message_id=answer["message_id"], at=self._clock.now())

    async def ask(self, question: Question) -> Answer:
        """As ``Engine.ask``."""
        if isinstance(question, PairByCode):
            if self._worker is None or self._pairing is None:
                if self.online:
                    raise Conflict("The instance is paired already.")
                raise SessionDown("The instance is not waiting to be paired; try again shortly.")
            return await self._pairing.by_code(question, self._worker, self._run)
        dumped = wire.QUESTION.dump_python(question, mode="json", by_alias=True)
        answer = await self.request("ask", question=dumped)
        return wire.ANSWER.validate_python(answer["answer"])

    async def request(self, what: str, **fields: object) -> Frame:
        """Ask the worker for something that concerns a connected session."""
        worker = self._connected()
        try:
            return await worker.ask(what, self._run, **fields)
        except Died as error:
            raise SessionDown("The worker has ended.") from error

    # What the worker tells, in the order in which it happened.

    def hear(self, frame: Frame) -> None:
        """Something from the worker. Must not wait."""
        match frame["do"]:
            case "event":
                self._on_event(frame)
            case "unreadable":
                self._look(self._on_unreadable(frame))
            case "reconnecting":
                self._look(self._on_reconnecting(frame))
            case "silence":
                self._news.put_nowait(frame)
            case "told":
                self._on_told(frame)
            case _:
                log.warning("worker_not_understood", what=frame["do"])

    def _on_event(self, frame: Frame) -> None:
        worker, run, sequence = self._worker, self._run, frame["sequence"]
        if worker is None or frame["run"] != run:
            return
        event = wire.event_from_frame(frame["event"])
        stanza = event.stanza_key if isinstance(event, Stanza) else None

        def taken() -> None:
            worker.committed(run, [sequence])
            if stanza is not None:
                self._arrived.commit(stanza)

        if not self.offering.put(event, taken=taken):
            self._news.put_nowait({"do": "told", "what": "overrun"})
        elif stanza is not None:
            self._arrived.expect(stanza)

    def _on_told(self, frame: Frame) -> None:
        if self._pairing is None and frame["what"] == "connected":
            self._go_online()
        elif self._pairing is None and frame["what"] == "disconnected":
            self._interrupt("connection_lost")
        self._news.put_nowait(frame)

    async def _on_reconnecting(self, frame: Frame) -> None:
        """whatsmeow is about to connect again by itself; it waits until it may."""
        await self._parts.login()
        if self._worker is not None:
            self._worker.may_connect(frame["run"])

    async def _on_unreadable(self, frame: Frame) -> None:
        """A message came that was decrypted before: a repeat, or one that went down with us."""
        worker, devices = self._worker, self._parts.devices
        if worker is None:
            return
        id_ = frame["message_id"]
        # Only the worker died, perhaps, and what it had handed on is here.
        here = await self._arrived.committed(id_)
        if here or await patiently(self._clock, lambda: devices.recorded(self.instance_id, id_)):
            worker.known(frame["run"], id_)
            return
        address = await patiently(self._clock, lambda: devices.of(self.instance_id))
        sender = frame["sender"]
        if address is None or await patiently(self._clock, lambda: devices.is_own(address, sender)):
            # What other devices of the account say is not recorded.
            worker.known(frame["run"], id_)
            return
        log.warning("message_asked_for_again", instance_id=str(self.instance_id))
        lease = self.opening.lease
        try:
            await patiently(
                self._clock,
                lambda: devices.end_sessions_with(
                    address, sender=sender, chat=frame["chat"], lease=lease
                ),
            )
        except Fenced:
            return  # Its next owner is asked the same, and answers.
        self._news.put_nowait({"do": "told", "what": "begin_anew"})

    # From here on: one task, which goes from one thing to the next.

    async def _keep(self) -> None:
        failures = refusals = 0
        while True:
            began = self._clock.monotonic()
            try:
                await self._stay(await self._device())
            except Over as over:
                await self._finish(over)
                return
            except Trouble as trouble:
                stable = self._clock.monotonic() - began > LONGEST_WAIT.total_seconds()
                failures = 1 if stable else failures + 1
                refusals = refusals + 1 if trouble.reason == "refused" else 0
                if refusals >= REFUSALS:
                    await self._finish(Over(self._failed("refused")))
                    return
                await self._again(trouble, failures)
            except Fenced:
                return
            except (Died, Transient) as error:
                failures += 1
                reason = "worker_died" if isinstance(error, Died) else "database_unavailable"
                await self._again(Trouble(reason), failures)
            except Exception:
                # A defect of ours, or of neonize: one session's, and no reason to end the others.
                log.exception("session_failed", instance_id=str(self.instance_id))
                failures += 1
                await self._again(Trouble("engine_failed"), failures)

    async def _device(self) -> str | None:
        """The device to resume; ``None`` if there is none to."""
        device = await self._parts.devices.of(self.instance_id)
        if device is None or await self._parts.devices.has_keys(device):
            return device
        # It was logged out, and whatsmeow has erased its keys, and nobody lived to say so.
        now = self._clock.now()
        raise Over(LoggedOut(instance_id=self.instance_id, at=now, reason="logged_out"))

    async def _stay(self, device: str | None) -> NoReturn:
        """Be connected, for as long as that lasts; first link a new device, if there is none."""
        self._pairing = self._a_pairing() if device is None else None
        async with self._placed(device):
            if self._pairing is not None:
                await self._pairing.run(self._next)
                self._pairing = None
            await self._abide(LOGIN if device else LINKING)

    async def _abide(self, patience: float) -> NoReturn:
        until: float | None = self._clock.monotonic() + patience
        while True:
            wait = None if until is None else max(0.0, until - self._clock.monotonic())
            try:
                async with asyncio.timeout(wait):
                    frame = await self._next()
            except TimeoutError:
                raise Trouble("no_answer") from None
            match frame["what"]:
                case "connected":
                    until = None
                    # If it came while the new device was being written down.
                    self._go_online()
                case "disconnected":
                    until = self._clock.monotonic() + BACK
                case "keepalive_timeout":
                    self._deaf("keepalive_timeout")
                case "silence":
                    self._on_silence(timedelta(seconds=frame["seconds"]))
                case "begin_anew":
                    raise Trouble("message_asked_for_again", at_once=True)
                case "unacknowledged" | "overrun":
                    raise Trouble(frame["what"], at_once=True)
                case _:
                    pass

    async def _next(self) -> Frame:
        """What has happened, unless it ends the session or its connection."""
        frame = await self._news.get()
        if frame["do"] == "silence":
            return {"what": "silence", **frame}
        now, id_ = self._clock.now(), self.instance_id
        match frame["what"]:
            case "died":
                raise Died("The worker has ended.")
            case "ended":
                raise Trouble(_why(frame["words"]))
            case "store_failed":
                raise Trouble("database_unavailable")
            case "device_removed":
                self._end(LoggedOut(instance_id=id_, at=now, reason="device_removed"), erased=True)
            case "replaced":
                self._end(Replaced(instance_id=id_, at=now))
            case "failure":
                self._on_failure(frame, now)
            case _:
                pass
        return frame

    def _on_failure(self, frame: Frame, now: datetime) -> None:
        """WhatsApp has refused the login."""
        id_ = self.instance_id
        match frame["reason"]:
            case 401:
                self._end(LoggedOut(instance_id=id_, at=now, reason="logged_out"), erased=True)
            case 403 | 406:
                self._end(Banned(instance_id=id_, at=now, reason="banned"), erased=True)
            case 402:
                until = now + timedelta(seconds=frame["expire"]) if frame["expire"] else None
                self._end(Banned(instance_id=id_, at=now, reason="banned", until=until))
            case 405:
                self._end(self._failed("client_outdated"))
            case 500 | 501 | 503:
                return  # whatsmeow tries again by itself.
            case _:
                raise Trouble("refused")

    def _on_silence(self, silence: timedelta) -> None:
        self._heard_at = self._clock.now() - silence
        if self.online and silence > self._parts.deaf_after:
            self._deaf("silent")

    def _deaf(self, reason: str) -> NoReturn:
        self.offering.put(
            Deaf(
                instance_id=self.instance_id,
                at=self._clock.now(),
                reason=reason,
                last_heard_at=self._heard_at,
            )
        )
        raise Trouble("deaf", at_once=True)

    @asynccontextmanager
    async def _placed(self, device: str | None) -> Any:
        """Be held by a worker."""
        way = await self._parts.proxies.of(self.opening)
        # neonize does not clean up behind a connection that has failed, so it is not asked for one
        # that must.
        if not await self._parts.proxies.reach(way):
            raise Trouble("unreachable", way=way)
        while not self._news.empty():
            self._news.get_nowait()
        async with AsyncExitStack() as stack:
            relay = None if way is None else await stack.enter_async_context(Relay.along(way))
            self._run = str(new_id())
            # While a device is linked, nobody else in its worker can connect or leave, and whoever
            # owns the proxy decides how long that takes: it must be the same tenant's worker.
            apart = device is None and self.opening.proxy is not None
            self._worker = await self._parts.workers.place(
                self._run, self.hear, apart=self.opening.tenant_id if apart else None
            )
            try:
                await self._worker.call(
                    "open",
                    self._run,
                    instance=str(self.instance_id),
                    device=device,
                    proxy=None if relay is None else relay.url,
                    name=self._name,
                )
                yield
            finally:
                worker, run = self._worker, self._run
                self._worker, self._run = None, ""
                if self._pairing is not None:
                    worker.haunted += 1
                    self._pairing = None
                await _leave(self._parts.workers, worker, run, relay)

    async def _again(self, trouble: Trouble, failures: int) -> None:
        """Say what is wrong, and wait before the next attempt."""
        self._interrupt(trouble.reason)
        if trouble.way is not None:
            await self._proxy_failed(trouble.way)
        if trouble.at_once and failures <= 1:
            await self._parts.login()
            return
        self.offering.put(
            Hindered(instance_id=self.instance_id, at=self._clock.now(), reason=trouble.reason)
        )
        jitter = random.uniform(-1, 1)  # noqa: S311 - spreads load, guards nothing
        wait = backoff.exponential(failures, base=FIRST_WAIT, cap=LONGEST_WAIT, jitter=jitter)
        await self._clock.sleep(wait)
        await self._parts.login()

    async def _proxy_failed(self, way: Way) -> None:
        try:
            await self._parts.proxies.failed(self.opening, way)
        except (Transient, Fenced) as error:
            log.warning("proxy_not_rotated", reason=error.message)

    async def _finish(self, over: Over) -> None:
        self.ending = True
        self.online = False
        if over.erased:
            try:
                await patiently(
                    self._clock,
                    lambda: self._parts.devices.forget(self.instance_id, lease=self.opening.lease),
                )
            except Fenced:
                return  # Its next owner finds out by itself.
        if over.event is not None:
            await self.offering.told(over.event)

    async def _note(self, ours: str, theirs: str) -> bool:
        """Whether a message may be written under this id, which is recorded first."""
        noted = Assigned(self.opening.lease, self.instance_id, ours, theirs)
        try:
            return await self._parts.devices.assignments.submit(noted)
        except Transient:
            # Whoever asked us to send has just seen to it that the lease cannot have run out; only
            # a receipt may not find its message.
            return True

    def _go_online(self) -> None:
        if not self.online and not self.ending:
            self.online = True
            self.offering.put(Connected(instance_id=self.instance_id, at=self._clock.now()))

    def _interrupt(self, reason: str) -> None:
        if self.online:
            self.online = False
            self.offering.put(
                Disconnected(
                    instance_id=self.instance_id,
                    at=self._clock.now(),
                    reason=reason,
                    will_retry=True,
                )
            )

    def _a_pairing(self) -> Pairing:
        return Pairing(
            self.opening,
            name=self._name,
            devices=self._parts.devices,
            offering=self.offering,
            clock=self._clock,
        )

    def _connected(self) -> Worker:
        if self._worker is None or not self.online:
            raise SessionDown("The session is not connected.")
        return self._worker

    def _failed(self, reason: str) -> Failed:
        return Failed(instance_id=self.instance_id, at=self._clock.now(), reason=reason)

    def _end(self, event: Ending, *, erased: bool = False) -> NoReturn:
        raise Over(event, erased=erased)

    @property
    def _name(self) -> str:
        return self.opening.device_name or self._parts.device_name

    def _look(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)


async def _leave(workers: Workers, worker: Worker, run: str, relay: Relay | None) -> None:
    """Have a worker let go of a session, even if we are being cancelled.

    A proxy that has stalled keeps it from that, until the relay to it is cut.
    """
    try:
        if not worker.dead and not worker.is_only(run):
            closing = asyncio.ensure_future(worker.call("close", run))
            try:
                if relay is not None:
                    await asyncio.wait([closing], timeout=ORDERLY)
                    relay.cut()
                async with asyncio.timeout(CLOSING):
                    await closing
            finally:
                closing.cancel()
    except Transient:
        pass  # It is gone, and the session with it.
    except TimeoutError:
        log.warning("worker_stuck", pid=worker.pid)
        worker.end()
    finally:
        workers.release(worker, run)


def _why(words: str) -> str:
    """What whatsmeow has said when it gave up connecting, as one of a few reasons."""
    if "dial" in words or "proxy" in words or "handshake" in words:
        return "unreachable"
    if "database" in words or "pq:" in words:
        return "database_unavailable"
    return "connection_lost"
