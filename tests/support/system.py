"""A whole Waypost as processes: embedded in one, or five over RabbitMQ and PostgreSQL."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp

from tests.support.eventually import eventually
from tests.support.keys import KEYS

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "dispatcher", "sessions", "webhooks", "stats")
# Tests ask far more often than a customer would, to see a change as soon as it happens.
IMPATIENT = {
    "WAYPOST_USER_REQUESTS_PER_MINUTE": "1000000",
    "WAYPOST_ADDRESS_REQUESTS_PER_MINUTE": "1000000",
    "WAYPOST_ANALYTICS_REQUESTS_PER_MINUTE": "1000000",
    "WAYPOST_ADMIN_REQUESTS_PER_HOUR": "1000000",
    # Enough to be argon2id, little enough not to be what a test measures.
    "WAYPOST_PASSWORD_MEMORY_KIB": "1024",
}
SECRET = "an example secret of more than thirty-two characters"


class Process:
    """One program of ours. It is only ever signalled by its own id."""

    def __init__(self, name: str, module: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._module = module
        self.environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; its output is appended to its log."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        try:
            async with asyncio.timeout(40):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"{self.name} did not stop; see {self._log}") from None

    def output(self) -> str:
        """Everything it has written so far."""
        return self._log.read_text(errors="replace")


class System:
    """A running Waypost, its processes by name, and where to find it."""

    def __init__(
        self, url: str, database_url: str, processes: Mapping[str, Process], amqp_url: str | None
    ) -> None:
        self.url = url
        self.database_url = database_url
        self.processes = processes
        self.amqp_url = amqp_url

    async def ready(self) -> None:
        """Return once the API answers that it is ready."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:

            async def up() -> bool:
                try:
                    async with http.get(f"{self.url}/health/ready") as response:
                        return response.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    return False

            await eventually(up, within=timedelta(seconds=60))


@asynccontextmanager
async def embedded(
    folder: Path, *, module: str = "services", **environment: str
) -> AsyncIterator[System]:
    """``make run``, with its data in ``folder``; or a ``module`` that does the same and more."""
    port = free_port()
    # Its own keys would do as well, but for tests that look into its database.
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "encryption-keys").write_text(KEYS)
    process = Process(
        "embedded",
        module,
        {
            "WAYPOST_DATA": str(folder / "data"),
            "WAYPOST_PORT": str(port),
            "WAYPOST_LOG_STYLE": "json",
            "WAYPOST_LOG_LEVEL": "INFO",
            **IMPATIENT,
            **environment,
        },
        folder / "embedded.log",
    )
    database = f"postgresql://postgres@/postgres?host={folder / 'data' / 'postgres'}&port=5432"
    system = System(f"http://127.0.0.1:{port}", database, {"embedded": process}, None)
    await process.start()
    try:
        await system.ready()
        yield system
    finally:
        assert await process.stop() == 0, process.output()[-4000:]


@asynccontextmanager
async def distributed(
    folder: Path, database_url: str, amqp_url: str, **environment: str
) -> AsyncIterator[System]:
    """The five services as processes."""
    ports = {name: free_port() for name in SERVICES}
    common = {
        "DATABASE_URL": database_url,
        "AMQP_URL": amqp_url,
        "JWT_SECRET": SECRET,
        "ENCRYPTION_KEYS": KEYS,
        "WAYPOST_MEDIA_STORE": str(folder / "media"),
        "WAYPOST_PORT": str(ports["gateway"]),
        "WEBHOOK_ALLOWED_NETS": "127.0.0.0/8,::1/128",
        "WAYPOST_LOG_STYLE": "json",
        **IMPATIENT,
        **{f"WAYPOST_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        **environment,
    }
    processes = {
        name: Process(name, f"services.{name}", common, folder / f"{name}.log") for name in SERVICES
    }
    url = f"http://127.0.0.1:{ports['gateway']}"
    system = System(url, database_url, processes, amqp_url)
    try:
        for process in processes.values():
            await process.start()
        await system.ready()
        yield system
    finally:
        ended = await asyncio.gather(
            *(process.stop() for process in processes.values()), return_exceptions=True
        )
        assert set(ended) == {0}, dict(zip(processes, ended, strict=True))


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
