"""One session of a worker: what is asked of it, and what it has to tell."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final
from uuid import UUID

from services.sessions.engines.port import EngineEvent, Retryable, SessionDown
from services.sessions.engines.whatsmeow import wire
from services.sessions.engines.whatsmeow.wire import Frame, Link
from services.sessions.engines.whatsmeow.worker import asking, incoming, linked, media, native
from services.sessions.engines.whatsmeow.worker.guarded import Guarded
from services.sessions.engines.whatsmeow.worker.holding import Key, Unreadable
from services.sessions.engines.whatsmeow.worker.linked import Linked
from services.sessions.engines.whatsmeow.worker.outgoing import say
from services.sessions.engines.whatsmeow.worker.said import Said
from shared.clock import Clock
from shared.errors import PlatformError, Rejected, Transient, Unconfirmed
from shared.log import get_logger

log = get_logger()

HEAR_AGAIN: Final = 0.5
# How long calls may still take when a session is stopped; its socket is closed by then.
STOPPING: Final = 10.0
# How long whatsmeow may go on with what it has in hand after the socket was closed, in seconds.
AFTERWARDS: Final = 0.1
# How long a message that nobody waits for any more may keep those behind it waiting, in seconds.
GIVEN_UP: Final = 5.0
# How long the first code may take to appear, in seconds.
FIRST_CODE: Final = 15.0
# The supervisor answers at once or is gone.
PERMISSION: Final = 10.0
# How long a session may wait for its turn to connect again: five a second, and all at once.
TURN: Final = 120.0
_DIGITS: Final = re.compile(r"\d{5,}")


@dataclass(slots=True)
class _Offered:
    """What one of whatsmeow's events has become; ``left`` of it are not committed."""

    key: Key
    left: int


class Permission:
    """Asks, for one message, whether it may be written to the socket now that it has an id."""

    def __init__(self, *, call: int, session: "Session") -> None:
        self.message_id: str | None = None
        self._call = call
        self._session = session
        self._answered = threading.Event()
        self._granted = False

    def answer(self, granted: bool) -> None:
        """The supervisor has spoken, or will not any more."""
        self._granted = granted
        self._answered.set()

    def __call__(self, message_id: str) -> None:
        """Return when the frame may go; if it may not, there is no socket left when it does."""
        self.message_id = message_id
        self._session.soon(
            lambda: self._session.link.say("about", call=self._call, message_id=message_id)
        )
        self._answered.wait(PERMISSION)
        if not self._granted:
            self._session.linked.cut()


