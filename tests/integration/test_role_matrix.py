"""Every route against everybody who might call it: made from the route table itself.

A route that is added is walked without further ado, if its permission and what its path names are
known here; where they are not, the failure says what to add. First come all calls that change
nothing if things are right, and afterwards nothing may have changed; then those that may change
something, each in a world that is put back to where it was.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest

from services.gateway.domain.access import ACCESS, Needs
from services.gateway.domain.permissions import Role
from shared.contracts.commands import COMMANDS
from shared.ids import new_id
from shared.web.routes import Route
from tests.support import gateway as gateway_support
from tests.support.customer import Answer
from tests.support.gateway import Gateway
from tests.support.houses import PICTURE, Builder, Caller, House
from tests.support.routes import declared

PEOPLE: Final = frozenset({"admin", "manager", "agent", "viewer", "operator"})
MANAGERS: Final = frozenset({"admin", "manager", "operator"})
SENDERS: Final = frozenset({"admin", "manager", "agent", "operator"})
ANALYSTS: Final = frozenset({"admin", "manager", "viewer", "operator"})
ADMINS: Final = frozenset({"admin", "operator"})


@dataclass(frozen=True)
class Who:
    """Whom a route is for, as the contract has it: said here once more, and not looked up.

    ``key`` is the permission that an instance key needs. With ``login`` a user key will not do.
    """

    people: frozenset[str] = frozenset()
    key: str | None = None
    login: bool = False


WHO: Final = {
    Needs.BEING_A_USER: Who(PEOPLE),
    Needs.BEING_LOGGED_IN: Who(PEOPLE, login=True),
    Needs.OPERATE: Who(frozenset({"operator"})),
    Needs.SEE_TEAM: Who(MANAGERS),
    Needs.MANAGE_TEAM: Who(MANAGERS, login=True),
    Needs.RESET_PASSWORDS: Who(ADMINS, login=True),
    Needs.ORGANIZATION: Who(ADMINS),
    Needs.AUDIT: Who(ADMINS),
    Needs.SEE_CLIENTS: Who(PEOPLE),
    Needs.MANAGE_CLIENTS: Who(MANAGERS),
    Needs.MAKE_KEYS: Who(MANAGERS, login=True),
    Needs.SEND: Who(SENDERS, "messages.send"),
    Needs.PLAY: Who(SENDERS),
    Needs.READ: Who(PEOPLE, "messages.receive"),
    Needs.STORAGE: Who(ANALYSTS),
    Needs.CHECK: Who(SENDERS, "contacts.check"),
    Needs.SEE_OWN_GROUPS: Who(key="messages.receive"),
    Needs.OWN_GROUPS: Who(key="messages.send"),
    Needs.STATISTICS: Who(ANALYSTS, "instance.stats"),
    Needs.OWN_INFO: Who(key="instance.info"),
    Needs.WEBHOOKS: Who(MANAGERS),
    Needs.SET_WEBHOOKS: Who(MANAGERS, login=True),
    Needs.OWN_WEBHOOK: Who(MANAGERS, "webhook.configure"),
    Needs.TEST_OWN_WEBHOOK: Who(MANAGERS, "webhook.test"),
}
"""Every ``Needs`` that a route can declare."""

OPEN: Final = {
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/accept-invitation",
    "GET /api/version",
    "GET /api/webhooks/health",
    "GET /api/webhooks/whatsapp/health",
}
"""Routes for anybody, which declare no permission."""

NAMED: Final = {
    "instances/{id}": "instance",
    "clients/{id}": "instance",
    "instances/{instanceId}": "instance",
    "clients/{instanceId}": "instance",
    "messages/{id}": "message",
    "media/{id}": "media",
    "members/{userId}": "member",
    "keys/{keyId}": "instance key",
    "team/keys/{keyId}": "user key",
    "groups/{group}": "group",
    "organizations/{id}": "organization",
    "dead-letters/{id}": "dead letter",
    "phone-mappings/{mappingId}": "phone mapping",
}
"""What a path names, by the step before it: the longest that fits. The names are those of
``House.named``, which ``tests/support/houses.py`` makes.
"""

BY_INSTANCE: Final = {
    "POST /api/messages/text",
    "POST /api/messages/send",
    "POST /api/messages/location",
    "POST /api/messages/contact",
    "POST /api/messages/poll",
    "POST /api/messages/reaction",
    "POST /api/messages/read",
    "POST /api/messages/image",
    "POST /api/messages/video",
    "POST /api/messages/audio",
    "POST /api/messages/voice",
    "POST /api/messages/document",
    "POST /api/messages/sticker",
    "POST /api/chats/presence",
    "POST /api/contacts/check",
}
"""Routes whose body names the instance, as ``instanceId``."""

OF_INSTANCE: Final = {"instance", "message", "media", "instance key", "phone mapping"}
"""What nobody sees who does not see the instance."""

OF_A_KEY: Final = {"/api/webhook", "/api/webhook/test"}
"""Routes about the instance of the calling key, which lead people nowhere."""

ABSENT: Final = {"POST /api/workers"}
"""Routes about what is not there in this test, for anybody."""

EVERYBODYS: Final = ("/api/admin/", "/api/dead-letters", "/api/audit-logs", "/api/workers")
"""Where operators see what belongs to all organizations."""

_FILE: Final = {"to": "+12025550199", "base64": PICTURE}
BODIES: Final[dict[str, Any]] = {
    "POST /api/auth/deactivate": {"currentPassword": "x"},
    "POST /api/team/members": {"email": "new@example.com", "name": "New", "role": "agent"},
    "PUT /api/team/members/{userId}": {"name": "Another"},
    "POST /api/team/keys": {"name": "x"},
    "PUT /api/admin/organizations/{id}": {"plan": "pro"},
    "POST /api/admin/broadcast": {"message": "Hello"},
    "POST /api/instances": {"name": "x", "engine": "sandbox"},
    "PUT /api/instances/{id}": {"name": "x"},
    "POST /api/instances/{id}/keys": {"name": "x"},
    "PUT /api/instances/{id}/keys/{keyId}": {"name": "x"},
    "POST /api/instances/{id}/pairing-code": {"phoneNumber": "+12025550199"},
    "PUT /api/instances/{id}/guard": {"perMinute": 3},
    "POST /api/instances/{id}/phone-mappings": {
        "phoneNumber": "+12025550142",
        "userId": "{member}",
    },
    "POST /api/instances/{id}/groups": {"name": "x", "members": ["+12025550199"]},
    "POST /api/instances/{id}/groups/{group}/members": {
        "change": "add",
        "members": ["+12025550199"],
    },
    "POST /api/groups": {"name": "x", "members": ["+12025550199"]},
    "POST /api/instances/{id}/send-message": {"to": "+12025550199", "message": "x"},
    "POST /api/instances/{id}/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "PUT /api/instances/{id}/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "POST /api/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "PUT /api/webhook": {"url": "http://127.0.0.1:9999/hook"},
    "POST /api/sandbox/instances/{id}/inbound": {"from": "+12025550199", "message": "x"},
    "POST /api/media": {"base64": PICTURE},
    "POST /api/messages/text": {"to": "+12025550199", "message": "x"},
    "POST /api/messages/send": {"to": "+12025550199", "message": "x"},
    "PUT /api/messages/{id}": {"message": "x"},
    **{
        f"POST /api/messages/{kind}": _FILE
        for kind in ("image", "video", "audio", "voice", "document", "sticker")
    },
}
"""Bodies with which an answer is about access and not about the body; a route without one is
called with the example of its description. What stands in braces is one of ``House.named``.
"""

# Of which it says nothing that they have changed: they are written beside what is asked.
_BESIDE: Final = frozenset({"gateway.audit_logs", "gateway.outbox", "gateway.events"})
# Longer than any replica remembers a credential.
_FORGOTTEN: Final = timedelta(seconds=6)


@dataclass(frozen=True)
class Call:
    """One route, under one of its paths."""

    route: Route
    path: str

    @property
    def key(self) -> str:
        """The route's name."""
        return f"{self.route.method} {self.route.path}"

    @property
    def who(self) -> Who:
        """Whom it is for."""
        assert self.route.permission is not None
        needs = Needs(self.route.permission)
        assert needs in WHO, f"{self.key}: say in WHO whom Needs.{needs.name} is for"
        return WHO[needs]

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.route.method != "GET"

    def names(self) -> list[str]:
        """What its path and its body name."""
        found = []
        for step in re.finditer(r"\{\w+\}", self.path):
            until = self.path[: step.end()]
            fitting = [one for one in NAMED if until.endswith(f"/{one}")]
            assert fitting, f"{self.key}: say in NAMED what {until} names"
            found.append(NAMED[max(fitting, key=len)])
        return [*found, "instance"] if self.key in BY_INSTANCE else found

    def filled(self, house: House, *, unknown: bool = False) -> str:
        """The path for what a house has, or for what nobody has."""
        path = self.path
        for name in self.names()[: path.count("{")]:
            value = house.named[name] if not unknown or name == "group" else str(new_id())
            path = re.sub(r"\{\w+\}", value, path, count=1)
        return path

    def may(self, caller: Caller) -> bool:
        """Whether the route is open to somebody at all."""
        if caller.out is not None:
            return False
        if caller.grants is not None:
            return self.who.key in caller.grants
        return caller.role in self.who.people and (caller.login or not self.who.login)

    def finds(self, caller: Caller) -> bool:
        """Whether what is named is there for somebody, if they may call at all."""
        if self.path in OF_A_KEY and caller.grants is None:
            return False
        return all(_seen(name, caller) for name in self.names())


