"""A RabbitMQ node of our own, that may be killed and started again on the same data."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil

from tests.support.eventually import eventually
from tests.support.rabbitmq_server import answers
from tests.support.system import free_port

# Where Debian and the generic package keep the scripts that do things as whoever calls them; those
# on the PATH change to the user rabbitmq, who could not read a test's folder.
_SCRIPTS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"))
PID = "pid"


class BrokerNode:
    """One node on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._name = f"waypost-test-{self._port}@localhost"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The default virtual host; a node lets its guest in from loopback only."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    async def start(self) -> None:
        """Start it and return once it answers."""
        environment = {
            **self._environment,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
        }
        with (self._folder / "node.log").open("ab") as log:
            # Not asyncio's: it ends with the loop that started it, and a run has many.
            self._process = subprocess.Popen(  # noqa: ASYNC220 - forks, and waits for nothing
                [str(_script("rabbitmq-server"))],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        (self._folder / PID).write_text(str(self._process.pid))

        async def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"the node ended; see {self._folder}/node.log"
            with socket.socket() as probe:
                # Asked more politely, a client library would log every refusal.
                return probe.connect_ex(("127.0.0.1", self._port)) == 0 and await answers(self.url)

        await eventually(up, within=timedelta(seconds=90), every=timedelta(milliseconds=250))

    def evaluate(self, expression: str) -> str:
        """What the node answers to an Erlang expression."""
        done = subprocess.run(
            [str(_script("rabbitmqctl")), "--quiet", "eval", expression],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    def kill(self) -> None:
        """End the node and its helpers, which are all in a group of their own, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
            (self._folder / PID).unlink()

    @property
    def _environment(self) -> dict[str, str]:
        # Both look for the cookie that lets them in where their account is at home.
        return {**os.environ, "HOME": str(self._folder), "RABBITMQ_NODENAME": self._name}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[BrokerNode]:
    """A node with its data in ``folder``, killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    node = BrokerNode(folder)
    await node.start()
    try:
        yield node
    finally:
        node.kill()


def end(folder: Path) -> None:
    """End the node that a killed run has left in ``folder``, if it still runs, and its data."""
    with suppress(OSError, ValueError, psutil.Error):
        left = psutil.Process(int((folder / PID).read_text()))
        # The number may be somebody else's by now.
        if left.environ().get("HOME") == str(folder):
            os.killpg(left.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def installed() -> bool:
    """Whether there is a RabbitMQ here to be started."""
    return any((folder / "rabbitmq-server").exists() for folder in _SCRIPTS)


def _script(name: str) -> Path:
    for folder in _SCRIPTS:
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    assert found, "install the Debian package rabbitmq-server: this test stops a node of its own"
    return Path(found)
