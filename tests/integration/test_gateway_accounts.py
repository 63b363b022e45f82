"""Accounts: who may come in, and how long they may stay."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.gateway import PASSWORD, Gateway

ADA = "ada@example.com"


async def login(gateway: Gateway, password: str = PASSWORD, email: str = ADA) -> Any:
    return await gateway.stranger().post("/api/auth/login", {"email": email, "password": password})


async def test_a_new_account_has_an_organization_and_is_logged_in(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    assert account["expiresIn"] == 900
    assert account["organization"]["plan"] == "basic"
    assert account["user"]["role"] == "admin"
    assert account["user"]["organizationId"] == account["organization"]["id"]
    me = (await ada.get("/api/auth/me")).data
    assert me["user"] == account["user"]
    assert me["organization"] == account["organization"]
    assert "can_send_messages" in me["permissions"]


async def test_passwords_and_refresh_tokens_are_not_kept(gateway: Gateway) -> None:
    _, account = await gateway.register()
    kept = await gateway.row("SELECT * FROM gateway.users")
    assert kept["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in str(kept)
    token = await gateway.sql.fetchval("SELECT token_hash FROM gateway.refresh_tokens")
    assert len(token) == 32
    assert account["refreshToken"].encode() not in token


async def test_an_address_has_one_account_however_it_is_written(gateway: Gateway) -> None:
    await gateway.register()
    before = await gateway.rows()
    again = await gateway.stranger().post(
        "/api/auth/register",
        {"email": " ADA@Example.com", "password": PASSWORD, "name": "Impostor"},
    )
    assert (again.status, again.code) == (409, "CONFLICT")
    assert await gateway.rows() == before


WRONG: list[tuple[dict[str, object], str]] = [
    ({"email": "nobody"}, "email"),
    ({"email": None}, "email"),
    ({"password": "short"}, "password"),
    ({"password": 12345678}, "password"),
    ({"name": " "}, "name"),
    ({"organizationName": "x" * 101}, "organizationName"),
    ({"role": "operator"}, "role"),
]


async def test_a_registration_that_is_wrong_leaves_nothing(gateway: Gateway) -> None:
    good = {"email": ADA, "password": PASSWORD, "name": "Ada"}
    for wrong, field in WRONG:
        refused = await gateway.stranger().post("/api/auth/register", {**good, **wrong})
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == [field]
        assert PASSWORD not in str(refused.body)
        assert not any((await gateway.rows()).values())


async def test_a_user_logs_in_by_address_and_password(gateway: Gateway) -> None:
    _, account = await gateway.register()
    answer = await login(gateway, email="Ada@Example.COM")
    assert answer.data["user"] == account["user"]
    assert (await gateway.with_token(answer.data["token"]).get("/api/auth/me")).status == 200


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(gateway: Gateway) -> None:
    await gateway.register()
    wrong = await login(gateway, "not the passphrase")
    unknown = await login(gateway, email="nobody@example.com")
    assert (wrong.status, wrong.code) == (401, "UNAUTHORIZED")
    assert wrong.body["error"]["message"] == unknown.body["error"]["message"]
    assert wrong.status == unknown.status
    assert wrong.headers["WWW-Authenticate"] == "Bearer"


async def test_a_user_who_was_deactivated_stays_out(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    await gateway.sql.execute("UPDATE gateway.users SET active = false")
    gateway.clock.move(timedelta(seconds=5))
    assert (await login(gateway)).status == 401
    assert (await ada.get("/api/auth/me")).status == 401
    refreshed = await gateway.stranger().post(
        "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
    )
    assert refreshed.status == 401


async def test_five_failures_close_the_door_even_for_the_right_password(gateway: Gateway) -> None:
    await gateway.register()
    statuses = [(await login(gateway, "wrong wrong")).status for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    locked = await login(gateway)
    assert (locked.status, locked.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert 0 < int(locked.headers["Retry-After"]) <= 900
    # Another account is none of this address's business yet.
    assert (await login(gateway, email="grace@example.com")).status == 401
    gateway.clock.move(timedelta(minutes=30))
    assert (await login(gateway)).status == 200


async def from_address(gateway: Gateway, address: str, password: str, email: str = ADA) -> Any:
    return await gateway.stranger().post(
        "/api/auth/login",
        {"email": email, "password": password},
        headers={"X-Forwarded-For": address},
    )


@pytest.fixture
async def proxied(database_url: str) -> AsyncIterator[Gateway]:
    """A gateway behind a proxy, with Ada, whom nine failures in all lock out."""
    async with gateway_support.running(
        database_url, trusted_proxies=1, login_attempts_account=9
    ) as gateway:
        await gateway.register()
        yield gateway


async def test_many_addresses_that_guess_together_are_stopped_and_the_owner_is_not(
    proxied: Gateway,
) -> None:
    home = "203.0.113.7"
    assert (await from_address(proxied, home, PASSWORD)).status == 200
    for email in (ADA, "nobody@example.com"):
        guesses = [
            (await from_address(proxied, f"198.51.100.{n}", f"guess no {n}", email)).status
            for n in range(11)
        ]
        # Whether there is such an account does not show.
        assert guesses == [401] * 9 + [429] * 2
    stranger = await from_address(proxied, "198.51.100.99", PASSWORD)
    assert (stranger.status, stranger.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert (await from_address(proxied, home, PASSWORD)).status == 200
    # From there one may err as often as ever, and no oftener.
    statuses = [(await from_address(proxied, home, "wrong wrong")).status for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    proxied.clock.move(timedelta(minutes=31))
    assert (await from_address(proxied, "198.51.100.99", PASSWORD)).status == 200


async def test_an_address_that_tries_many_accounts_is_stopped_and_who_is_known_there_is_not(
    database_url: str,
) -> None:
    async with gateway_support.running(
        database_url, trusted_proxies=1, login_attempts_address=7
    ) as gateway:
        await gateway.register()
        await gateway.register("grace@example.com")
        shared = "203.0.113.7"
        assert (await from_address(gateway, shared, PASSWORD)).status == 200
        guesses = [
            (await from_address(gateway, shared, "guess", f"{n}@example.com")).status
            for n in range(9)
        ]
        assert guesses == [401] * 7 + [429] * 2
        refused = await from_address(gateway, shared, PASSWORD, "grace@example.com")
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        # An administrator unlocks accounts, not addresses.
        assert "from another address" in refused.body["error"]["message"]
        assert "unlock" not in refused.body["error"]["message"]
        assert (await from_address(gateway, shared, PASSWORD)).status == 200
        elsewhere = await from_address(gateway, "198.51.100.1", PASSWORD, "grace@example.com")
        assert elsewhere.status == 200
        gateway.clock.move(timedelta(minutes=31))
        assert (await from_address(gateway, shared, "guess", "8@example.com")).status == 401


async def test_an_address_that_was_used_long_ago_is_familiar_no_more(proxied: Gateway) -> None:
    assert (await from_address(proxied, "203.0.113.7", PASSWORD)).status == 200
    proxied.clock.move(timedelta(days=91))
    for n in range(9):
        await from_address(proxied, f"198.51.100.{n}", "wrong wrong")
    assert (await from_address(proxied, "203.0.113.7", PASSWORD)).status == 429


async def test_an_admin_lets_in_a_member_who_was_locked_out(gateway: Gateway) -> None:
    admin, account = await gateway.register()
    member = new_id()
    await gateway.sql.execute(
        "INSERT INTO gateway.users (id, tenant_id, email, name, password_hash, role, active,"
        " created_at) SELECT $1, tenant_id, 'bob@example.com', 'Bob', password_hash, 'agent', true,"
        " created_at FROM gateway.users",
        member,
    )
    path = f"/api/team/members/{member}/unlock"
    for _ in range(6):
        await login(gateway, "wrong wrong", "bob@example.com")
    assert (await login(gateway, email="bob@example.com")).status == 429
    assert (await admin.post(path)).data == {"id": str(member), "unlocked": True}
    bob = await login(gateway, email="bob@example.com")
    assert bob.status == 200
    assert (await gateway.with_token(bob.data["token"]).post(path)).status == 403
    # It forgives what was, and not what comes.
    statuses = [(await login(gateway, "wrong", "bob@example.com")).status for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    other, _ = await gateway.register("grace@example.com")
    for missing in (path, f"/api/team/members/{new_id()}/unlock"):
        assert (await other.post(missing)).status == 404
    assert account["user"]["id"] != str(member)


async def test_a_password_that_is_guessed_first_is_refused(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    for password in (
        "password123",
        "Password123",
        "aaaaaaaa",
        "qwertyuiop",
        ADA,
        "ADA@example.com",
    ):
        new = {"email": "grace@example.com", "password": password, "name": "Grace"}
        if "@" in password:
            new["email"] = ADA
        refused = await gateway.stranger().post("/api/auth/register", new)
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), password
        assert list(refused.body["error"]["data"]["fields"]) == ["password"]
        body = {"currentPassword": PASSWORD, "newPassword": password}
        refused = await ada.post("/api/auth/change-password", body)
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED"), password
        assert list(refused.body["error"]["data"]["fields"]) == ["newPassword"]


async def test_who_is_invited_chooses_a_good_password_and_may_choose_again(
    gateway: Gateway,
) -> None:
    ada, _ = await gateway.register()
    invited = await ada.post("/api/team/members", {"email": "grace@example.com", "name": "Grace"})
    token = invited.data["invitation"]["token"]
    for password in ("password123", "grace@example.com"):
        refused = await gateway.stranger().post(
            "/api/auth/accept-invitation", {"token": token, "password": password}
        )
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert list(refused.body["error"]["data"]["fields"]) == ["password"]
    accepted = await gateway.stranger().post(
        "/api/auth/accept-invitation", {"token": token, "password": PASSWORD}
    )
    assert accepted.status == 200


async def test_an_address_is_the_same_however_its_letters_are_composed(gateway: Gateway) -> None:
    composed, decomposed = "jos\u00e9@example.com", "Jose\u0301@Example.com"
    await gateway.register(composed)
    assert (await login(gateway, email=decomposed)).status == 200
    body = {"email": decomposed, "password": PASSWORD, "name": "Impostor"}
    assert (await gateway.stranger().post("/api/auth/register", body)).status == 409
    for unseen in ("ada\u200b@example.com", "ada\u202e@example.com", "a\u0007da@example.com"):
        refused = await gateway.stranger().post("/api/auth/register", {**body, "email": unseen})
        assert refused.status == 422, ascii(unseen)


async def test_guesses_at_the_same_time_are_counted_one_by_one(gateway: Gateway) -> None:
    await gateway.register()
    answers = await asyncio.gather(*(login(gateway, f"guess no {n}") for n in range(12)))
    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 7


async def test_logging_in_rightly_does_not_count_against_anybody(gateway: Gateway) -> None:
    await gateway.register()
    assert {(await login(gateway)).status for _ in range(7)} == {200}


async def test_an_access_token_expires_and_is_refreshed(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    gateway.clock.move(timedelta(minutes=16))
    expired = await ada.get("/api/auth/me")
    assert expired.status == 401
    assert "refresh" in expired.body["error"]["message"]
    refreshed = await gateway.stranger().post(
        "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
    )
    assert refreshed.data["user"] == account["user"]
    assert refreshed.data["refreshToken"] != account["refreshToken"]
    assert (await gateway.with_token(refreshed.data["token"]).get("/api/auth/me")).status == 200


async def test_a_refresh_token_that_is_used_twice_ends_the_login(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    stranger = gateway.stranger()
    first = await stranger.post("/api/auth/refresh", {"refreshToken": account["refreshToken"]})
    second = await stranger.post("/api/auth/refresh", {"refreshToken": account["refreshToken"]})
    assert (second.status, second.code) == (401, "UNAUTHORIZED")
    thief = await stranger.post("/api/auth/refresh", {"refreshToken": first.data["refreshToken"]})
    assert thief.status == 401
    assert (await ada.get("/api/auth/me")).status == 401
    assert (await gateway.with_token(first.data["token"]).get("/api/auth/me")).status == 401


async def test_of_two_who_refresh_at_the_same_time_one_gets_through(gateway: Gateway) -> None:
    _, account = await gateway.register()
    body = {"refreshToken": account["refreshToken"]}
    answers = await asyncio.gather(
        *(gateway.stranger().post("/api/auth/refresh", body) for _ in range(2))
    )
    assert sorted(answer.status for answer in answers) == [200, 401]


async def test_a_refresh_token_expires(gateway: Gateway) -> None:
    _, account = await gateway.register()
    gateway.clock.move(timedelta(days=8))
    refused = await gateway.stranger().post(
        "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
    )
    assert refused.status == 401


async def test_what_is_no_refresh_token_is_refused(gateway: Gateway) -> None:
    for token in ("", "rt_", "rt_" + "x" * 43, "nonsense", "ä" * 10):
        refused = await gateway.stranger().post("/api/auth/refresh", {"refreshToken": token})
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED"), token


async def test_logging_out_ends_the_login_at_once_and_no_other(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    other = gateway.with_token((await login(gateway)).data["token"])
    assert (await ada.post("/api/auth/logout")).status == 200
    assert (await ada.get("/api/auth/me")).status == 401
    refreshed = await gateway.stranger().post(
        "/api/auth/refresh", {"refreshToken": account["refreshToken"]}
    )
    assert refreshed.status == 401
    assert (await other.get("/api/auth/me")).status == 200


async def test_a_new_password_ends_all_other_logins(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    other = gateway.with_token((await login(gateway)).data["token"])
    assert (await other.get("/api/auth/me")).status == 200
    changed = await ada.post(
        "/api/auth/change-password",
        {"currentPassword": PASSWORD, "newPassword": "quite another one"},
    )
    assert changed.data == {"otherLoginsEnded": 1}
    assert (await ada.get("/api/auth/me")).status == 200
    assert (await other.get("/api/auth/me")).status == 401
    assert (await login(gateway)).status == 401
    assert (await login(gateway, "quite another one")).status == 200


async def test_the_password_is_not_changed_without_the_current_one(gateway: Gateway) -> None:
    ada, _ = await gateway.register()
    body = {"currentPassword": "a guess", "newPassword": "quite another one"}
    refused = await ada.post("/api/auth/change-password", body)
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert list(refused.body["error"]["data"]["fields"]) == ["currentPassword"]
    assert (await login(gateway)).status == 200
    for _ in range(4):
        await ada.post("/api/auth/change-password", body)
    assert (await ada.post("/api/auth/change-password", body)).status == 429


async def test_a_registration_that_is_sent_twice_makes_one_account(gateway: Gateway) -> None:
    body = {"email": ADA, "password": PASSWORD, "name": "Ada"}
    headers = {"Idempotency-Key": "first"}
    stranger = gateway.stranger()
    first = await stranger.post("/api/auth/register", body, headers=headers)
    again = await stranger.post("/api/auth/register", body, headers=headers)
    assert again.status == 201
    assert again.data == first.data
    assert await gateway.count("gateway.users") == 1
    other = {**body, "password": "another passphrase"}
    guessed = await stranger.post("/api/auth/register", other, headers=headers)
    assert (guessed.status, guessed.code) == (422, "IDEMPOTENCY_MISMATCH")


async def test_users_are_limited_and_told_how_much_is_left(database_url: str) -> None:
    async with gateway_support.running(database_url, limit_user_minute=3) as gateway:
        ada, _ = await gateway.register()
        answers = [await ada.get("/api/auth/me") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == [
            "2",
            "1",
            "0",
            "0",
        ]
        assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"3"}
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 120


async def test_strangers_are_limited_by_address(database_url: str) -> None:
    async with gateway_support.running(
        database_url, limit_address_minute=3, trusted_proxies=1
    ) as gateway:
        stranger = gateway.stranger()

        async def ask(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded, "X-API-Key": "api_" + "x" * 43}
            return (await stranger.get("/api/auth/me", headers=headers)).status

        assert [await ask("192.0.2.1") for _ in range(4)] == [401, 401, 401, 429]
        # What stands left of our own proxy's word is the stranger's invention.
        assert await ask("198.51.100.7, 192.0.2.1") == 429
        assert await ask("192.0.2.2") == 401


async def test_a_network_of_addresses_is_one_stranger(database_url: str) -> None:
    """Whoever has an address of IPv6 has 2^64 of them."""
    async with gateway_support.running(
        database_url, limit_address_minute=3, trusted_proxies=1
    ) as gateway:
        stranger = gateway.stranger()

        async def ask(address: str) -> int:
            headers = {"X-Forwarded-For": address, "X-API-Key": "api_" + "x" * 43}
            return (await stranger.get("/api/auth/me", headers=headers)).status

        asked = [await ask(f"2001:db8::{n:x}") for n in range(1, 5)]
        assert asked == [401, 401, 401, 429]
        assert await ask("2001:db8:0:1::1") == 401


async def test_a_network_of_addresses_has_the_failed_logins_of_one(proxied: Gateway) -> None:
    guesses = [
        (await from_address(proxied, f"2001:db8::{n:x}", f"guess no {n}")).status for n in range(6)
    ]
    assert guesses == [401] * 5 + [429]
