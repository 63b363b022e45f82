"""One running Waypost for the whole suite, impatient where noise is slow."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.api.callers import Callers, called
from tests.api.fuzz import IMPATIENT
from tests.support import system as systems
from tests.support.system import System


@dataclass(frozen=True)
class Surface:
    """What is tested: a system, who calls it, and the folder of its process."""

    system: System
    callers: Callers
    folder: Path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def surface(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surface]:
    """Everything in one process, as ``make run`` has it."""
    folder = tmp_path_factory.mktemp("api")
    async with (
        systems.embedded(folder, module="tests.api.served", **IMPATIENT) as system,
        called(system) as callers,
    ):
        yield Surface(system, callers, folder)