def _seen(name: str, caller: Caller) -> bool:
    if name == "organization":
        return caller.role == "operator"
    if name == "dead letter":
        return caller.role == "operator" or (caller.role == "admin" and not caller.foreign)
    if name == "group":
        return True
    if caller.foreign or caller.role == "operator":
        return False
    if name == "user key":
        return caller.role in {"admin", "manager"}
    return caller.role in {"admin", "manager"} or caller.sees


class Matrix:
    """Calls, and looks at what came of it."""

    def __init__(self, gateway: Gateway, house: House, other: House, described: Any) -> None:
        self._gateway = gateway
        self._house = house
        self._other = other
        self._described = described
        self.tried = 0

    async def call(self, call: Call, caller: Caller, *, unknown: bool = False) -> Answer:
        """The route, asked about what the first house has, or about what nobody has."""
        self.tried += 1
        body = self.body(call, caller, unknown=unknown)
        path = call.filled(self._house, unknown=unknown)
        return await caller.customer.call(call.route.method, path, json=body)

    def body(self, call: Call, caller: Caller, *, unknown: bool = False) -> Any:
        """What is sent with a call that may change something."""
        if not call.changes:
            return None
        body = BODIES.get(call.key)
        if body is None:
            described = self._described["paths"][call.route.path][call.route.method.lower()]
            content = described.get("requestBody", {}).get("content", {})
            body = content.get("application/json", {}).get("example", {})
        named = {f"{{{name}}}": value for name, value in self._house.named.items()}
        if isinstance(body, dict):
            body = {name: named.get(str(value), value) for name, value in body.items()}
        if call.key == "POST /api/team/members" and caller.role == "operator":
            return {**body, "role": "operator"}
        if call.key in BY_INSTANCE:
            body = {
                name: value
                for name, value in body.items()
                if name not in {"sessionId", "replyTo", "mentions", "metadata"}
            }
            instance = str(new_id()) if unknown else self._house.named["instance"]
            return {**body, "instanceId": instance}
        return body

    async def check(self, call: Call, caller: Caller) -> None:
        """Call, and compare with what the contract says."""
        about = f"{call.route.method} {call.path} as {caller.name}"
        answer = await self.call(call, caller)
        told = f"{about}: {answer.status} {answer.body!r:.400}"
        if not call.may(caller):
            assert answer.status == (caller.out or (403 if caller.name != "nobody" else 401)), told
            assert set(answer.body) == {"success", "error"}, told
        elif not call.finds(caller):
            assert answer.status == 404, told
            unknown = await self.call(call, caller, unknown=True)
            assert _without_ids(answer) == _without_ids(unknown), told
        else:
            wrong = {401, 403, 500} if call.key in ABSENT else {401, 403, 404, 500}
            assert answer.status not in wrong, told
        self._hidden(call, caller, answer, told)

    def _hidden(self, call: Call, caller: Caller, answer: Answer, told: str) -> None:
        """Of the house that is not the caller's, nothing is in the answer but what they named.

        Nor is anything of an instance that they do not see.
        """
        if caller.role == "operator" and call.path.startswith(EVERYBODYS):
            return
        theirs = self._house if caller.foreign or caller.role == "operator" else self._other
        named = call.filled(self._house)
        text = json.dumps(answer.body) if not isinstance(answer.body, bytes) else ""
        hidden = theirs.marks()
        if not caller.sees and not caller.foreign:
            hidden |= {self._house.named[name] for name in OF_INSTANCE}
        seen = {mark for mark in hidden if mark in text and mark not in named}
        assert not seen, f"{told}\nshows what is hidden from them: {seen}"