class Session:
    """One run of one session, from its opening to its end."""

    def __init__(
        self,
        *,
        run: str,
        instance_id: UUID,
        link: Link,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.link = link
        self.linked = Linked(run=run, listener=self)
        self._guard, self._client = Guarded.of(self.linked.client, self.linked.turns)
        self._run = run
        self._instance_id = instance_id
        self._clock = clock
        self._loop = loop
        self._things: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._handing_on: asyncio.Task[None] | None = None
        self._sequence = 0
        self._offered: dict[int, _Offered] = {}
        # How many things have come that were not handed on yet.
        self._handling = 0
        self._moved = asyncio.Event()
        self._permissions: dict[int, Permission] = {}
        self._coded = asyncio.Event()
        self._may_connect = threading.Event()
        self._lasting: set[asyncio.Task[None]] = set()

    def start(self, *, store: str, device: str | None, proxy: str | None, name: str) -> None:
        """Connect, or begin to pair."""
        self._handing_on = self._loop.create_task(self._hand_on(), name=f"session:{self._run}")
        self.linked.start(store=store, device=device, proxy=proxy, name=name)

    async def stop(self) -> None:
        """Disconnect, let calls end, and forget it all."""
        for permission in self._permissions.values():
            permission.answer(False)
        self._may_connect.set()
        await asyncio.to_thread(self.linked.cut)
        await self._guard.over(STOPPING)
        await asyncio.to_thread(self.linked.stop)
        for task in (*self._lasting, *([self._handing_on] if self._handing_on else [])):
            task.cancel()

    async def quieten(self, _frame: Frame) -> Frame:
        """Receive nothing more; return once all that has come is committed."""
        await asyncio.to_thread(self.linked.leave)
        # What whatsmeow was decrypting at that moment is still to come.
        await asyncio.sleep(AFTERWARDS)
        while self._offered or self._handling:
            self._moved.clear()
            await self._moved.wait()
        return {}

    @property
    def silent_for(self) -> float:
        """Seconds since WhatsApp has last sent anything."""
        return monotonic() - self.linked.heard_at

    @property
    def held(self) -> int:
        """How many messages and receipts are not confirmed."""
        return self.linked.holding.waiting()

    def committed(self, sequences: Sequence[int]) -> None:
        """These events are safe; WhatsApp may be told."""
        for sequence in sequences:
            offered = self._offered.pop(sequence, None)
            if offered is None:
                continue
            offered.left -= 1
            if offered.left == 0:
                self.linked.holding.settled(offered.key, recorded=True)
        self._moved.set()

    def obey(self, frame: Frame) -> None:
        """Take note of what the supervisor says about this session."""
        match frame["do"]:
            case "committed":
                self.committed(frame["sequences"])
            case "known":
                self.linked.holding.known(frame["message_id"])
            case "connect":
                self._may_connect.set()
            case _:
                log.warning("supervisor_not_understood", what=frame["do"])

    def go(self, call: int, granted: bool) -> None:
        """Whether the message of a call may be written now."""
        permission = self._permissions.get(call)
        if permission is not None:
            permission.answer(granted)

    async def transmit(self, call: int, frame: Frame) -> Frame:
        """Send one message; its id."""
        permission = self._permissions[call] = Permission(call=call, session=self)
        linked.writing.set(permission)
        said = Said(
            to=frame["to"],
            content=wire.SENDABLE.validate_python(frame["content"]),
            path=frame["path"],
            mime_type=frame["mime_type"],
        )
        try:
            return {"message_id": await say(self._client, said)}
        except Unconfirmed as error:
            if permission.message_id is None:
                raise Retryable("The message was not written to WhatsApp's socket.") from error
            raise
        except asyncio.CancelledError:
            if permission.message_id is not None:
                self._last(self._unblock())
            raise
        finally:
            del self._permissions[call]

    async def ask(self, frame: Frame) -> Frame:
        """Put a question."""
        question = wire.QUESTION.validate_python(frame["question"])
        answer = await asking.answer(self._client, question)
        return {"answer": wire.ANSWER.dump_python(answer, mode="json", by_alias=True)}

    async def pair_by_code(self, frame: Frame) -> Frame:
        """A code for a phone to link the new device by."""
        try:
            async with asyncio.timeout(FIRST_CODE):
                await self._coded.wait()
        except TimeoutError as error:
            raise SessionDown("WhatsApp has not offered to pair yet.") from error
        try:
            return {"code": await native.pairing_code(self._client, frame["number"])}
        except Exception as error:
            raise _of_pairing(error) from error

    async def mark_read(self, frame: Frame) -> Frame:
        """Tell a chat that messages were read."""
        await asking.mark_read(
            self._client,
            chat=frame["chat"],
            sender=frame["sender"],
            engine_message_ids=frame["message_ids"],
            played=frame["played"],
        )
        return {}

    async def show_presence(self, frame: Frame) -> Frame:
        """Show a chat what the account is doing."""
        await asking.show_presence(self._client, chat=frame["chat"], state=frame["state"])
        return {}

    async def fetch(self, frame: Frame) -> Frame:
        """Write a file that somebody sent to disk."""
        await media.fetch(self._client, frame["media"], Path(frame["into"]))
        return {}

    async def log_out(self, _frame: Frame) -> Frame:
        """Unlink the device."""
        await native.log_out(self._client)
        return {}

    # What follows is called by neonize and whatsmeow, from threads of theirs.

    def event(self, code: int, data: bytes) -> None:
        try:
            self._take(code, data)
        except Exception:
            log.exception("event_unreadable", code=code)

    def _take(self, code: int, data: bytes) -> None:
        match code:
            case linked.MESSAGE:
                message = native.heard(data)
                self._came(("message", message.Info.ID), message)
            case linked.RECEIPT:
                receipt = native.receipt(data)
                if receipt.MessageIDs:
                    self._came(("receipt", receipt.MessageIDs[0]), receipt)
            case _:
                self._next(lambda: self._on_event(code, data))

    def code(self, text: str) -> None:
        self._tell("code", text=text)
        self.soon(self._coded.set)

    def login(self, word: str) -> None:
        self._tell("login", word=word)

    def failure(self, reason: int, *, code: int, expire: int) -> None:
        self._tell("failure", reason=reason, code=code, expire=expire)

    def unreadable(self, message: Unreadable) -> None:
        self.soon(
            lambda: self.link.say(
                "unreadable",
                run=self._run,
                message_id=message.message_id,
                sender=message.sender,
                chat=message.chat,
            )
        )

    def store_failed(self) -> None:
        self.soon(lambda: self._last(asyncio.to_thread(self.linked.cut)))
        self._tell("store_failed")

    def overrun(self) -> None:
        self.soon(lambda: self._last(asyncio.to_thread(self.linked.cut)))
        self._tell("overrun")

    def reconnecting(self) -> None:
        self._may_connect.clear()
        self.soon(lambda: self.link.say("reconnecting", run=self._run))
        self._may_connect.wait(TURN)

    def noted(self, level: str, words: str) -> None:
        # Addresses are numbers; what remains says what it is about.
        clean = _DIGITS.sub("…", words)[:300]
        self.soon(lambda: log.warning("whatsmeow_warned", severity=level, words=clean))

    def ended(self, words: str) -> None:
        self._tell("ended", words=_DIGITS.sub("…", words)[:300])

    def soon(self, act: Callable[[], object]) -> None:
        """Do something in the loop; from any thread."""
        self._loop.call_soon_threadsafe(act)

    def _came(self, key: Key, event: Any) -> None:
        # Here, and not when its turn comes: what has not come may be confirmed after a while.
        self.linked.holding.came(key)
        self._next(lambda: self._offer(key, event))

    def _next(self, thing: Callable[[], Awaitable[None]]) -> None:
        def put() -> None:
            self._handling += 1
            self._things.put_nowait(thing)

        self.soon(put)

    def _tell(self, what: str, **facts: object) -> None:
        async def tell() -> None:
            self.link.say("told", run=self._run, what=what, **facts)

        self._next(tell)

    async def _hand_on(self) -> None:
        while True:
            thing = await self._things.get()
            try:
                await thing()
            except Exception:
                # It stays unconfirmed, so WhatsApp delivers it again at the next login.
                log.exception("event_not_handed_on")
            await self.link.written()
            self._handling -= 1
            self._moved.set()

    async def _on_event(self, code: int, data: bytes) -> None:
        match code:
            case linked.PAIR_STATUS:
                self._on_pair_status(native.pair_status(data))
            case linked.LOGGED_OUT:
                if not native.logged_out(data).OnConnect:
                    self.link.say("told", run=self._run, what="device_removed")
            case linked.CONNECTED:
                self.link.say("told", run=self._run, what="connected")
            case linked.DISCONNECTED:
                self.link.say("told", run=self._run, what="disconnected")
            case linked.KEEPALIVE_TIMEOUT:
                self.link.say("told", run=self._run, what="keepalive_timeout")
            case linked.REPLACED:
                self.link.say("told", run=self._run, what="replaced")
            case _:
                pass

    def _on_pair_status(self, status: native.PairStatus) -> None:
        if status.Status != native.PAIRED:
            self.link.say("told", run=self._run, what="not_paired")
            return
        self.link.say(
            "told",
            run=self._run,
            what="paired",
            device=native.address_of(status.ID),
            number=status.ID.User,
            platform=status.Platform,
            business_name=status.BusinessName,
        )

    async def _offer(self, key: Key, event: Any) -> None:
        events = await self._heard(event)
        if not events:
            self.linked.holding.settled(key, recorded=False)
            return
        offered = _Offered(key, len(events))
        for one in events:
            self._sequence += 1
            self._offered[self._sequence] = offered
            self.link.say(
                "event", run=self._run, sequence=self._sequence, event=wire.event_to_frame(one)
            )

    async def _heard(self, event: Any) -> Sequence[EngineEvent]:
        while True:
            try:
                return await incoming.heard(
                    self._client, event, instance_id=self._instance_id, at=self._clock.now()
                )
            except Transient:
                await asyncio.sleep(HEAR_AGAIN)

    async def _unblock(self) -> None:
        """WhatsApp does not acknowledge a message, and all others wait behind it."""
        await asyncio.sleep(GIVEN_UP)
        if self._guard.stuck:
            self.link.say("told", run=self._run, what="unacknowledged")

    def _last(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)


def _of_pairing(error: Exception) -> PlatformError:
    words = str(error)
    if "429" in words:
        return Transient("WhatsApp asks to wait before another code.", code="RATE_LIMIT_EXCEEDED")
    if "400" in words or "too short" in words or "international" in words:
        return Rejected("WhatsApp does not accept this number.")
    return Transient("WhatsApp has not given a code.")


Handler = Callable[[Session, Frame], Awaitable[Frame]]
HANDLERS: Final[Mapping[str, Handler]] = {
    "ask": Session.ask,
    "pair_by_code": Session.pair_by_code,
    "mark_read": Session.mark_read,
    "show_presence": Session.show_presence,
    "fetch": Session.fetch,
    "log_out": Session.log_out,
    "quieten": Session.quieten,
}
