"""One linked device as neonize holds it, with every hook that neonize and whatsmeow have.

neonize's own ``connect`` is not used: it ties all sessions of a process to one event loop and one
executor, and keeps whatsmeow's logger to itself. The same call into its library is made here, from
a thread of the session's own, in which it stays until the session is stopped.
"""

import ctypes
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, Protocol

from services.sessions.engines.whatsmeow.worker import native
from services.sessions.engines.whatsmeow.worker.holding import (
    Holding,
    Unreadable,
    outgoing_message,
)
from services.sessions.engines.whatsmeow.worker.shapes import Client
from services.sessions.engines.whatsmeow.worker.turns import Turns

# neonize's numbers of the events that we want, and of the device itself, which always comes.
DEVICE: Final = 0
PAIR_STATUS: Final = 2
CONNECTED: Final = 3
KEEPALIVE_TIMEOUT: Final = 4
LOGGED_OUT: Final = 6
REPLACED: Final = 7
DISCONNECTED: Final = 12
MESSAGE: Final = 17
RECEIPT: Final = 18
_WANTED: Final = bytes(
    [
        PAIR_STATUS,
        CONNECTED,
        KEEPALIVE_TIMEOUT,
        LOGGED_OUT,
        REPLACED,
        DISCONNECTED,
        MESSAGE,
        RECEIPT,
    ]
)

# Connecting and stopping change maps of neonize's that nothing protects: one at a time.
changing: Final = threading.Lock()
_kept: Final[list[object]] = []

# Which of our calls is running in this thread: whatsmeow calls its logger from the same one.
writing: Final[ContextVar[Callable[[str], None] | None]] = ContextVar("writing", default=None)

_RECONNECTING: Final = "Automatically reconnecting after"
_REASON: Final = re.compile(r' (reason|code|expire)="(\d+)"')


class Listener(Protocol):
    """Who is told what happens to a session; called from any thread, and must not block
    unless it says so.
    """

    def event(self, code: int, data: bytes) -> None:
        """neonize hands on an event."""

    def code(self, text: str) -> None:
        """A QR code is shown."""

    def login(self, word: str) -> None:
        """Pairing has ended, or passes a stage: ``success``, ``timeout``, ``err-…``, …"""

    def failure(self, reason: int, *, code: int, expire: int) -> None:
        """WhatsApp has refused the login. ``expire`` is in seconds."""

    def unreadable(self, message: Unreadable) -> None:
        """A message was decrypted before; was it recorded?"""

    def store_failed(self) -> None:
        """A message could not be decrypted for want of the database; the socket must be closed."""

    def overrun(self) -> None:
        """More has come than can be held back; the socket must be closed."""

    def reconnecting(self) -> None:
        """whatsmeow is about to connect again; it does so when this returns."""

    def noted(self, level: str, words: str) -> None:
        """whatsmeow warns of something."""

    def ended(self, words: str) -> None:
        """The session is over, by our will or not; ``words`` are empty or whatsmeow's."""


