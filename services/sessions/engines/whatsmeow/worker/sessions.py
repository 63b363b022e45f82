"""All sessions of one worker, and the calls that are under way."""

import asyncio
from uuid import UUID

from services.sessions.engines.port import SessionDown
from services.sessions.engines.whatsmeow import wire
from services.sessions.engines.whatsmeow.wire import Frame, Link
from services.sessions.engines.whatsmeow.worker.session import HANDLERS, Session
from shared.clock import Clock
from shared.errors import Conflict, PlatformError, Unconfirmed
from shared.log import get_logger

log = get_logger()


class Sessions:
    """All sessions of this process, and the calls that are under way."""

    def __init__(self, *, link: Link, clock: Clock, store: str) -> None:
        self._link = link
        self._clock = clock
        self._store = store
        self._runs: dict[str, Session] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._of_call: dict[int, Session] = {}
        self._openings = 0

    def handle(self, frame: Frame) -> None:
        """Do what the supervisor says; it takes as long as it takes."""
        match frame["do"]:
            case "call":
                self._begin(frame)
            case "cancel":
                task = self._calls.get(frame["call"])
                if task is not None:
                    task.cancel()
            case "go":
                session = self._of_call.get(frame["call"])
                if session is not None:
                    session.go(frame["call"], frame["granted"])
            case _:
                session = self._runs.get(frame["run"])
                if session is not None:
                    session.obey(frame)

    def report(self) -> Frame:
        """How they are: for each, the seconds since anything was heard."""
        return {
            "silence": {run: session.silent_for for run, session in self._runs.items()},
            "openings": self._openings,
        }

    def _begin(self, frame: Frame) -> None:
        call = frame["call"]
        task = asyncio.create_task(self._carry_out(call, frame))
        self._calls[call] = task
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _carry_out(self, call: int, frame: Frame) -> None:
        try:
            answer = await self._do(call, frame)
        except PlatformError as error:
            self._link.say("failure", call=call, error=wire.error_to_frame(error))
        except Exception:
            log.exception("worker_call_failed", call_kind=frame["what"])
            unknown = Unconfirmed("The worker has failed.")
            self._link.say("failure", call=call, error=wire.error_to_frame(unknown))
        else:
            self._link.say("answer", call=call, **answer)

    async def _do(self, call: int, frame: Frame) -> Frame:
        what, run = frame["what"], frame["run"]
        if what == "open":
            return self._open(run, frame)
        session = self._runs.get(run)
        if what == "close":
            if session is not None:
                del self._runs[run]
                await session.stop()
            return {}
        if session is None:
            raise SessionDown("The session is not here.")
        if what != "transmit":
            return await HANDLERS[what](session, frame)
        self._of_call[call] = session
        try:
            return await session.transmit(call, frame)
        finally:
            del self._of_call[call]

    def _open(self, run: str, frame: Frame) -> Frame:
        if run in self._runs:
            raise Conflict("The session is here already.")
        self._openings += 1
        session = self._runs[run] = Session(
            run=run,
            instance_id=UUID(frame["instance"]),
            link=self._link,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
        )
        session.start(
            store=self._store, device=frame["device"], proxy=frame["proxy"], name=frame["name"]
        )
        return {}
