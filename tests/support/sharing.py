"""How the processes of one run share its tests, when pytest-xdist has them do it.

Each has a PostgreSQL and a RabbitMQ of its own, so any test may run beside any other. Kept together
is what would otherwise be set up once for each process: what a module has for all its tests, and a
Waypost that serves a whole suite.
"""

import os

import pytest

from tests.support import rabbitmq

# More would wait for one another's processors and disks: a test has servers that work for it.
_MOST = 2
_SERVING = ("system", "surface")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as there is room for; one where they would get in each other's way."""
    return min(os.cpu_count() or 1, _MOST) if rabbitmq.for_each_process() else 1


# First: when it is xdist's turn, the groups must be there.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put into one group what is to stay in one process."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if isinstance(item, pytest.Function) and (group := _group(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Function) -> str | None:
    known = item._fixtureinfo.name2fixturedefs
    scopes = {name: known[name][-1].scope for name in item.fixturenames if name in known}
    if any(scopes.get(name) == "session" for name in _SERVING):
        chosen = item.callspec.params if hasattr(item, "callspec") else {}
        return str(chosen.get("place", item.path.parent.name))
    return item.path.stem if "module" in scopes.values() else None