def _without_ids(answer: Answer) -> Any:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", json.dumps(answer.body))
    return answer.status, re.sub(r'"requestId": "[^"]*"', "", text)


class World:
    """What is in the database: to be compared, and to be put back."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tables: list[str] = []

    async def keep(self) -> None:
        """Remember how it is now."""
        sql = self._gateway.sql
        found = await sql.fetch(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname"
            " IN ('gateway', 'dispatcher', 'sessions', 'webhooks', 'stats') ORDER BY 1"
        )
        self._tables = [table for (table,) in found]
        await sql.execute("CREATE SCHEMA kept")
        for name in self._tables:
            await sql.execute(f"CREATE TABLE {_kept(name)} AS TABLE {name}")

    async def look(self) -> dict[str, str]:
        """A sum of every table, but for how keys were used."""
        sums = " UNION ALL ".join(
            f"SELECT '{name}', coalesce(md5(string_agg(row, '|' ORDER BY row)), '') FROM"
            " (SELECT (to_jsonb(t) - 'last_used_at' - 'requests' - 'successes')::text AS row"
            f" FROM {name} t) AS r"
            for name in self._tables
            if name not in _BESIDE
        )
        return {row[0]: row[1] for row in await self._gateway.sql.fetch(sums)}

    async def restore(self) -> None:
        """Put back what was remembered, and let everything be forgotten that was cached."""
        sql = self._gateway.sql
        statements = [
            f"DELETE FROM {name};"
            f" INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM {_kept(name)};"
            for name in self._tables
        ]
        # A loop of the gateway may write to two of the tables in another order meanwhile: of those
        # that then wait for one another PostgreSQL ends one, which is as often this.
        for attempt in range(5):
            try:
                async with sql.transaction():
                    await sql.execute(
                        "SET LOCAL session_replication_role = replica;" + "".join(statements)
                    )
                break
            except asyncpg.DeadlockDetectedError:
                if attempt == 4:
                    raise
        self._gateway.clock.move(_FORGOTTEN)

    def commands(self) -> int:
        """How many commands other services were given."""
        return sum(message.type in COMMANDS for message in self._gateway.heard.messages)


def _kept(name: str) -> str:
    return "kept." + name.replace(".", "__")


def calls() -> list[Call]:
    """Every route under every path, but for those that are open to anybody."""
    return [
        Call(route, path)
        for route in declared()
        if route.permission is not None
        for path in route.paths()
    ]


def callers_of(house: House, other: House, platform: House, more: Iterable[House]) -> list[Caller]:
    """Everybody, as seen from the first house."""
    return [
        *house.callers,
        *(replace(one, name=f"foreign {one.name}", foreign=True) for one in other.callers),
        *platform.callers,
        *(replace(one, foreign=True) for house in more for one in house.callers),
    ]


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
