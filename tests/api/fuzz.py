"""Noise against a running Waypost: nothing breaks, nothing leaks, and every refusal is ours.

usage: python -m tests.api.fuzz [--requests N] [--seconds N] [--seed N]
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from shared.web.errors import CODES
from tests.api.callers import Callers, called
from tests.api.noise import KINDS, Operation, operations, plain
from tests.api.served import Vitals, vitals
from tests.api.sockets import SCENES
from tests.api.wire import NoReplyError, Reply, Wire
from tests.support import system as systems
from tests.support.eventually import eventually
from tests.support.system import System

MIB: Final = 1024 * 1024
# What a run may leave behind, after the first tenth of it has filled caches and pools. Of objects,
# fifty thousand requests add some 50,000, ever more slowly: statements that the last connections of
# the pools prepare, at most a hundred each, and a series for each route and sort of answer. What
# leaked with every request would be three times as many. C holds a MiB or two more.
OBJECTS: Final = 150_000
HEAP: Final = 8 * MIB
# Most of what the process grows by, some 50 MiB, is held by nobody: the allocators keep what scenes
# all at once took for a moment, on pages that something small still lives on.
GROWTH: Final = 96 * MIB
LEFT_OVER: Final = 25
IMPATIENT: Final = {
    "WAYPOST_BODY_SECONDS": "1",
    "WAYPOST_IDLE_SECONDS": "2",
    "WAYPOST_UNREAD_SECONDS": "5",
    "WAYPOST_ASK_SECONDS": "5",
    "WAYPOST_WEBHOOK_TEST_SECONDS": "1",
    "WAYPOST_LOGIN_ATTEMPTS": "1000000",
}
# Words of our own insides, which no answer may hold.
_INSIDES: Final = re.compile(
    rb"Traceback \(most|File \"/|\.py\", line|asyncpg|sqlalchemy|pydantic|INSERT INTO"
    rb"|SELECT .{1,80} FROM|violates .{1,40} constraint|argon2|PRIVATE KEY"
)
_AT_ONCE: Final = 24


@dataclass
class Findings:
    """What a run has counted, and what was wrong."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def fault(self, what: str, raw: bytes, reply: Reply | None = None) -> None:
        """Something that must not be."""
        told = "" if reply is None else f" -> {reply.status} {reply.body[:300]!r}"
        self.wrong.append(f"{what}: {raw[:400]!r}{told}")


class Judge:
    """Looks at every answer."""

    def __init__(self, findings: Findings, secrets: Sequence[bytes], callers: Callers) -> None:
        self._findings = findings
        self._secrets = secrets
        self._foreign = [told.encode() for told in callers.foreign]
        self._operator = callers.headers["operator"]["Authorization"].encode()

    def judge(self, kind: str, raw: bytes, reply: Reply, *, head: bool) -> None:
        """Count an answer, and say what is wrong with it."""
        fault = self._findings.fault
        self._findings.statuses[reply.status] += 1
        if reply.status >= 500:
            fault(f"{kind}: broke", raw, reply)
        if _INSIDES.search(reply.body) and not raw.startswith((b"GET /docs", b"GET /openapi")):
            fault(f"{kind}: shows our insides", raw, reply)
        if any(secret in reply.body for secret in self._hidden(raw)):
            fault(f"{kind}: shows what is somebody else's", raw, reply)
        if reply.status >= 400 and not head and not _is_problem(reply):
            fault(f"{kind}: is not answered in the envelope", raw, reply)

    def _hidden(self, raw: bytes) -> Sequence[bytes]:
        """What the answer may not hold; an operator is told of all tenants where that is asked."""
        asked, _, shown = raw.lstrip().partition(b"\r\n")
        if b"/api/admin/" in asked and self._operator in shown:
            return self._secrets
        return [*self._secrets, *self._foreign]


def _is_problem(reply: Reply) -> bool:
    if reply.headers.get("content-type") != "application/json":
        return False
    try:
        body = reply.json
    except ValueError:
        return False
    error = body.get("error", {})
    return (
        body.get("success") is False
        and error.get("code") in CODES
        and bool(error.get("message"))
        and error.get("requestId") == reply.headers.get("x-request-id")
    )


@dataclass(frozen=True)
class Fuzzer:
    """Sends noise from one seed."""

    port: int
    callers: Callers
    operations: Sequence[Operation]
    findings: Findings
    judge: Judge
    seed: int

    async def run(self, requests: int, *, deadline: float) -> None:
        """So many requests, unless the time (monotonic) is up before."""
        turns = iter(range(requests))
        async with asyncio.TaskGroup() as group:
            for worker in range(_AT_ONCE):
                group.create_task(self._work(Random(f"{self.seed}/{worker}"), turns, deadline))

    async def scenes(self, times: int) -> None:
        """What one connection cannot show in one exchange, so many times each, together."""

        async def one(name: str, scene: Callable[..., Awaitable[Any]], turn: int) -> None:
            random = Random(f"{self.seed}/{name}/{turn}")
            headers = self.callers.headers["admin"]
            found = await scene(Wire(self.port), random, headers)
            self.findings.kinds[name] += 1
            for raw, reply in found.replies:
                self.judge.judge(name, raw, reply, head=False)
            if found.wrong is not None:
                self.findings.fault(f"{name}: {found.wrong}", b"")

        async with asyncio.TaskGroup() as group:
            for turn in range(times):
                for name, scene in SCENES.items():
                    group.create_task(one(name, scene, turn))

    async def _work(self, random: Random, turns: Any, deadline: float) -> None:
        wire = Wire(self.port)
        names = list(KINDS)
        weights = [KINDS[name][1] for name in names]
        who = [*self.callers.headers.values(), *self.callers.headers.values(), {}]
        for _ in turns:
            if time.monotonic() > deadline:
                break
            kind = random.choices(names, weights)[0]
            operation = random.choice(self.operations)
            request = plain(random, operation, random.choice(who))
            noise = KINDS[kind][0](random, request, operation)
            self.findings.kinds[kind] += 1
            try:
                await wire.send(noise.raw)
                reply = await wire.reply(head=noise.head)
            except NoReplyError as error:
                self.findings.unanswered[kind] += 1
                if noise.answered:
                    self.findings.fault(f"{kind}: no answer ({error})", noise.raw)
                continue
            self.judge.judge(kind, noise.raw, reply, head=noise.head)
            if not noise.answered:
                await wire.close()
        await wire.close()


