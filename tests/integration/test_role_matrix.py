"""Every route against everybody who might call it: made from the route table itself.

A route that is added is walked without further ado, if its permission and what its path names are
known here; where they are not, the failure says what to add. First come all calls that change
nothing if things are right, and afterwards nothing may have changed; then those that may change
something, each in a world that is put back to where it was.
"""

from collections.abc import Sequence

import pytest

from services.gateway.domain.access import ACCESS, Needs
from services.gateway.domain.permissions import Role
from tests.support import gateway as gateway_support
from tests.support.gateway import Gateway
from tests.support.houses import Builder, Caller
from tests.support.matrix import NAMED, OPEN, PEOPLE, WHO, Call, Matrix, World, callers_of, calls
from tests.support.routes import declared


def test_every_route_declares_whom_it_is_for_and_what_its_path_names() -> None:
    assert set(WHO) == set(Needs) == set(ACCESS), "say in WHO whom each of Needs is for"
    assert set(Role) == PEOPLE, "say in WHO what the new role may do"
    for route in declared():
        key = f"{route.method} {route.path}"
        if route.permission is None:
            assert key in OPEN, f"{key}: declare a permission, or add it to OPEN if it is for all"
            continue
        assert key not in OPEN, f"{key}: is not open any more; take it out of OPEN"
        for path in route.paths():
            call = Call(route, path)
            assert call.who in WHO.values()
            assert set(call.names()) <= set(NAMED.values())


async def test_nothing_is_served_under_api_that_is_not_in_the_table(gateway: Gateway) -> None:
    known = {(route.method, path) for route in declared() for path in route.paths()}
    served = {
        (one.method, one.resource.canonical)
        for one in gateway.app.router.routes()
        if one.resource is not None and one.method not in {"HEAD", "OPTIONS", "*"}
    }
    unknown = {one for one in served if one[1].startswith("/api/")} - known
    assert not unknown, f"add to the route table, with its permission: {unknown}"


@pytest.mark.timeout(300)
async def test_every_route_answers_everybody_as_the_contract_says(database_url: str) -> None:
    async with gateway_support.running(
        database_url,
        limit_user_minute=10_000_000,
        limit_address_minute=10_000_000,
        limit_analytics_minute=10_000_000,
        limit_admin_hour=10_000_000,
        access_token_minutes=24 * 60,
        login_attempts=1_000_000,
        ask_seconds=0.01,
        webhook_test_seconds=0.01,
    ) as gateway:
        builder = Builder(gateway)
        house, other = await builder.house("one"), await builder.house("two")
        platform, suspended = await builder.platform(), await builder.suspended()
        nobody = Caller(name="nobody", customer=gateway.stranger(), out=401)
        callers = [nobody, *callers_of(house, other, platform, [suspended])]
        described = (await gateway.stranger().get("/openapi.json")).body
        matrix, world = Matrix(gateway, house, other, described), World(gateway)
        await world.keep()
        await _harmless(matrix, world, callers)
        await _harmful(matrix, world, callers)
        paths = len(calls())
        print(  # noqa: T201 - what it is asked for
            f"\nrole matrix: {paths} routes x {len(callers)} callers, {matrix.tried} calls"
        )


def _works(call: Call, caller: Caller) -> bool:
    return call.may(caller) and call.finds(caller)


async def _harmless(matrix: Matrix, world: World, callers: Sequence[Caller]) -> None:
    """Whatever reads, is refused or leads nowhere: nothing has changed afterwards."""
    before = await world.look()
    for call in calls():
        for caller in callers:
            works, commands = _works(call, caller), world.commands()
            if works and call.changes:
                continue
            await matrix.check(call, caller)
            # Who reads may well ask an instance something.
            assert works or world.commands() == commands, (
                f"{call.key}: a call that was refused to {caller.name} has given a command"
            )
        after = await world.look()
        changed = {name for name in before if before[name] != after[name]}
        assert not changed, f"{call.key}: calls that were refused have changed {changed}"


async def _harmful(matrix: Matrix, world: World, callers: Sequence[Caller]) -> None:
    """Whatever may change something, each time in the same world."""
    for call in calls():
        for caller in callers:
            if call.changes and _works(call, caller):
                await matrix.check(call, caller)
                await world.restore()
