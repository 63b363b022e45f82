"""Routes and callers, and what the contract says of each pair: what the role matrix walks by."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import asyncpg

from services.gateway.api.schemas.outbound import ByInstance
from services.gateway.domain.access import Needs
from shared.contracts.commands import COMMANDS
from shared.ids import new_id
from shared.web.routes import Route
from tests.support import samples
from tests.support.customer import Answer
from tests.support.gateway import Gateway
from tests.support.houses import GROUP, PICTURE, Caller, House
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
    "GET /api/webhooks/whatsapp",
    "POST /api/webhooks/whatsapp",
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

# What examples name beside what the route is about: test_role_matrix_references.py looks at these.
_LEFT_OUT: Final = frozenset({"instanceId", "sessionId", "replyTo", "mentions", "metadata"})

OF_INSTANCE: Final = {"instance", "message", "media", "instance key", "phone mapping"}
"""What nobody sees who does not see the instance."""

OF_A_KEY: Final = {"/api/webhook", "/api/webhook/test"}
"""Routes about the instance of the calling key, which lead people nowhere."""

OTHERWISE: Final = {
    "DELETE /api/messages/{id}": "CONFLICT",  # it is queued, and not sent yet
    "PUT /api/messages/{id}": "CONFLICT",
    "POST /api/messages/reaction": "VALIDATION_FAILED",  # its example names no message of here
    "POST /api/messages/read": "VALIDATION_FAILED",
    "GET /api/instances/{id}/qr": "CONFLICT",  # it is connected
    "POST /api/instances/{id}/pairing-code": "CONFLICT",
    "POST /api/instances/{id}/webhook": "CONFLICT",  # it has one
    "POST /api/webhook": "CONFLICT",
    "POST /api/auth/change-password": "VALIDATION_FAILED",  # nobody here has a password
    "POST /api/auth/deactivate": "VALIDATION_FAILED",
    "POST /api/dead-letters/{id}/requeue": "CONFLICT",  # nothing opens what is in it
    "POST /api/workers": "NOT_FOUND",  # there is none
    # No session answers.
    "GET /api/instances/{id}/profile": "ENGINE_UNAVAILABLE",
    "POST /api/contacts/check": "ENGINE_UNAVAILABLE",
    **{
        f"{method} {groups}{path}": code
        for groups in ("/api/groups", "/api/instances/{id}/groups")
        for method, path, code in (
            ("GET", "", "ENGINE_UNAVAILABLE"),
            ("POST", "", "UNCONFIRMED"),
            ("GET", "/{group}", "ENGINE_UNAVAILABLE"),
            ("DELETE", "/{group}", "UNCONFIRMED"),
            ("POST", "/{group}/members", "UNCONFIRMED"),
            ("GET", "/{group}/invite-link", "ENGINE_UNAVAILABLE"),
            ("POST", "/{group}/invite-link", "UNCONFIRMED"),
        )
    },
}
"""What is answered instead of a success to whoever may call, because of how things are here."""

EVERYBODYS: Final = ("/api/admin/", "/api/dead-letters", "/api/audit-logs", "/api/workers")
"""Where operators see what belongs to all organizations."""

FILES: Final = {
    "image": samples.png(),
    "video": samples.MP4,
    "audio": samples.MP3,
    "voice": samples.VOICE,
    "document": samples.PDF,
    "sticker": samples.WEBP,
}
"""A file of each kind that is sent."""

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
        f"POST /api/messages/{kind}": {
            "to": "+12025550199",
            "base64": base64.b64encode(file).decode(),
        }
        for kind, file in FILES.items()
    },
}
"""Bodies with which an answer is about access and not about the body; a route without one is
called with the example of its description. What stands in braces is one of ``House.named``.
"""

_REFUSED: Final = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}
# Of which it says nothing that they have changed: they are written beside what is asked.
_BESIDE: Final = frozenset({"gateway.audit_logs", "gateway.outbox", "gateway.events"})
# What came with a refused message and is forgotten again leaves a row that says so.
_COUNTED: Final = {"gateway.media": "deleted_at IS NULL"}
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

    @property
    def by_instance(self) -> bool:
        """Whether its body names the instance that it is about."""
        body = self.route.request
        return body is not None and issubclass(body, ByInstance) and "{" not in self.path

    def names(self) -> list[str]:
        """What its path and its body name."""
        found = []
        for step in re.finditer(r"\{\w+\}", self.path):
            until = self.path[: step.end()]
            fitting = [one for one in NAMED if until.endswith(f"/{one}")]
            assert fitting, f"{self.key}: say in NAMED what {until} names"
            found.append(NAMED[max(fitting, key=len)])
        return [*found, "instance"] if self.by_instance else found

    def filled(self, house: House, *, unknown: bool = False) -> str:
        """The path for what a house has, or for what nobody has."""
        if not unknown:
            return self.filled_by(house.named)
        return self.filled_by({**{name: str(new_id()) for name in house.named}, "group": GROUP})

    def filled_by(self, named: Mapping[str, str]) -> str:
        """The path for what is called so here."""
        path = self.path
        for name in self.names()[: path.count("{")]:
            path = re.sub(r"\{\w+\}", named[name], path, count=1)
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
        named = self._house.named
        if unknown:
            named = {**named, "instance": str(new_id())}
        body = self.body(call, caller, named) if call.changes else None
        path = call.filled(self._house, unknown=unknown)
        return await caller.customer.call(call.route.method, path, json=body)

    def body(self, call: Call, caller: Caller, named: Mapping[str, str]) -> dict[str, Any]:
        """A body with which the answer is about access, for somebody to whom things are so named.

        It names nothing but the instance, where that is what the route is about.
        """
        body = BODIES.get(call.key)
        if body is None:
            content = self._operation(call).get("requestBody", {}).get("content", {})
            body = content.get("application/json", {}).get("example", {})
        if call.key == "POST /api/team/members" and caller.role == "operator":
            return {**body, "role": "operator"}
        braced = {f"{{{name}}}": value for name, value in named.items()}
        body = {name: braced.get(str(value), value) for name, value in body.items()}
        if call.by_instance:
            body = {name: value for name, value in body.items() if name not in _LEFT_OUT}
            if "instance" in named:
                body["instanceId"] = named["instance"]
        return body

    def _operation(self, call: Call) -> Any:
        """The route as it is described."""
        return self._described["paths"][call.route.path][call.route.method.lower()]

    async def check(self, call: Call, caller: Caller) -> None:
        """Call, and compare with what the contract says."""
        about = f"{call.route.method} {call.path} as {caller.name}"
        answer = await self.call(call, caller)
        told = f"{about}: {answer.status} {answer.body!r:.400}"
        if not call.may(caller):
            out = caller.out or 403
            assert (answer.status, answer.code) == (out, _REFUSED[out]), told
            assert set(answer.body) == {"success", "error"}, told
        elif not call.finds(caller):
            assert (answer.status, answer.code) == (404, _REFUSED[404]), told
            unknown = await self.call(call, caller, unknown=True)
            assert without_ids(answer) == without_ids(unknown), told
        else:
            code = None if answer.status < 300 else answer.code
            assert code == OTHERWISE.get(call.key), told
            assert str(answer.status) in self._operation(call)["responses"], f"{told}: undeclared"
        self.hidden(call, caller, answer, told)

    def hidden(
        self, call: Call, caller: Caller, answer: Answer, told: str, *, named: str = ""
    ) -> None:
        """Of the house that is not the caller's, nothing is in the answer but what they named.

        Nor is anything of an instance that they do not see.
        """
        if caller.role == "operator" and call.path.startswith(EVERYBODYS):
            return
        theirs = self._house if caller.foreign or caller.role == "operator" else self._other
        named = f"{call.filled(self._house)} {named}"
        text = json.dumps(answer.body) if not isinstance(answer.body, bytes) else ""
        hidden = theirs.marks()
        if not caller.sees and not caller.foreign:
            hidden |= {self._house.named[name] for name in OF_INSTANCE}
        seen = {mark for mark in hidden if mark in text and mark not in named}
        assert not seen, f"{told}\nshows what is hidden from them: {seen}"


def without_ids(answer: Answer) -> Any:
    """What was answered, but for what differs each time."""
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
            f" FROM {name} t WHERE {_COUNTED.get(name, 'true')}) AS r"
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
