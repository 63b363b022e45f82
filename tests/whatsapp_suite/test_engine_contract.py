"""The engine contract suite, over linked devices and a local WhatsApp."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.test_engine import *  # noqa: F403 - every test of it, over another engine
from tests.contract.test_engine import Trial
from tests.contract.whatsmeow_trial import whatsmeow


@pytest.fixture  # type: ignore[no-redef]
async def trial(database_url: str) -> AsyncIterator[Trial]:
    async with whatsmeow(database_url) as made:
        yield made
