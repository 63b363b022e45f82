"""RabbitMQ for tests: a virtual host per run and, where a test needs one, per test.

Virtual hosts are made by evaluating on the node: the four commands that ``rabbitmqctl`` has for it
take two seconds each, and this takes half a second for all.
"""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit

import aio_pika

from shared.broker.topology import TOPOLOGY
from tests.support.rabbitmq_server import LOCAL, answers, started
from tests.support.runs import RUN, abandoned

_ADD = """
    rabbit_vhost:add(<<"{name}">>, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(
        <<"{user}">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""
_DELETE = 'rabbit_vhost:delete(<<"{name}">>, <<"tests">>).'


class Rabbit:
    """A node, by the URL of a virtual host that exists already."""

    def __init__(self, url: str, *, ours: bool) -> None:
        self._url = url
        self._ours = ours
        self._numbers = itertools.count(1)

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """A virtual host with nothing in it; yields its URL.

        On a node that is not ours to command it is the one we were given, cleared of our queues.
        """
        if not self._ours:
            asyncio.run(_clear(self._url))
            yield self._url
            return
        name = f"{RUN}{next(self._numbers)}"
        _evaluate(_ADD.format(name=name, user=unquote(urlsplit(self._url).username or "guest")))
        try:
            yield urlsplit(self._url)._replace(path=f"/{quote(name)}").geturl()
        finally:
            _evaluate(_DELETE.format(name=name))


@contextmanager
def running() -> Iterator[Rabbit]:
    """The node of ``AMQP_URL``, else one that runs here, else one that this starts."""
    url = os.environ.get("AMQP_URL")
    if url is None and not asyncio.run(answers(LOCAL)):
        with started() as made:
            yield Rabbit(made, ours=False)
        return
    yield Rabbit(url or LOCAL, ours=_tidied(url or LOCAL))


def _tidied(url: str) -> bool:
    """Delete what killed runs have left, if the node is on this machine and does as we say."""
    if urlsplit(url).hostname not in {"127.0.0.1", "localhost"} or not shutil.which("rabbitmqctl"):
        return False
    try:
        names = re.findall(r'<<"([^"]+)">>', _evaluate("rabbit_vhost:list_names()."))
    except (subprocess.SubprocessError, OSError):
        return False
    for name in names:
        if abandoned(name):
            _evaluate(_DELETE.format(name=name))
    return True


def _evaluate(expression: str) -> str:
    """What the node answers to an Erlang expression."""
    done = subprocess.run(
        ["rabbitmqctl", "--quiet", "eval", expression],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


async def _clear(url: str) -> None:
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, connection.channel() as channel:
        for queue in TOPOLOGY.queues:
            await channel.queue_delete(queue.name)
            await channel.queue_delete(queue.dead)