class Linked:
    """A device's connection, or the pairing of a new one. ``client`` is for calls meanwhile."""

    def __init__(self, *, run: str, listener: Listener) -> None:
        self.holding = Holding(ask=listener.unreadable)
        self.client: Client = native.client(run)
        self.turns = Turns()
        self.heard_at = monotonic()
        self._run = run.encode()
        self._listener = listener
        self._once = threading.Lock()
        self._settled = False
        self._resumed = True
        self._overrun = False

    def start(self, *, store: str, device: str | None, proxy: str | None, name: str) -> None:
        """Connect ``device``, or pair a new one if there is none. Returns at once."""
        self._resumed = device is not None
        threading.Thread(
            target=self._live, args=(store, device, proxy, name), daemon=True, name="session"
        ).start()

    def stop(self) -> None:
        """Disconnect. Blocks while another session of this process connects or stops."""
        with changing:
            native.binder().gocode.Stop(self._run)
        self.holding.end()

    def leave(self) -> None:
        """Close the socket; what has come goes on being handed on. ``stop`` must follow."""
        native.binder().gocode.Disconnect(self._run)

    def cut(self) -> None:
        """Close the socket this instant, from any thread; ``stop`` must follow."""
        self.leave()
        self.holding.end()

    def _live(self, store: str, device: str | None, proxy: str | None, name: str) -> None:
        words = "neonize has failed"
        changing.acquire()
        try:
            words = self._connect(store, device, proxy, name)
        finally:
            self._settle_down()
            self.holding.end()
            self._listener.ended(words)

    def _connect(self, store: str, device: str | None, proxy: str | None, name: str) -> str:
        binder = native.binder()
        address = native.device(device).SerializeToString() if device else b""
        # whatsmeow has one name for the whole process. Only a new device tells it to WhatsApp.
        props = b"" if device else native.device_props(name)
        settings = native.proxy(proxy) if proxy else None
        wanted = (ctypes.c_char * len(_WANTED)).from_buffer_copy(_WANTED)
        on_code = binder.func_string(self._on_code)
        on_login = binder.func_string(self._on_login)
        on_event = binder.func_callback_bytes(self._on_event)
        on_log = binder.func_callback_bytes2(self._on_log)
        # Go calls these for as long as anything of the session is left, so they are never freed.
        _kept.append((on_code, on_login, on_event, on_log))
        words: bytes | None = binder.gocode.Neonize(
            store.encode(),
            self._run,
            address,
            len(address),
            int(not device),
            b"DEBUG",
            on_code,
            on_login,
            on_event,
            on_log,
            wanted,
            len(_WANTED),
            props,
            len(props),
            b"",
            0,
            ctypes.byref(settings) if settings is not None else None,
        )
        return (words or b"").decode(errors="replace")

    def _settle_down(self) -> None:
        """Let the next session connect: neonize's maps know this one by now."""
        with self._once:
            if not self._settled:
                self._settled = True
                changing.release()

    def _on_code(self, _run: int, text: int) -> None:
        self._listener.code(ctypes.string_at(text).decode())

    def _on_login(self, _run: int, word: int) -> None:
        self._listener.login(ctypes.string_at(word).decode())

    def _on_event(self, _run: Any, data: int, size: int, code: int) -> None:
        if code != DEVICE:
            self._listener.event(code, ctypes.string_at(data, size))

    def _on_log(self, data: int, size: int) -> None:
        entry = native.log_entry(ctypes.string_at(data, size))
        source = entry.Name
        if source == "Client/Recv":
            self.heard_at = monotonic()
            self._settle_down()
            self._received(entry.Message)
        elif source == "Client/Send":
            self._sending(entry.Message)
        elif source.startswith("Client"):
            # By now the session stands in neonize's maps, so the next one may be put there; but a
            # new device has yet to tell its name.
            if self._resumed:
                self._settle_down()
            self._said(entry.Level, entry.Message)
        elif entry.Level in {"WARN", "ERROR"}:
            self._listener.noted(entry.Level, entry.Message)

    def _received(self, frame: str) -> None:
        self.turns.received(frame)
        if not self.holding.received(frame) and not self._overrun:
            self._overrun = True
            self._listener.overrun()
        if frame.startswith("<failure"):
            found = {name: int(value) for name, value in _REASON.findall(frame)}
            self._listener.failure(
                found.get("reason", 0), code=found.get("code", 0), expire=found.get("expire", 0)
            )

    def _sending(self, frame: str) -> None:
        self.turns.sending(frame)
        message_id = outgoing_message(frame)
        if message_id is None:
            self.holding.sending(frame)
            return
        may_go = writing.get()
        if may_go is not None:
            may_go(message_id)

    def _said(self, level: str, words: str) -> None:
        self.turns.said(words)
        if words.startswith(_RECONNECTING):
            self._listener.reconnecting()
        self.holding.ignored(words)
        if self.holding.failed(words):
            self._listener.store_failed()
        if level in {"WARN", "ERROR"}:
            self._listener.noted(level, words)
