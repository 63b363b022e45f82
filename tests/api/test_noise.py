"""A little of what ``make fuzz`` does at length."""

import pytest

from tests.api.conftest import Surface
from tests.api.fuzz import crashes, fuzz


@pytest.mark.asyncio(loop_scope="session")
async def test_nothing_that_arrives_breaks_anything_or_is_answered_with_our_insides(
    surface: Surface,
) -> None:
    findings, told = await fuzz(
        surface.system, surface.folder / "data", surface.callers, requests=3000, seconds=60, seed=7
    )

    assert findings.wrong == [], told
    assert findings.kinds.total() == 3000
    assert crashes(surface.folder / "embedded.log") == []
