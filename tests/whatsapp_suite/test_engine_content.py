"""What every engine promises about contents, over linked devices and a local WhatsApp."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.test_engine_content import *  # noqa: F403 - every test of it, over another engine
from tests.contract.test_engine_content import Trial
from tests.contract.whatsmeow_content import whatsmeow


@pytest.fixture  # type: ignore[no-redef]
async def trial(database_url: str, contacts_installed: None) -> AsyncIterator[Trial]:
    async with whatsmeow(database_url) as made:
        yield made
