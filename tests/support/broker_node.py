"""A RabbitMQ node of the test's own, that may be killed and started again on the same data."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.rabbitmq_server import answers
from tests.support.system import free_port

# Where Debian and the generic package keep the script that starts a node as whoever calls it;
# the one on the PATH changes to the user rabbitmq, who could not read a test's folder.
_SCRIPTS = (
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/opt/rabbitmq/sbin/rabbitmq-server"),
)


class BrokerNode:
    """One node on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._name = f"waypost-test-{self._port}@localhost"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The default virtual host; a node lets its guest in from loopback only."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    async def start(self) -> None:
        """Start it and return once it answers."""
        environment = {
            **os.environ,
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
        }
        with (self._folder / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(_script()),
                env=environment,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )

        async def up() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, "the node ended; see node.log"
            with socket.socket() as probe:
                # Asked more politely, a client library would log every refusal.
                return probe.connect_ex(("127.0.0.1", self._port)) == 0 and await answers(self.url)

        await eventually(up, within=timedelta(seconds=90), every=timedelta(milliseconds=250))

    async def kill(self) -> None:
        """End the node and its helpers, which are all in a group of their own, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[BrokerNode]:
    """A node with its data in ``folder``, killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    node = BrokerNode(folder)
    await node.start()
    try:
        yield node
    finally:
        await node.kill()


def _script() -> Path:
    for script in _SCRIPTS:
        if script.exists():
            return script
    found = shutil.which("rabbitmq-server")
    assert found, "install the Debian package rabbitmq-server: this test stops a node of its own"
    return Path(found)
