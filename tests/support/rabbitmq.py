"""RabbitMQ for tests: a virtual host per run and, where a test needs one, per test.

Virtual hosts are made by evaluating on the node: the four commands that ``rabbitmqctl`` has for it
take two seconds each, and this takes one second for several. None is deleted before the end.
"""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import aio_pika

from shared.broker.topology import TOPOLOGY
from tests.support import broker_node
from tests.support.broker_node import BrokerNode
from tests.support.rabbitmq_server import LOCAL, answers, container, docker_works, install
from tests.support.runs import RUN, abandoned

Evaluate = Callable[[str], str]

_FOLDER = "rabbitmq"
# A call costs half a second, a virtual host a tenth.
_AT_ONCE = 6
_EACH = "lists:foreach(fun(Name) -> {what} end, [{names}])."
_ADD = """
    rabbit_vhost:add(Name, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(
        <<"{user}">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
"""
_DELETE = 'rabbit_vhost:delete(Name, <<"tests">>)'


class Rabbit:
    """A node, by the URL of a virtual host that exists already.

    ``evaluate`` has it do something, as Erlang; without, it is not ours to command.
    """

    def __init__(self, url: str, *, evaluate: Evaluate | None = None) -> None:
        self._url = url
        self._evaluate = evaluate
        self._numbers = itertools.count(1)
        self._spare: list[str] = []
        self._made: list[str] = []

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """A virtual host with nothing in it; yields its URL.

        On a node that is not ours to command it is the one we were given, cleared of our queues.
        """
        if self._evaluate is None:
            asyncio.run(_clear(self._url))
            yield self._url
            return
        if not self._spare:
            self._spare = [f"{RUN}{next(self._numbers)}" for _ in range(_AT_ONCE)]
            self._made += self._spare
            user = unquote(urlsplit(self._url).username or "guest")
            self._evaluate(_each(self._spare, _ADD.format(user=user)))
        yield urlsplit(self._url)._replace(path=f"/{quote(self._spare.pop())}").geturl()

    def forget(self) -> None:
        """Delete what was made, on a node that others use too."""
        if self._evaluate is not None and self._made:
            self._evaluate(_each(self._made, _DELETE))


def for_each_process() -> bool:
    """Whether each process of a run will have a node of its own."""
    return "AMQP_URL" not in os.environ and broker_node.installed()


@contextmanager
def running() -> Iterator[Rabbit]:
    """The node of ``AMQP_URL``, else one of our own, else whichever can be had."""
    url = os.environ.get("AMQP_URL")
    if url is not None:
        rabbit = Rabbit(url, evaluate=_tidied(url))
        try:
            yield rabbit
        finally:
            rabbit.forget()
    elif broker_node.installed():
        with _own() as rabbit:
            yield rabbit
    elif asyncio.run(answers(LOCAL)):
        yield Rabbit(LOCAL)
    elif docker_works():
        with container() as made:
            yield Rabbit(made)
    else:
        install()
        with _own() as rabbit:
            yield rabbit


@contextmanager
def _own() -> Iterator[Rabbit]:
    """A node that nobody else can wedge, nor we anybody else's; gone with all it had at the end."""
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"*_{_FOLDER}"):
        if abandoned(folder.name):
            broker_node.end(folder)
    folder = place / f"{RUN}{_FOLDER}"
    folder.mkdir(mode=0o700)
    node = BrokerNode(folder)
    try:
        asyncio.run(node.start())
        yield Rabbit(node.url, evaluate=node.evaluate)
    finally:
        node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _tidied(url: str) -> Evaluate | None:
    """Delete what killed runs have left, if the node is on this machine and does as we say."""
    if urlsplit(url).hostname not in {"127.0.0.1", "localhost"} or not shutil.which("rabbitmqctl"):
        return None
    try:
        names = re.findall(r'<<"([^"]+)">>', _evaluate("rabbit_vhost:list_names()."))
    except (subprocess.SubprocessError, OSError):
        return None
    if left := [name for name in names if abandoned(name)]:
        _evaluate(_each(left, _DELETE))
    return _evaluate


def _each(names: list[str], what: str) -> str:
    """Erlang that does ``what`` for each virtual host, as ``Name``."""
    return _EACH.format(what=what, names=", ".join(f'<<"{name}">>' for name in names))


def _evaluate(expression: str) -> str:
    """What the machine's node answers to an Erlang expression."""
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
