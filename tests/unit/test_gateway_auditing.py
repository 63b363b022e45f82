"""What the audit log holds, and what it leaves out."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from services.gateway.api.auditing import UNAUDITED
from services.gateway.domain.auditing import BEYOND_ROUTES, ActorKind, Security, actor_of
from services.gateway.domain.permissions import ROLES, Role
from services.gateway.domain.principal import Principal, PrincipalKind
from services.gateway.domain.redaction import changed, redacted
from shared.ids import new_id
from tests.support.routes import declared

CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
ACTION = re.compile(r"[a-z_]+(\.[a-z_]+)+")
UUID = "018f3b2e-0000-7000-8000-000000000070"


def name_of(route: Any) -> str:
    return f"{route.method} {route.path}"


def test_every_route_that_changes_something_is_audited_or_says_why_not() -> None:
    missing = [
        name_of(route)
        for route in declared()
        if route.method in CHANGING and route.audited is None and name_of(route) not in UNAUDITED
    ]
    assert not missing, "declare audited=… and call note(), or give a reason in UNAUDITED"


def test_what_is_excused_exists_and_is_not_audited_all_the_same() -> None:
    routes = {name_of(route): route for route in declared()}
    assert set(UNAUDITED) <= set(routes)
    assert not [name for name in UNAUDITED if routes[name].audited]


def test_actions_are_dotted_words_and_nothing_that_only_reads_has_one() -> None:
    for route in declared():
        if route.audited is not None:
            assert ACTION.fullmatch(route.audited), route.audited
            assert route.method in CHANGING, name_of(route)
            assert route.audited not in BEYOND_ROUTES
    assert all(ACTION.fullmatch(action) for action in BEYOND_ROUTES)
    assert set(Security) <= set(BEYOND_ROUTES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "an example passphrase"),
        ("newPassword", "an example passphrase"),
        ("accessToken", "short"),
        ("app_secret", "short"),
        ("verifyToken", "short"),
        ("apiKey", "short"),
        ("privateKey", "short"),
        ("key", "short"),
        ("keyHash", "00ff"),
        ("Authorization", "Basic YTpi"),
        ("secrets", ["a", "b"]),
        ("credentials", {"user": "a"}),
    ],
)
def test_a_secret_is_told_by_the_name_of_its_field(name: str, value: object) -> None:
    assert redacted({name: value}) == {name: "***"}
    assert redacted({"settings": {name: value}}) == {"settings": {name: "***"}}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("api_" + "x7" * 22, "***"),
        ("rt_" + "x7" * 22, "***"),
        ("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "***"),
        ("Bearer abcdefghijkl", "Bearer ***"),
        ("EAAG" + "m0PX4ZCpsBA" * 6, "***"),
        ("d34db33f" * 8, "***"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "***"),
        ("https://ada:hunter2@example.com/a", "https://***@example.com/a"),
        ("https://token@example.com/a", "https://***@example.com/a"),
        ("socks5://ada:hunter2@10.0.0.1:1080", "socks5://***@10.0.0.1:1080"),
        ("https://example.com/a?code=abc#d", "https://example.com/a?***"),
        ("+4915112345678", "***78"),
        ("4915112345678@s.whatsapp.net", "***78@s.whatsapp.net"),
        (UUID, UUID),
        ("Shop in the old town", "Shop in the old town"),
        ("the-campaign-of-the-late-autumn-2026", "the-campaign-of-the-late-autumn-2026"),
        ("x" * 20 + " y" * 200, ("x" * 20 + " y" * 200)[:299] + "…"),
    ],
)
def test_a_secret_is_told_by_its_shape_wherever_it_stands(value: str, kept: str) -> None:
    assert redacted({"name": value}) == {"name": kept}
    assert redacted({"name": {"deep": [value]}}) == {"name": {"deep": [kept]}}


def test_what_is_no_secret_stays_as_it_is() -> None:
    facts = {"keyId": UUID, "active": True, "tokens": None, "perDay": 1000, "ratio": 0.5}
    assert redacted(facts) == facts


def test_a_time_is_written_as_every_time_that_is_shown() -> None:
    east = timezone(timedelta(hours=2))
    at = datetime(2027, 12, 1, 16, 53, 55, 287345, tzinfo=east)
    assert redacted({"expiresAt": at, "in": [at]}) == {
        "expiresAt": "2027-12-01T14:53:55.287Z",
        "in": ["2027-12-01T14:53:55.287Z"],
    }


def test_what_is_kept_has_an_end() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(50):
        inner["in"] = {}
        inner = inner["in"]
    assert len(str(redacted(deep))) < 100
    assert len(redacted({"list": list(range(1000))})["list"]) == 50  # type: ignore[arg-type]
    assert len(redacted({f"f{n}": n for n in range(1000)})) == 50


def test_of_a_change_only_the_difference_is_kept_and_a_new_secret_shows_as_one() -> None:
    before = {"name": "Shop", "engine": "sandbox", "settings": {"token": "a"}, "gone": 1}
    after = {"name": "Stall", "engine": "sandbox", "settings": {"token": "b"}, "new": 2}
    was, is_ = changed(before, after)
    assert redacted(was) == {"name": "Shop", "settings": {"token": "***"}, "gone": 1}
    assert redacted(is_) == {"name": "Stall", "settings": {"token": "***"}, "new": 2}


def test_everybody_acts_as_what_they_are() -> None:
    def principal(**given: Any) -> Principal:
        role = given.get("role", Role.ADMIN)
        return Principal(
            kind=PrincipalKind.USER,
            tenant_id=new_id(),
            permissions=ROLES[role],
            limit_key="x",
            **given,
        )

    assert actor_of(principal(role=Role.AGENT, user_id=new_id())).kind is ActorKind.USER
    assert actor_of(principal(role=Role.OPERATOR, user_id=new_id())).kind is ActorKind.OPERATOR
    user_key = actor_of(principal(role=Role.ADMIN, user_id=new_id(), key_id=new_id()))
    assert user_key.kind is ActorKind.USER_KEY
    instance = new_id()
    assert actor_of(principal(instance_id=instance)).kind is ActorKind.INSTANCE_KEY