async def fuzz(
    system: System, folder: Path, callers: Callers, *, requests: int, seconds: float, seed: int
) -> tuple[Findings, list[tuple[str, Vitals]]]:
    """A whole run: what was found, and how the process was before and after."""
    port = urlsplit(system.url).port
    assert port is not None
    async with aiohttp.ClientSession() as http, http.get(f"{system.url}/openapi.json") as answer:
        document = await answer.json()
    findings = Findings()
    fuzzer = Fuzzer(
        port,
        callers,
        operations(document, {"id": callers.instance}),
        findings,
        Judge(findings, _secrets(folder), callers),
        seed,
    )
    deadline = time.monotonic() + seconds
    warm = requests // 10
    await fuzzer.run(warm, deadline=deadline)
    before = await _settled(folder)
    await fuzzer.scenes(max(1, requests // 1000))
    await fuzzer.run(requests - findings.kinds.total(), deadline=deadline)
    after = await _settled(folder)
    _compare(before, after, findings)
    async with aiohttp.ClientSession() as http, http.get(f"{system.url}/health/ready") as answer:
        if answer.status != 200:
            findings.fault("is not ready any more", await answer.read())
    return findings, [("before", before), ("after", after)]


async def _settled(folder: Path) -> Vitals:
    """Once nobody is connected: what is closed from afar is noticed a moment later."""

    async def quiet() -> Vitals:
        found = await vitals(folder)
        assert found.connections == 0, f"{found.connections} connections are still open"
        return found

    return await eventually(quiet, within=timedelta(seconds=40))


def _compare(before: Vitals, after: Vitals, findings: Findings) -> None:
    if after.rss - before.rss > GROWTH:
        findings.wrong.append(f"grew by {(after.rss - before.rss) // MIB} MiB")
    if after.heap - before.heap > HEAP:
        findings.wrong.append(f"holds {(after.heap - before.heap) // MIB} MiB more of the heap")
    for what, most in (("objects", OBJECTS), ("tasks", LEFT_OVER), ("files", LEFT_OVER)):
        more = getattr(after, what) - getattr(before, what)
        if more > most:
            findings.wrong.append(f"left {more} {what} behind: {after.task_names}")


def _secrets(folder: Path) -> list[bytes]:
    """What no answer may hold, whoever asks."""
    jwt = json.loads((folder / "secrets.json").read_text())["jwtSecret"]
    keys = (folder / "encryption-keys").read_text().split(":")[-1].strip()
    return [jwt.encode(), keys.encode()]


def _shown(findings: Findings, told: Sequence[tuple[str, Vitals]], seconds: float) -> str:
    lines = [f"{findings.kinds.total()} requests in {seconds:.0f} s", "", "per status"]
    lines += [f"  {status}  {count:7}" for status, count in sorted(findings.statuses.items())]
    lines += ["per kind (of those, not answered)"]
    lines += [
        f"  {kind:22}{count:7}{findings.unanswered[kind]:7}"
        for kind, count in findings.kinds.most_common()
    ]
    lines += [
        f"{when:7} RSS {state.rss / MIB:.1f} MiB, heap {state.heap / MIB:.1f} MiB,"
        f" {state.objects} objects, {state.connections} connections, {state.tasks} tasks,"
        f" {state.files} files"
        for when, state in told
    ]
    lines += [f"{len(findings.wrong)} faults", *findings.wrong[:40]]
    return "\n".join(lines)


async def _main(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="waypost-fuzz-") as folder:
        place = Path(folder)
        async with (
            systems.embedded(place, module="tests.api.served", **IMPATIENT) as system,
            called(system) as callers,
        ):
            started = time.monotonic()
            findings, told = await fuzz(
                system,
                place / "data",
                callers,
                requests=arguments.requests,
                seconds=arguments.seconds,
                seed=arguments.seed,
            )
            print(_shown(findings, told, time.monotonic() - started))
        logged = crashes(place / "embedded.log")
        print(*logged[:10], sep="\n")
    return 1 if findings.wrong or logged else 0


def crashes(log: Path) -> list[str]:
    """Lines about bugs: answered or not, noise must not cause any."""
    return [line for line in log.read_text().splitlines() if '"level": "error"' in line]


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(_main(parsed(sys.argv[1:]))))
