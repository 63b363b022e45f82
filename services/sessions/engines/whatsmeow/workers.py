"""Worker processes: started when there is need of one, spoken to, and missed when they die."""

import asyncio
import itertools
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson

import services
from services.sessions.engines.whatsmeow import wire
from services.sessions.engines.whatsmeow.wire import Frame, Link
from shared.clock import Clock
from shared.errors import Transient
from shared.log import get_logger

log = get_logger()

MODULE: Final = "services.sessions.engines.whatsmeow.worker"
# What a worker is given of our environment. Nothing in there is a secret of ours.
INHERITED: Final = frozenset(
    {
        "HOME",
        "HTTPS_PROXY",
        "LANG",
        "LC_ALL",
        "NO_PROXY",
        "PATH",
        "PYTHONPATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "VIRTUAL_ENV",
        "https_proxy",
        "no_proxy",
    }
)
FOR_TESTS: Final = "WAYPOST_TEST_"
BEAT_EVERY: Final = timedelta(seconds=2)
STARTING: Final = 60.0
ENDING: Final = 5.0
# An empty worker is kept that long for whoever comes next: loading neonize takes a second.
KEPT_EMPTY: Final = timedelta(seconds=30)
# Every opening leaves something behind in neonize, and every pairing that came to nothing a thread
# that looks ten times a second whether it has come to something. So a worker is not used for ever.
OPENINGS: Final = 1000
HAUNTED: Final = 20
# What a worker may write to the log in a minute; Go's reports of a crash are long.
LINES: Final = 60
MINUTE: Final = 60.0
_NOISE: Final = ("Press Ctrl+C", "Login event:", "SendMessage: Error", "Pair Code")

Handler = Callable[[Frame], None]
About = Callable[[str], Awaitable[bool]]


class Died(Transient):
    """The worker has ended without answering."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a worker is started with. ``silence``: how long it may work without hearing from us."""

    store: str
    silence: timedelta
    sessions: int
    environment: Mapping[str, str]


@dataclass(slots=True)
class _Call:
    """A request that is not answered. ``about`` decides, where a message is sent."""

    answer: asyncio.Future[Frame]
    about: About | None
    deciding: asyncio.Task[None] | None = field(default=None)


