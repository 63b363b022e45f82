"""What ``make whatsapp`` starts: a stranger's first look at linked devices."""

import asyncio
import os
import signal
import sys

import pytest

from tests.support.system import ROOT
from tests.support.whatsapp_files import SAMPLES

KINDS = (*(sample.kind for sample in SAMPLES), "location", "contact", "poll")

pytestmark = pytest.mark.timeout(180)


async def _by_hand(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.whatsapp.by_hand", *options),
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def test_everything_is_said_both_ways_and_it_ends_by_itself(
    contacts_installed: None,
) -> None:
    process = await _by_hand("--once")
    told, _ = await process.communicate()
    shown = told.decode()
    assert process.returncode == 0, shown[-4000:]
    assert "by QR code" in shown
    assert "by pairing code" in shown
    for kind in (*KINDS, "text"):
        assert f"got {kind}" in shown
        assert f"message.received {kind}" in shown
    for event in ("message.reaction", "message.edited", "message.revoked"):
        assert event in shown


async def test_ctrl_c_ends_all_of_it(contacts_installed: None) -> None:
    process = await _by_hand()
    assert process.stdout is not None
    said = b""
    async for line in process.stdout:
        said += line
        if b"Write to her" in line:
            break
    # As a terminal does it: to everybody at once.
    os.killpg(process.pid, signal.SIGINT)
    said += await process.stdout.read()
    assert await process.wait() == 0, said.decode()[-4000:]
