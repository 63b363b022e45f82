"""The description against the running system: what it allows is answered as it says, and what it
does not allow is refused.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.api.callers import called
from tests.api.conftest import Surface

HERE = Path(__file__).parent
# How each caller looks at it: the first at everything, also at what follows from what; the others
# at what they may do and, for the most part, may not. A caller never has a second run's leavings.
PHASES = {
    "admin": ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "2"),
    "key": ("--phases", "examples,fuzzing", "--max-examples", "1"),
    "operator": ("--phases", "examples,fuzzing", "--max-examples", "1"),
}
# Of which there has to be some, or a phase has not run: what is allowed, and what is to be refused.
WANTED = {
    "admin": {
        "examples, positive",
        "coverage, positive",
        "coverage, negative",
        "fuzzing, positive",
        "fuzzing, negative",
        "stateful, positive",
        "stateful, negative",
    },
    "key": {"examples, positive", "fuzzing, positive"},
    "operator": {"examples, positive", "fuzzing, positive"},
}


@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("caller", PHASES)
async def test_everything_is_answered_as_the_description_says(
    surface: Surface, caller: str, tmp_path: Path
) -> None:
    async with called(surface.system) as callers:
        told = {
            "url": surface.system.url,
            "headers": callers.headers[caller],
            "spare": callers.spare,
            "counted": str(tmp_path / "counted.json"),
        }
        peers = tmp_path / "peers.yaml"
        peers.write_text(_known(caller=callers.headers[caller], stranger=callers.stranger))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            HERE / "schemathesis.toml",
            "run",
            f"{surface.system.url}/openapi.json",
            "--mode",
            "all",
            "--no-color",
            "--workers",
            "2",
            *PHASES[caller],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parents[1]),
                "WAYPOST_TEST_SURFACE": json.dumps(told),
                "WAYPOST_TEST_PEERS": str(peers),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(220):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
    assert process.returncode == 0, output.decode()[-6000:]
    counted = _counted(tmp_path / "counted.json")
    probes = _probes(callers.strangers, surface.folder / "embedded.log")
    print(f"\nschemathesis as {caller}: {counted}, {probes} as a stranger")  # noqa: T201 - to be seen
    missing = {one for one in WANTED[caller] if not counted.get(one)}
    assert not missing, f"nothing of this was asked: {missing}"
    assert caller != "admin" or probes, "what it made was asked for by no other tenant"
    assert caller != "admin" or _refused(output) < 40, "its login did not outlive the run"


def _known(**headers: Mapping[str, str]) -> str:
    """Who calls, in the form of the Web Fuzzing Commons; JSON is YAML."""
    return json.dumps(
        {
            "auth": [
                {
                    "name": name,
                    "fixedHeaders": [{"name": one, "value": value} for one, value in shown.items()],
                }
                for name, shown in headers.items()
            ]
        }
    )


def _counted(file: Path) -> dict[str, int]:
    """How many requests there were, by what the hooks call them."""
    counted: dict[str, int] = json.loads(file.read_text())
    return counted


def _probes(tenant: str, log: Path) -> int:
    """How often something was asked for by its id for a tenant that makes no such requests."""
    by_id = re.compile(r'"event":"request_handled".*"route":"[^"]*\{.*' + tenant)
    return sum(by_id.search(line) is not None for line in log.read_text().splitlines())


def _refused(output: bytes) -> int:
    """How many operations it was never let into: some are for others, but not all."""
    found = re.search(rb"Authentication failed: (\d+) operation", output)
    return 0 if found is None else int(found[1])
