"""The description against the running system: what it allows is answered as it says, and what it
does not allow is refused.
"""

import asyncio
import json
import os
import re
import sys
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
        }
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
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(110):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
    assert process.returncode == 0, output.decode()[-6000:]
    assert caller != "admin" or _refused(output) < 40, "its login did not outlive the run"


def _refused(output: bytes) -> int:
    """How many operations it was never let into: some are for others, but not all."""
    found = re.search(rb"Authentication failed: (\d+) operation", output)
    return 0 if found is None else int(found[1])
