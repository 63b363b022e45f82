"""A PostgreSQL of the run's own: in memory, and careless about everything that a crash would need.

A server that anybody else uses writes to a disk and waits for it, which costs a test more than all
that it asks. The programs are those of the oldest PostgreSQL installed here that is supported, so
that what only newer ones understand is noticed; where none is, those of the wheel.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.runtime import postgres_place
from tests.support.runs import RUN, abandoned
from tests.support.system import free_port

_OLDEST_SUPPORTED = 15
# From this one on it knows a locale that sorts alike on every machine; before, glibc must.
_KNOWS_ITS_LOCALE = 17
# Where Debian and its kin keep one folder for each version.
_INSTALLED = Path("/usr/lib/postgresql")
_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder below it is closed to others
# A container may have 64 MB of it, and a run needs some hundred.
_MEMORY_NEEDED = 2 * 1024**3
_FOLDER = "postgres"
_SETTINGS = {
    # Nothing that a test has written must survive the machine.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "max_connections": "200",
    "timezone": "UTC",
    # Some tests put a proxy before it, which speaks TCP.
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


@contextmanager
def started() -> Iterator[str]:
    """A new server, gone with all its data at the end; yields the URL of its superuser."""
    for place in {_MEMORY, Path(tempfile.gettempdir())}:
        for folder in place.glob(f"*_{_FOLDER}"):
            if abandoned(folder.name):
                _Server(folder).end()
    server = _Server(_place() / f"{RUN}{_FOLDER}")
    try:
        yield server.start()
    finally:
        server.end()


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._account = postgres_place.account_for(folder)

    def start(self) -> str:
        self._folder.mkdir(mode=0o700)
        self._account.give(self._folder)
        programs, version = self._programs()
        locale = ["--locale=C.UTF-8"]
        if version >= _KNOWS_ITS_LOCALE:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(
            programs / "initdb",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
            *locale,
        )
        settings = {**_SETTINGS, "port": str(free_port())}
        options = " ".join(f"--{name}={value}" for name, value in settings.items())
        log = f"--log={self._folder / 'log'}"
        self._run(programs / "pg_ctl", "start", "--wait", log, f"--options={options}")
        return f"postgresql://postgres@127.0.0.1:{settings['port']}/postgres"

    def end(self) -> None:
        # One that cannot be told to stop does so when it finds its data gone.
        with suppress(RuntimeError):
            if (self._data / "postmaster.pid").exists():
                programs, _ = self._programs()
                self._run(programs / "pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _programs(self) -> tuple[Path, int]:
        """Where they are, and their major version."""
        installed = {
            int(path.parents[1].name): path.parent
            for path in _INSTALLED.glob("*/bin/initdb")
            if path.parents[1].name.isdecimal()
        }
        supported = [version for version in installed if version >= _OLDEST_SUPPORTED]
        if supported:
            return installed[min(supported)], min(supported)
        place = postgres_place.programs(self._folder, self._account)
        return place / "bin", int(postgres_place.major_version())

    def _run(self, program: Path, *arguments: str) -> None:
        switch = self._account.switch
        # Into a file: a pipe would stay open for as long as the server runs.
        with tempfile.TemporaryFile() as told:
            done = subprocess.run(
                [str(program), f"--pgdata={self._data}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                cwd=self._folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                user=None if switch is None else switch.uid,
                group=None if switch is None else switch.gid,
                extra_groups=None if switch is None else [],
                umask=0o077,
                start_new_session=True,
                timeout=120,
                check=False,
            )
            if done.returncode != 0:
                told.seek(0)
                said = told.read().decode(errors="replace")
                raise RuntimeError(f"{program} {' '.join(arguments)} failed:\n{said}")


def _place() -> Path:
    """Memory if there is enough, else the folder for temporary files; every account may pass."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED:
        return _MEMORY
    return Path(tempfile.gettempdir())