class Worker:
    """One process, from its start to its end. ``runs`` are the sessions that it holds.

    Those in one that is ``apart`` have that in common; it ends with the last of them.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, link: Link, *, terms: Terms, clock: Clock
    ) -> None:
        self.runs: dict[str, Handler] = {}
        self.openings = 0
        self.haunted = 0
        self.dead = False
        self.let_go = False
        self.apart: Hashable | None = None
        self.empty_since = clock.monotonic()
        self._process = process
        self._link = link
        self._terms = terms
        self._clock = clock
        self._ready = asyncio.Event()
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._lines = 0
        self._lines_since = clock.monotonic()

    @property
    def pid(self) -> int:
        """The process, for whoever watches it."""
        return self._process.pid

    def has_room(self, apart: Hashable | None) -> bool:
        """Whether another session may be put here, of those that are kept ``apart`` together."""
        fits = len(self.runs) < self._terms.sessions
        fresh = self.openings < OPENINGS and self.haunted < HAUNTED
        return fits and fresh and not self.dead and self.apart == apart

    def is_only(self, run: str) -> bool:
        """Whether it is there for this session alone, and goes with it."""
        return self.apart is not None and self.runs.keys() <= {run}

    @classmethod
    async def start(cls, terms: Terms, *, clock: Clock) -> "Worker":
        """A process that is about to load neonize. ``run`` must follow."""
        ours, theirs = socket.socketpair()
        root = str(Path(services.__file__).parents[1])
        before = terms.environment.get("PYTHONPATH")
        environment = {
            **terms.environment,
            "PYTHONPATH": f"{before}:{root}" if before else root,
            # Go reads its environment when it is loaded. Without this, neonize marks every
            # message as a bot's.
            "NEONIZE_BOT_TAG": "off",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULE,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                pass_fds=(theirs.fileno(),),
                # Ctrl+C in a terminal is for us, who then close sessions in good order.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Transient("No worker could be started.") from error
        finally:
            theirs.close()
        return cls(process, await Link.over(ours), terms=terms, clock=clock)

    async def run(self) -> None:
        """Listen to it until it ends, by our will or not."""
        self._link.say(
            "hello",
            store=self._terms.store,
            silence=self._terms.silence.total_seconds(),
            threads=2 * self._terms.sessions + 32,
        )
        try:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._beat()),
                    group.create_task(self._relay(self._process.stdout)),
                    group.create_task(self._relay(self._process.stderr)),
                ]
                await self._listen()
                others[0].cancel()
                with suppress(TimeoutError):
                    async with asyncio.timeout(ENDING):
                        await self._process.wait()
                for task in others:
                    task.cancel()
        finally:
            self._bury()

    async def ready(self) -> None:
        """Return when it has loaded neonize. Raises ``Died``."""
        try:
            async with asyncio.timeout(STARTING):
                await self._ready.wait()
        except TimeoutError as error:
            self.end()
            raise Died("The worker has not started in time.") from error
        if self.dead:
            raise Died("The worker has ended.")

    async def call(
        self, what: str, run: str, *, about: About | None = None, **fields: object
    ) -> Frame:
        """Ask for something, and return the answer. Raises what the worker raised, or ``Died``.

        ``about`` is asked, with its id, before a message is written to WhatsApp's socket.
        """
        if self.dead:
            raise Died("The worker has ended.")
        number = next(self._numbers)
        call = self._calls[number] = _Call(asyncio.get_running_loop().create_future(), about)
        self._link.say("call", call=number, what=what, run=run, **fields)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._link.say("cancel", call=number)
            raise
        finally:
            del self._calls[number]
            if call.deciding is not None:
                call.deciding.cancel()

    async def ask(self, what: str, run: str, **fields: object) -> Frame:
        """Ask for something that sends no message. Raises as ``call`` does."""
        return await self.call(what, run, about=None, **fields)

    def committed(self, run: str, sequences: list[int]) -> None:
        """WhatsApp may be told that these events have arrived."""
        self._link.say("committed", run=run, sequences=sequences)

    def known(self, run: str, message_id: str) -> None:
        """WhatsApp may be told of this message too: it was recorded earlier."""
        self._link.say("known", run=run, message_id=message_id)

    def may_connect(self, run: str) -> None:
        """It is a session's turn to connect again."""
        self._link.say("connect", run=run)

    def end(self) -> None:
        """Let it go, with all sessions that it still has. ``run`` returns soon after."""
        self.dead = self.let_go = True
        self._link.close()

    async def _listen(self) -> None:
        while True:
            try:
                frame = await self._link.next()
            except EOFError:
                return
            self._hear(frame)

    def _hear(self, frame: Frame) -> None:
        match frame["do"]:
            case "answer" | "failure":
                self._settle(frame)
            case "about":
                self._decide(frame)
            case "beat":
                self.openings = frame["openings"]
                for run, silence in frame["silence"].items():
                    self._pass_on(run, {"do": "silence", "seconds": silence})
            case "ready":
                self._ready.set()
            case _:
                self._pass_on(frame["run"], frame)

    def _pass_on(self, run: str, frame: Frame) -> None:
        handler = self.runs.get(run)
        if handler is not None:
            handler(frame)

    def _settle(self, frame: Frame) -> None:
        call = self._calls.get(frame["call"])
        if call is None or call.answer.done():
            return
        if frame["do"] == "answer":
            call.answer.set_result(frame)
        else:
            call.answer.set_exception(wire.error_from_frame(frame["error"]))

    def _decide(self, frame: Frame) -> None:
        number = frame["call"]
        call = self._calls.get(number)
        if call is None or call.about is None:
            # Nobody waits for it any more: it was given up as not sent, and so it must not be.
            self._link.say("go", call=number, granted=False)
            return
        call.deciding = asyncio.get_running_loop().create_task(
            self._answer(number, call.about, frame["message_id"]), name=f"about:{number}"
        )

    async def _answer(self, number: int, about: About, message_id: str) -> None:
        granted = False
        try:
            granted = await about(message_id)
        finally:
            self._link.say("go", call=number, granted=granted)

    async def _beat(self) -> None:
        while True:
            self._link.say("beat")
            await self._clock.sleep(BEAT_EVERY)

    async def _relay(self, stream: asyncio.StreamReader | None) -> None:
        """Put what it writes into our log."""
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # longer than anybody should write
                continue
            if not line:
                return
            now = self._clock.monotonic()
            if now - self._lines_since > MINUTE:
                self._lines, self._lines_since = 0, now
            self._lines += 1
            if self._lines <= LINES:
                _relate(line, self.pid)

    def _bury(self) -> None:
        self.dead = True
        self._link.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
        self._ready.set()
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(Died("The worker has ended."))
        for handler in list(self.runs.values()):
            handler({"do": "told", "what": "died"})
        self.runs.clear()


