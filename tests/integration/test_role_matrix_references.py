"""What requests name beside their paths: another tenant's, or an instance's that is not assigned.

Every field that names something (``tests/support/references.py`` finds them) is filled with what
the first house has, by callers who may not know of it. The answer has to be the one to an id that
nobody has: nothing is told, nothing is done.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
import pytest

from services.gateway.api.live.schemas import Hello
from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.customer import Answer
from tests.support.files import form
from tests.support.houses import BESIDE, Builder, Caller, House
from tests.support.matrix import EVERYBODYS, FILES, Call, Matrix, World, without_ids
from tests.support.references import WORDS, Field, fields

WITH: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST /api/sandbox/instances/{id}/inbound", "messageId"): {"action": "revoke"},
    ("POST /api/sandbox/instances/{id}/inbound", "content.mediaId"): {
        "message": None,
        "content": {"kind": "image", "mimeType": "image/png"},
    },
}
"""What else a body has to say for a field to count, by route and field."""

INSTEAD: Final = {"mediaId": ("base64", "url")}
"""What a field takes the place of."""

NOBODYS: Final = {"sender": "+12025559990", "contact": "+12025559991"}


@dataclass(frozen=True)
class Asking:
    """Somebody who may not know of what a field names: they ask from a house of their own."""

    caller: Caller
    home: dict[str, str]

    def calls(self, field: Field) -> Call | None:
        """The call, if it is for them, leads somewhere, and does not show them everything."""
        call = Call(field.route, field.route.path)
        if field.route.permission is None or not call.may(self.caller):
            return None
        if not set(call.names()) <= set(self.home):
            return None
        if self.caller.role == "operator" and call.path.startswith(EVERYBODYS):
            return None
        return call


def strangers(house: House, other: House, operator: Caller) -> list[Asking]:
    """Callers of another house, and of the same who see its other instance alone."""
    beside = {"instance": str(house.other), "group": house.named["group"]}
    foreign = {"admin", "agent", "key with everything"}
    return [
        *(
            Asking(replace(one, foreign=True), other.named)
            for one in other.callers
            if one.name in foreign
        ),
        *(
            Asking(one, beside)
            for one in house.callers
            if one.name in {BESIDE, "key of the other instance"}
        ),
        Asking(operator, {}),
    ]


class References:
    """Asks, and compares."""

    def __init__(self, matrix: Matrix, world: World, house: House, owner: Caller) -> None:
        self._matrix = matrix
        self._world = world
        self._house = house
        self._owner = owner
        self._cursors: dict[str, str] = {}
        self.tried = 0

    async def check(self, field: Field, asking: Asking) -> bool:
        """Whether they could ask; fails if they were told, or did, anything."""
        call, names = asking.calls(field), field.names
        if call is None or names is None or self._is_theirs(field, asking):
            return False
        if names == "cursor":
            await self._with_a_cursor(field, call, asking)
            return True
        nobodys = NOBODYS.get(names, str(new_id()))
        hidden = await self._ask(field, call, asking, self._house.named[names])
        unknown = await self._ask(field, call, asking, nobodys)
        told = f"{field.about}, as {asking.caller.name}: {hidden.status} {hidden.body!r:.500}"
        assert without_ids(hidden) == without_ids(unknown), f"{told}\nnot as {unknown.body!r:.500}"
        self._matrix.hidden(call, asking.caller, hidden, told, named=self._house.named[names])
        if field.place != "query":
            assert hidden.status in {403, 404, 422}, told
            if hidden.status == 422:
                wrong = hidden.body["error"]["data"]["fields"]
                assert all(field.path[-1] in name.split(".") for name in wrong), told
        return True

    async def is_found(self, field: Field) -> None:
        """Whoever sees everything finds by it what others may not."""
        call, names = Asking(self._owner, self._house.named).calls(field), field.names
        if call is None or names in {None, "cursor"} or field.place != "query":
            return
        value = self._house.named[str(names)]
        answer = await self._ask(field, call, Asking(self._owner, self._house.named), value)
        assert answer.data, f"{field.about}: finds nothing for its owner; let houses.py make some"

    def _is_theirs(self, field: Field, asking: Asking) -> bool:
        """People and organizations are no secret within a house."""
        inside = asking.caller in self._house.callers
        return inside and field.names in {"member", "manager", "organization"}

    async def _with_a_cursor(self, field: Field, call: Call, asking: Asking) -> None:
        """A cursor is a place in a list, and whoever has it sees their own list from there."""
        path = call.filled(self._house)
        if path not in self._cursors:
            owner = next(one for one in self._house.callers if call.may(one) and one.sees)
            page = await owner.customer.get(f"{path}?limit=1")
            cursor = page.body["pagination"]["nextCursor"]
            assert cursor, f"{path}: is too short for a cursor; let houses.py make another one"
            self._cursors[path] = cursor
        answer = await self._ask(field, call, asking, self._cursors[path])
        told = f"{field.about}, as {asking.caller.name}: {answer.status} {answer.body!r:.500}"
        assert answer.status == 200, told
        self._matrix.hidden(call, asking.caller, answer, told)

    async def _ask(self, field: Field, call: Call, asking: Asking, value: str) -> Answer:
        self.tried += 1
        customer, method = asking.caller.customer, field.route.method
        path = call.filled_by(asking.home)
        name = field.path[-1]
        if field.place == "query":
            return await customer.call(method, path, params={name: value})
        body = {
            key: given
            for key, given in self._matrix.body(call, asking.caller, asking.home).items()
            if key not in INSTEAD.get(name, ())
        }
        body |= deepcopy(WITH.get((call.key, ".".join(field.path)), {}))
        _put(body, field.path, [value] if field.many else value)
        if field.place == "form":
            return await customer.call(method, path, data=_form(field, body))
        return await customer.call(method, path, json=body)


def _put(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        body = body.setdefault(step, {})
    body[path[-1]] = value


def _form(field: Field, body: dict[str, Any]) -> aiohttp.FormData:
    kind = field.route.path.rpartition("/")[2]
    return form(
        FILES[kind],
        field=kind,
        fields={name: str(value) for name, value in body.items() if name != "base64"},
    )


def _referring() -> Iterator[Field]:
    for field in fields():
        if field.names is not None:
            yield field


def test_every_field_of_a_request_names_something_or_is_known_not_to() -> None:
    said = {field.word for field in fields() if field.names is None}
    assert said == WORDS, f"nothing is called so any more: {WORDS - said}"
    # What Socket.IO's clients name; test_gateway_events_by_role.py has them try it.
    assert set(Hello.model_fields) == {"types", "instances", "token", "api_key", "after"}


@pytest.mark.timeout(120)
async def test_what_is_named_and_not_ones_own_is_answered_like_what_nobody_has(
    database_url: str,
) -> None:
    async with gateway_support.running(database_url, ask_seconds=0.01) as gateway:
        builder = Builder(gateway)
        house, other = await builder.house("one"), await builder.house("two")
        [operator, *_] = (await builder.platform()).callers
        described = (await gateway.stranger().get("/openapi.json")).body
        matrix, world = Matrix(gateway, house, other, described), World(gateway)
        admin = next(one for one in house.callers if one.name == "admin")
        references = References(matrix, world, house, admin)
        await world.keep()
        before = await world.look()
        for field in _referring():
            asked = [
                asking.caller.name
                for asking in strangers(house, other, operator)
                if await references.check(field, asking)
            ]
            assert asked or field.route.path.startswith("/api/admin/"), (
                f"{field.about}: nobody could ask; have somebody do so"
            )
            await references.is_found(field)
        after, commands = await world.look(), world.commands()
        assert {name for name in before if before[name] != after[name]} == set()
        assert commands == 0
        print(f"\nreferences: {references.tried} calls")  # noqa: T201 - what it is asked for
