"""A RabbitMQ for machines that have none running: from Docker, else the system's package."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import aio_pika
from aio_pika.exceptions import AMQPError

from tests.support.eventually import eventually

LOCAL = "amqp://guest:guest@127.0.0.1:5672/"
_IMAGE = "rabbitmq:4"
_HOW = (
    "RabbitMQ is needed and was not found. Start one and name it:"
    " 'docker run -d -p 5672:5672 rabbitmq:4', then AMQP_URL=amqp://guest:guest@127.0.0.1:5672/."
    " Or install the package rabbitmq-server; as root on Debian this is done for you."
)


def docker_works() -> bool:
    """Whether there is a Docker that does as we say."""
    return _works("docker", "info")


def install() -> None:
    """Install the system's package; raises ``RuntimeError`` with what to do where it cannot be."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise RuntimeError(_HOW)
    _must("apt-get", "update", "-qq")
    _must("apt-get", "install", "-qq", "--no-install-recommends", "-y", "rabbitmq-server")


@contextmanager
def container() -> Iterator[str]:
    """A node from Docker; yields the URL of its first virtual host."""
    made = _must("docker", "run", "--detach", "--rm", "--publish=127.0.0.1::5672", _IMAGE)
    try:
        port = _must("docker", "port", made, "5672/tcp").rsplit(":", maxsplit=1)[-1]
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        asyncio.run(_ready(url))
        yield url
    finally:
        _must("docker", "stop", made)


async def answers(url: str) -> bool:
    """Whether we are let in there."""
    try:
        connection = await aio_pika.connect(url, timeout=5)
    except (OSError, TimeoutError, AMQPError):
        return False
    await connection.close()
    return True


async def _ready(url: str) -> None:
    await eventually(lambda: answers(url), within=timedelta(seconds=90), every=timedelta(seconds=1))


def _works(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return _run(command).returncode == 0


def _must(*command: str) -> str:
    done = _run(command)
    if done.returncode != 0:
        raise RuntimeError(f"{_HOW}\nTried: {' '.join(command)}\n{done.stderr}")
    return done.stdout.strip()


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=quiet
    )
