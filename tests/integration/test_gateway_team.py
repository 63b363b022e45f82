"""Teams: coming in by an invitation, changing roles, being assigned, leaving, and user keys."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.gateway.loops.notes import NoteKeyUse
from services.gateway.store import accounts, team
from services.gateway.store.keys import KeyUses
from shared.ids import new_id
from shared.security.passwords import Passwords
from shared.security.tokens import digest_of
from tests.support.builders import a_message_row, an_instance
from tests.support.customer import Customer
from tests.support.gateway import PASSWORD, Gateway

ANOTHER = "quite another passphrase"


@dataclass
class Person:
    """Somebody who came in by an invitation."""

    id: str
    email: str
    customer: Customer
    login: Any


@dataclass
class House:
    """An organization with an administrator and an instance."""

    gateway: Gateway
    admin: Customer
    admin_id: str
    tenant: UUID
    instance: UUID

    async def invited(self, role: str = "agent", by: Customer | None = None, **more: Any) -> Any:
        body = {"email": f"{new_id().hex}@example.com", "name": "Grace", "role": role, **more}
        answer = await (by or self.admin).post("/api/team/members", body)
        assert answer.status == 201, answer.body
        return answer.data

    async def accept(self, token: str, password: str = PASSWORD) -> Any:
        return await self.gateway.stranger().post(
            "/api/auth/accept-invitation", {"token": token, "password": password}
        )

    async def joined(self, role: str = "agent", by: Customer | None = None, **more: Any) -> Person:
        member = await self.invited(role, by, **more)
        login = (await self.accept(member["invitation"]["token"])).data
        customer = self.gateway.with_token(login["token"])
        return Person(member["id"], member["email"], customer, login)

    async def put(self, person: str, body: object, by: Customer | None = None) -> Any:
        path = f"/api/team/members/{person}"
        return await (by or self.admin).call("PUT", path, json=body)

    async def delete(self, path: str, by: Customer | None = None) -> Any:
        return await (by or self.admin).call("DELETE", path)

    async def login(self, email: str, password: str = PASSWORD) -> Any:
        return await self.gateway.stranger().post(
            "/api/auth/login", {"email": email, "password": password}
        )

    async def key(self, of: Customer, **given: Any) -> tuple[Customer, Any]:
        made = await of.post("/api/team/keys", {"name": "Reports", **given})
        assert made.status == 201, made.body
        return self.gateway.with_token(made.data["key"]), made.data


@pytest.fixture
async def house(gateway: Gateway) -> House:
    admin, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    return House(gateway, admin, account["user"]["id"], tenant, instance)


async def test_whoever_is_invited_chooses_a_password_and_is_in(house: House) -> None:
    member = await house.invited(instances=[str(house.instance)])
    assert (member["status"], member["role"]) == ("invited", "agent")
    token = member["invitation"]["token"]
    assert token.startswith("inv_")
    row = await house.gateway.row("SELECT * FROM gateway.invitations")
    assert row["token_hash"] == digest_of(token)
    assert (await house.login(member["email"])).status == 401
    assert (await house.accept(token, "password123")).status == 422
    grace = (await house.accept(token)).data
    assert grace["user"]["email"] == member["email"]
    customer = house.gateway.with_token(grace["token"])
    assert [one["id"] for one in (await customer.get("/api/instances")).data] == [
        str(house.instance)
    ]
    assert (await house.login(member["email"])).status == 200
    again = await house.accept(token, ANOTHER)
    assert (again.status, again.code) == (401, "UNAUTHORIZED")
    shown = (await house.admin.get(f"/api/team/members/{member['id']}")).data
    assert (shown["status"], shown["invitedUntil"]) == ("active", None)


async def test_whoever_registers_though_invited_is_told_of_the_invitation(house: House) -> None:
    member = await house.invited()
    refused = await house.gateway.stranger().post(
        "/api/auth/register", {"email": member["email"], "password": PASSWORD, "name": "Grace"}
    )
    assert (refused.status, refused.code) == (409, "CONFLICT")
    assert "invitation" in refused.body["error"]["message"]


async def test_an_invitation_is_no_credential_and_expires(house: House) -> None:
    token = (await house.invited())["invitation"]["token"]
    refused = await house.gateway.with_token(token).get("/api/auth/me")
    assert refused.status == 401
    assert "accept-invitation" in refused.body["error"]["message"]
    house.gateway.clock.move(timedelta(hours=72))
    assert (await house.accept(token)).status == 401


async def test_two_who_use_one_invitation_at_once_do_not_both_get_in(house: House) -> None:
    token = (await house.invited())["invitation"]["token"]
    answers = await asyncio.gather(*(house.accept(token) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]


async def test_an_address_is_free_again_once_its_invitation_has_expired(house: House) -> None:
    member = await house.invited(email="mary@example.com")
    body = {"email": member["email"], "password": PASSWORD, "name": "Grace"}
    register = "/api/auth/register"
    assert (await house.gateway.stranger().post(register, body)).status == 409
    house.gateway.clock.move(timedelta(hours=72))
    assert (await house.gateway.stranger().post(register, body)).status == 201
    assert (await house.admin.get(f"/api/team/members/{member['id']}")).status in {401, 404}
    # Whose member it was is told, and not who has the address now.
    gone = await house.gateway.row(
        "SELECT tenant_id, actor_type, user_id, resource_type, resource_id, before, after, address"
        " FROM gateway.audit_logs WHERE action = 'member.removed'"
    )
    assert orjson.loads(gone.pop("before")) == {
        "email": member["email"],
        "name": "Grace",
        "role": "agent",
    }
    assert gone == {
        "tenant_id": house.tenant,
        "actor_type": "system",
        "user_id": None,
        "resource_type": "member",
        "resource_id": member["id"],
        "after": None,
        "address": None,
    }


async def test_a_changed_role_counts_at_once_for_logins_and_keys(house: House) -> None:
    grace = await house.joined("manager")
    key, _ = await house.key(grace.customer)
    for one in (grace.customer, key):
        assert len((await one.get("/api/instances")).data) == 1
    assert (await house.put(grace.id, {"role": "viewer"})).data["role"] == "viewer"
    for one in (grace.customer, key):
        assert (await one.get("/api/instances")).data == []
        assert (await one.get("/api/team/members")).status == 403


async def test_an_assignment_counts_at_once_and_everywhere(house: House) -> None:
    message = await a_message_row(house.gateway.sql, house.tenant, house.instance)
    grace = await house.joined()
    key, _ = await house.key(grace.customer)
    path = f"/api/team/members/{grace.id}/clients/{house.instance}"

    async def seen(by: Customer) -> list[int]:
        one = [f"/api/instances/{house.instance}", f"/api/messages/{message}"]
        return [(await by.get(path)).status for path in one]

    for by in (grace.customer, key):
        assert await seen(by) == [404, 404]
    assert (await house.admin.post(path)).data["assigned"] is True
    assert (await house.admin.post(path)).status == 200
    for by in (grace.customer, key):
        assert await seen(by) == [200, 200]
        assert [one["id"] for one in (await by.get("/api/messages")).data] == [str(message)]
    assert (await house.delete(path)).data["assigned"] is False
    for by in (grace.customer, key):
        assert await seen(by) == [404, 404]
        assert (await by.get("/api/messages")).data == []


async def test_agents_see_files_of_their_own_and_not_those_of_others(house: House) -> None:
    one, other = await house.joined(), await house.joined()
    file = (await one.customer.post("/api/media", {"base64": "aGVsbG8gd29ybGQ="})).data
    assert (await one.customer.get(f"/api/media/{file['id']}")).status == 200
    assert (await house.admin.get(f"/api/media/{file['id']}")).status == 200
    assert (await other.customer.get(f"/api/media/{file['id']}")).status == 404
    assert (await other.customer.get("/api/media")).data == []


async def test_a_manager_manages_their_own_people_and_nobody_else(house: House) -> None:
    manager, stranger = await house.joined("manager"), await house.joined()
    own = await house.joined("agent", manager.customer)
    listed = (await manager.customer.get("/api/team/members")).data
    assert {one["id"] for one in listed} == {manager.id, own.id}
    assert (await house.put(own.id, {"name": "Ann"}, manager.customer)).data["name"] == "Ann"
    assert (await house.put(own.id, {"role": "admin"}, manager.customer)).status == 403
    assert (await house.put(manager.id, {"role": "admin"}, manager.customer)).status == 409
    for path in (stranger.id, house.admin_id):
        assert (await house.put(path, {"name": "x"}, manager.customer)).status == 404
        deleted = await house.delete(f"/api/team/members/{path}", manager.customer)
        assert deleted.status == 404
    for role in ("admin", "manager", "operator"):
        body = {"email": "x@example.com", "name": "x", "role": role}
        assert (await manager.customer.post("/api/team/members", body)).status == 403


async def test_nobody_becomes_an_operator_in_an_organization(house: House) -> None:
    body = {"email": "x@example.com", "name": "x", "role": "operator"}
    assert (await house.admin.post("/api/team/members", body)).status == 403
    grace = await house.joined()
    assert (await house.put(grace.id, {"role": "operator"})).status == 403


async def test_lists_are_filtered_and_paged(house: House) -> None:
    agents = [await house.joined() for _ in range(3)]
    await house.put(agents[0].id, {"active": False})
    path = "/api/team/members?role=agent"
    first = await house.admin.get(f"{path}&limit=2")
    assert first.body["pagination"]["hasMore"]
    cursor = first.body["pagination"]["nextCursor"]
    rest = await house.admin.get(f"{path}&limit=2&cursor={cursor}")
    ids = [one["id"] for one in [*first.data, *rest.data]]
    assert ids == [one.id for one in reversed(agents)]
    inactive = (await house.admin.get("/api/team/members?active=false")).data
    assert [one["id"] for one in inactive] == [agents[0].id]


async def test_deactivating_ends_everything_and_activating_begins_anew(house: House) -> None:
    grace = await house.joined()
    key, _ = await house.key(grace.customer)
    assert (await house.put(grace.id, {"active": False})).data["status"] == "deactivated"
    assert (await grace.customer.get("/api/auth/me")).status == 401
    assert (await key.get("/api/auth/me")).status == 401
    refresh = {"refreshToken": grace.login["refreshToken"]}
    assert (await house.gateway.stranger().post("/api/auth/refresh", refresh)).status == 401
    assert (await house.login(grace.email)).status == 401
    assert (await house.put(grace.id, {"active": True})).data["status"] == "active"
    assert (await house.login(grace.email)).status == 200
    assert (await grace.customer.get("/api/auth/me")).status == 401
    assert (await key.get("/api/auth/me")).status == 401


async def test_whoever_never_came_is_deleted_and_whoever_did_is_deactivated(house: House) -> None:
    invited, joined = await house.invited(), await house.joined()
    for id_ in (invited["id"], joined.id):
        assert (await house.delete(f"/api/team/members/{id_}")).data["deleted"]
    assert (await house.admin.get(f"/api/team/members/{invited['id']}")).status == 404
    shown = (await house.admin.get(f"/api/team/members/{joined.id}")).data
    assert shown["status"] == "deactivated"
    assert (await house.accept(invited["invitation"]["token"])).status == 401


async def test_the_last_administrator_stays(house: House) -> None:
    assert (await house.put(house.admin_id, {"role": "agent"})).status == 409
    assert (await house.delete(f"/api/team/members/{house.admin_id}")).status == 409
    leave = {"currentPassword": PASSWORD}
    assert (await house.admin.post("/api/auth/deactivate", leave)).status == 409
    # Somebody who has not come yet could not take over.
    await house.invited("admin")
    assert (await house.admin.post("/api/auth/deactivate", leave)).status == 409
    await house.joined("admin")
    assert (await house.admin.post("/api/auth/deactivate", {"currentPassword": "x"})).status == 422
    assert (await house.admin.post("/api/auth/deactivate", leave)).status == 200
    assert (await house.admin.get("/api/auth/me")).status == 401


async def test_two_administrators_who_remove_each_other_at_once_leave_one(house: House) -> None:
    other = await house.joined("admin")
    answers = await asyncio.gather(
        house.put(other.id, {"role": "agent"}),
        house.put(house.admin_id, {"role": "agent"}, other.customer),
    )
    first, second = sorted(answer.status for answer in answers)
    assert first == 200
    assert second in {401, 403, 409}
    rows = "gateway.users WHERE role = 'admin' AND active"
    assert await house.gateway.count(rows) == 1


async def test_a_reset_password_ends_logins_and_is_chosen_anew(house: House) -> None:
    grace = await house.joined()
    reset = await house.admin.post(f"/api/team/members/{grace.id}/reset-password")
    assert (await grace.customer.get("/api/auth/me")).status == 401
    assert (await house.login(grace.email)).status == 401
    assert (await house.accept(reset.data["token"], ANOTHER)).status == 200
    assert (await house.login(grace.email)).status == 401
    assert (await house.login(grace.email, ANOTHER)).status == 200


async def test_a_user_key_is_seen_once_and_acts_as_its_maker(house: House) -> None:
    grace = await house.joined(instances=[str(house.instance)])
    key, made = await house.key(grace.customer)
    row = await house.gateway.row("SELECT * FROM gateway.user_keys")
    assert row["key_hash"] == digest_of(made["key"])
    assert made["key"] not in str(row)
    assert (await key.get("/api/auth/me")).data["user"]["id"] == grace.id
    limited = await key.get("/api/instances")
    assert limited.headers["RateLimit-Limit"] == "1000"
    [listed] = (await grace.customer.get("/api/team/keys")).data
    assert listed["hint"] == f"sk_…{made['key'][-4:]}"
    assert "key" not in listed


async def test_a_user_key_can_do_nothing_that_would_outlive_it(house: House) -> None:
    key, made = await house.key(house.admin)
    assert (await key.post("/api/team/keys", {"name": "x"})).status == 403
    assert (await key.post("/api/auth/logout")).status == 403
    body = {"currentPassword": PASSWORD, "newPassword": ANOTHER}
    assert (await key.post("/api/auth/change-password", body)).status == 403
    invite = {"email": "x@example.com", "name": "x"}
    assert (await key.post("/api/team/members", invite)).status == 403
    assert (await house.delete(f"/api/team/keys/{made['id']}", key)).status == 403


async def test_a_user_key_makes_no_instance_key_and_leads_no_events_elsewhere(
    house: House,
) -> None:
    key, _ = await house.key(house.admin)
    keys = f"/api/instances/{house.instance}/keys"
    made = (await house.admin.post(keys, {"name": "x"})).data
    one, webhook = f"{keys}/{made['id']}", f"/api/instances/{house.instance}/webhook"
    hook = {"url": "https://example.com/hook", "events": ["*"]}
    refused = [
        await key.post(keys, {"name": "x"}),
        await key.post(f"{one}/regenerate"),
        await key.call("PUT", one, json={"expiresAt": None, "name": "y"}),
        await key.post(webhook, hook),
    ]
    assert (await house.admin.post(webhook, hook)).status == 201
    refused.append(await key.call("PUT", webhook, json=hook))
    for answer in refused:
        assert (answer.status, "log in" in answer.body["error"]["message"]) == (403, True)
    row = await house.gateway.row("SELECT key_hash FROM gateway.instance_keys")
    assert row["key_hash"] == digest_of(made["key"])
    assert (await key.get(webhook)).status == 200
    assert (await house.delete(one, key)).status == 200


async def test_user_keys_end_by_time_by_their_maker_and_by_administrators(house: House) -> None:
    grace, other = await house.joined(), await house.joined()
    first, one = await house.key(grace.customer, expiresInDays=1)
    second, two = await house.key(grace.customer)
    third, three = await house.key(grace.customer)
    assert (await house.delete(f"/api/team/keys/{two['id']}", other.customer)).status == 404
    assert (await house.delete(f"/api/team/keys/{two['id']}", grace.customer)).status == 200
    assert (await second.get("/api/auth/me")).status == 401
    assert {key["id"] for key in (await house.admin.get("/api/team/keys")).data} == {
        one["id"],
        three["id"],
    }
    assert (await house.delete(f"/api/team/keys/{three['id']}")).status == 200
    assert (await third.get("/api/auth/me")).status == 401
    assert (await first.get("/api/auth/me")).status == 200
    house.gateway.clock.move(timedelta(days=1))
    assert (await first.get("/api/auth/me")).status == 401


async def test_nobody_has_more_user_keys_than_are_allowed(house: House) -> None:
    for _ in range(9):
        await house.key(house.admin)
    body = {"name": "x"}
    answers = await asyncio.gather(*(house.admin.post("/api/team/keys", body) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [201, 429, 429]


async def test_the_use_of_a_user_key_is_noted(house: House) -> None:
    await house.key(house.admin)
    key_id = await house.gateway.sql.fetchval("SELECT id FROM gateway.user_keys")
    uses = KeyUses(house.gateway.database, clock=house.gateway.clock)
    uses.note(key_id)
    assert await uses.write(now=house.gateway.clock.now()) == 1
    assert (await house.admin.get("/api/team/keys")).data[0]["lastUsedAt"] is not None
    assert timedelta(seconds=10) >= NoteKeyUse.RHYTHM


async def test_no_token_is_made_unseen_while_its_family_is_being_revoked(house: House) -> None:
    row = await house.gateway.row("SELECT * FROM gateway.refresh_tokens")
    database, now = house.gateway.database, house.gateway.clock.now()
    user_id, family = row["user_id"], row["family_id"]
    async with asyncio.TaskGroup() as group:
        async with database.tx() as first:
            # One exchanges the token, and has not committed when the other revokes the family.
            found = await accounts.refresh_token(first, row["token_hash"])
            assert found is not None

            async def revoke() -> None:
                async with database.tx() as second:
                    await accounts.revoke_family(second, family, user_id=user_id, now=now)

            revoking = group.create_task(revoke())
            await _waits_for_a_lock(house.gateway)
            made = accounts.RefreshToken(new_id(), family, user_id, now, None, None)
            await accounts.add_refresh_token(first, made, digest=b"next", now=now)
        await revoking
    alive = "gateway.refresh_tokens WHERE revoked_at IS NULL"
    assert await house.gateway.count(alive) == 0


async def test_a_token_is_not_exchanged_while_everything_of_its_user_ends(house: House) -> None:
    row = await house.gateway.row("SELECT * FROM gateway.refresh_tokens")
    database, now = house.gateway.database, house.gateway.clock.now()
    async with asyncio.TaskGroup() as group:
        async with database.tx() as first:
            await team.end_logins(first, row["user_id"], now=now)

            async def exchange() -> accounts.RefreshToken | None:
                async with database.tx() as second:
                    return await accounts.refresh_token(second, row["token_hash"])

            exchanging = group.create_task(exchange())
            await _waits_for_a_lock(house.gateway)
        found = await exchanging
    assert found is not None
    assert found.revoked_at is not None


@pytest.mark.parametrize("meanwhile", ["reset", "deactivated", "logged out", "changed"])
async def test_a_password_that_is_being_changed_does_not_undo_what_came_first(
    house: House, meanwhile: str
) -> None:
    grace = await house.joined()
    grace_id, now = UUID(grace.id), house.gateway.clock.now()
    password = "SELECT password_hash, active FROM gateway.users WHERE id = $1"
    family = "SELECT family_id FROM gateway.refresh_tokens WHERE user_id = $1"
    login = (await house.gateway.row(family, grace_id))["family_id"]
    body = {"currentPassword": PASSWORD, "newPassword": ANOTHER}
    async with asyncio.TaskGroup() as group:
        async with house.gateway.database.tx() as first:
            await accounts.user(first, grace_id, lock=True)
            changing = group.create_task(
                grace.customer.post("/api/auth/change-password", body), name="change"
            )
            await _waits_for_a_lock(house.gateway)
            match meanwhile:
                case "reset":
                    await team.end_logins(first, grace_id, now=now)
                    await team.forget_password(first, grace_id)
                case "deactivated":
                    await team.change(first, grace_id, {"active": False})
                case "logged out":
                    await accounts.revoke_family(first, login, user_id=grace_id, now=now)
                case _:
                    await team.change(first, grace_id, {"password_hash": "another"})
            expected = (await accounts.user(first, grace_id)).password_hash  # type: ignore[union-attr]
        answer = await changing
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert (await house.gateway.row(password, grace_id))["password_hash"] == expected


async def test_a_hash_that_is_made_anew_at_a_login_does_not_undo_a_reset(house: House) -> None:
    grace = await house.joined()
    grace_id = UUID(grace.id)
    # As it was made when hashing took less.
    weaker = await Passwords(memory_kib=512).hash(PASSWORD)
    async with house.gateway.database.tx() as tx:
        await team.change(tx, grace_id, {"password_hash": weaker})
    async with asyncio.TaskGroup() as group:
        async with house.gateway.database.tx() as first:
            await accounts.user(first, grace_id, lock=True)
            logging_in = group.create_task(house.login(grace.email), name="login")
            await _waits_for_a_lock(house.gateway)
            await team.forget_password(first, grace_id)
        answer = await logging_in
    assert answer.status == 401
    found = await house.gateway.row("SELECT * FROM gateway.users WHERE id = $1", grace_id)
    assert found["password_hash"] is None


async def test_whoever_an_older_gateway_registered_stays_after_a_reset(house: House) -> None:
    grace, bob = await house.joined(), await house.joined()
    await house.gateway.sql.execute("UPDATE gateway.users SET joined_at = NULL")
    reset = await house.admin.post(f"/api/team/members/{grace.id}/reset-password")
    assert reset.status == 200
    shown = (await house.admin.get(f"/api/team/members/{grace.id}")).data
    # As one who was reset by a gateway that did not know better.
    await house.gateway.sql.execute(
        "UPDATE gateway.users SET password_hash = NULL WHERE id = $1", UUID(bob.id)
    )
    await house.gateway.sql.execute("DELETE FROM gateway.invitations")
    for one in (grace, bob):
        body = {"email": one.email, "password": PASSWORD, "name": "Impostor"}
        assert (await house.gateway.stranger().post("/api/auth/register", body)).status == 409
    assert shown["status"] == "active"
    assert (await house.delete(f"/api/team/members/{grace.id}")).status == 200
    kept = (await house.admin.get(f"/api/team/members/{grace.id}")).data
    assert kept["status"] == "deactivated"
    assert (await house.delete(f"/api/team/members/{bob.id}")).status == 200


async def _waits_for_a_lock(gateway: Gateway) -> None:
    """Return once somebody waits for what another transaction holds."""
    async with asyncio.timeout(5):
        while not await gateway.sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ):
            continue
