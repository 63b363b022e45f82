"""Files in passing: on this machine's disk for as long as somebody uses them, and never longer."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Final

from shared.errors import Transient
from shared.ids import new_id

_LOCK: Final = "lock"


def usual_place() -> Path:
    """A folder of this user's within the machine's temporary one."""
    return Path(tempfile.gettempdir()) / f"waypost-sessions-{os.getuid()}"


class Scratch:
    """A folder of this process's own within ``place``, which many processes may share.

    A process holds a lock on its folder for as long as it lives, however it ends. Whoever starts
    next removes the folders that nobody holds.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._own: Path | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the folder for as long as the context is open."""
        own, held = await asyncio.to_thread(self._moved_in)
        self._own = own
        try:
            yield
        finally:
            self._own = None
            await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)
            held.close()

    @asynccontextmanager
    async def path(self) -> AsyncIterator[Path]:
        """A path that nothing is at, yet; whatever is there at the end is removed."""
        if self._own is None:
            raise Transient("The process is starting or ending.")
        path = self._own / str(new_id())
        try:
            yield path
        finally:
            # Not in a thread: a cancellation on the way there would leave the file behind.
            path.unlink(missing_ok=True)

    def _moved_in(self) -> tuple[Path, IO[bytes]]:
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            for folder in self._place.iterdir():
                if folder.is_dir():
                    _remove_unless_held(folder)
            own = self._place / str(new_id())
            own.mkdir(mode=0o700)
            held = (own / _LOCK).open("wb")
            fcntl.flock(held, fcntl.LOCK_EX)
        return own, held

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else moves in meanwhile: a folder without its lock would be taken for a ruin."""
        with (self._place / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _remove_unless_held(folder: Path) -> None:
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass  # Its process died before it had a lock, or while it left.
    except BlockingIOError:
        return
    shutil.rmtree(folder, ignore_errors=True)