class Workers:
    """As many processes as the sessions need, each with a share of them."""

    def __init__(self, *, terms: Terms, clock: Clock) -> None:
        self._terms = terms
        self._clock = clock
        self._all: list[Worker] = []
        self._group: asyncio.TaskGroup | None = None
        self._placing = asyncio.Lock()

    async def running(self, stop: asyncio.Event) -> None:
        """Look after the processes until ``stop`` is set; then end them all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            tidying = group.create_task(self._tidy(), name="whatsmeow:workers")
            await stop.wait()
            tidying.cancel()
            self._group = None
            for worker in self._all:
                worker.end()

    async def place(self, run: str, handler: Handler, *, apart: Hashable | None = None) -> Worker:
        """Put a session into a process with room, or into one for those that are ``apart``.

        What the process tells of it goes to ``handler``. Raises ``Transient``.
        """
        async with self._placing:
            worker = next((one for one in self._all if one.has_room(apart)), None)
            if worker is None:
                worker = await self._start()
                worker.apart = apart
            worker.runs[run] = handler
            worker.openings += 1
        try:
            await worker.ready()
        except BaseException:
            self.release(worker, run)
            raise
        return worker

    def release(self, worker: Worker, run: str) -> None:
        """A session has left its process."""
        worker.runs.pop(run, None)
        worker.empty_since = self._clock.monotonic()
        if worker.apart is not None and not worker.runs:
            worker.end()

    def processes(self) -> list[Worker]:
        """Those that live."""
        return [worker for worker in self._all if not worker.dead]

    async def _start(self) -> Worker:
        if self._group is None:
            raise Transient("The engine is not running.")
        worker = await Worker.start(self._terms, clock=self._clock)
        self._all.append(worker)
        self._group.create_task(self._keep(worker), name=f"whatsmeow:worker:{worker.pid}")
        return worker

    async def _keep(self, worker: Worker) -> None:
        try:
            await worker.run()
        finally:
            self._all.remove(worker)
            if worker.let_go:
                log.info("worker_ended", pid=worker.pid)
            else:
                log.warning("worker_died", pid=worker.pid)

    async def _tidy(self) -> None:
        while True:
            await self._clock.sleep(KEPT_EMPTY / 3)
            long_ago = self._clock.monotonic() - KEPT_EMPTY.total_seconds()
            for worker in self._all:
                if not worker.runs and worker.empty_since < long_ago:
                    worker.end()


def _relate(line: bytes, pid: int) -> None:
    text = line.decode(errors="replace").strip()
    try:
        told: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        if text and not text.startswith(_NOISE):
            log.warning("worker_said", pid=pid, line=text[:300])
        return
    if isinstance(told, dict) and isinstance(event := told.pop("event", None), str):
        known = {name: value for name, value in told.items() if name not in {"level", "timestamp"}}
        log.warning(event, **{**known, "pid": pid})
