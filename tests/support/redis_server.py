"""A Redis of a test's own, which can be stopped, frozen and brought back."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis


class RedisServer:
    """Listens on a socket in a folder of its own, and keeps nothing beyond its life."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder / 's'}"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """One that is there, and gone afterwards."""
        # A path to a socket must be short, which those that pytest makes are not.
        with tempfile.TemporaryDirectory(prefix="waypost-redis-") as folder:
            server = cls(Path(folder))
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        """Return once it takes connections; it is empty."""
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.fail("redis-server is not installed: apt-get install redis-server")
        socket, folder = str(self._folder / "s"), str(self._folder)
        options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"ready to accept connections" in line.lower():
                return
        pytest.fail("redis-server ended before it was ready")

    def stop(self) -> None:
        """End it, frozen or not: whoever asks is refused."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._process.communicate()

    def freeze(self) -> None:
        """Have it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it answer again; what it was asked meanwhile comes first."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        with redis.Redis.from_url(self.url) as client:
            client.ping()

    def clear(self) -> None:
        """Forget all counts."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
