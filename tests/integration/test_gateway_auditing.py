"""The audit log: whatever is done is found in it, once, without secrets."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from uuid import UUID

import orjson
import pytest
from pydantic import SecretStr

from services.gateway.domain.engines import ENGINES, MASK, Engine, EngineSettings
from shared.broker.dead import AT, REASON, Reason
from shared.broker.port import Outgoing
from shared.broker.topology import DEAD, REPLIES
from shared.contracts import commands
from shared.contracts.commands import AskInstance, InstanceAnswered
from shared.contracts.content import Identity
from shared.contracts.questions import (
    Answer,
    ChangedMember,
    ChangedMembers,
    Done,
    Group,
    GroupMember,
    InviteLink,
    PairingCode,
)
from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.builders import NOON, an_instance
from tests.support.customer import Answer as Response
from tests.support.customer import Customer
from tests.support.gateway import PASSWORD, Gateway
from tests.support.routes import declared

GROUP: Final = "120363000000000001@g.us"
ADA: Final = Identity(phone="+12025550142", chat_id="12025550142@s.whatsapp.net")
FOR_OPERATORS: Final = {
    "worker.ordered",
    "platform.organization_changed",
    "platform.broadcast_announced",
}
HOOK: Final = {"url": "https://example.com/hook", "events": ["*"]}


@dataclass
class Stage:
    """An account with a ready instance, and a way to do things to it."""

    gateway: Gateway
    admin: Customer
    account: dict[str, Any]
    instance: UUID

    @property
    def tenant(self) -> UUID:
        return UUID(self.account["organization"]["id"])

    @property
    def path(self) -> str:
        return f"/api/instances/{self.instance}"

    async def put(self, path: str, body: object) -> Response:
        return await self.admin.call("PUT", path, json=body)

    async def delete(self, path: str) -> Response:
        return await self.admin.call("DELETE", path)

    async def answered(self, request: Awaitable[Response], said: Answer) -> Response:
        """What is answered to a request whose question an engine answers so."""
        async with asyncio.TaskGroup() as group:
            response = group.create_task(_done(request))
            asked: AskInstance = await self.gateway.heard.next(AskInstance)
            body = InstanceAnswered(ask_id=asked.ask_id, answer=said)
            message = Outgoing(
                exchange=REPLIES,
                routing_key=asked.reply_to,
                body=body.model_dump_json().encode(),
                message_id=str(new_id()),
                type=InstanceAnswered.TYPE,
                mandatory=False,
            )
            await self.gateway.broker.publish([message])
        return response.result()


async def _done(request: Awaitable[Response]) -> Response:
    return await request


Deed = Callable[[Stage], Awaitable[Response]]
DEEDS: dict[str, Deed] = {}


def does(action: str) -> Callable[[Deed], Deed]:
    """Marks a function that does what the log calls so, by a route that declares it."""

    def add(deed: Deed) -> Deed:
        DEEDS[action] = deed
        return deed

    return add


@does("user.registered")
async def register(stage: Stage) -> Response:
    body = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    return await stage.gateway.stranger().post("/api/auth/register", body)


@does("user.logged_in")
async def log_in(stage: Stage) -> Response:
    body = {"email": "ada@example.com", "password": PASSWORD}
    return await stage.gateway.stranger().post("/api/auth/login", body)


@does("user.logged_out")
async def log_out(stage: Stage) -> Response:
    return await stage.admin.post("/api/auth/logout")


@does("user.password_changed")
async def change_password(stage: Stage) -> Response:
    body = {"currentPassword": PASSWORD, "newPassword": "quite another one"}
    return await stage.admin.post("/api/auth/change-password", body)


@does("user.unlocked")
async def unlock(stage: Stage) -> Response:
    return await stage.admin.post(f"/api/team/members/{stage.account['user']['id']}/unlock")


@does("organization.changed")
async def change_organization(stage: Stage) -> Response:
    return await stage.put("/api/organization", {"name": "Engines"})


@does("instance.created")
async def create_instance(stage: Stage) -> Response:
    return await stage.admin.post("/api/instances", {"name": "Shop", "engine": "sandbox"})


@does("instance.changed")
async def change_instance(stage: Stage) -> Response:
    return await stage.put(stage.path, {"name": "Stall", "phoneNumber": "+12025550177"})


@does("instance.deleted")
async def delete_instance(stage: Stage) -> Response:
    return await stage.delete(stage.path)


@does("instance.connect_requested")
async def connect(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/connect")


@does("instance.disconnect_requested")
async def disconnect(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/disconnect")


@does("instance.restart_requested")
async def restart(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/restart")


@does("instance.logout_requested")
async def unlink(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/logout")


@does("instance.pairing_code_made")
async def pair_by_code(stage: Stage) -> Response:
    instance = await an_instance(stage.gateway.sql, stage.tenant, status="qr")
    asked = stage.admin.post(
        f"/api/instances/{instance}/pairing-code", {"phoneNumber": "+12025550177"}
    )
    return await stage.answered(asked, PairingCode(code="ABCD1234", expires_at=NOON))


@does("instance.guard_changed")
async def change_guard(stage: Stage) -> Response:
    return await stage.put(f"{stage.path}/guard", {"perDay": 5})


@does("instance.sandbox_scanned")
async def scan(stage: Stage) -> Response:
    return await stage.admin.post(f"/api/sandbox/instances/{stage.instance}/scan")


@does("instance_key.created")
async def create_key(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/keys", {"name": "Shop"})


@does("instance_key.changed")
async def change_key(stage: Stage) -> Response:
    key = (await create_key(stage)).data["id"]
    return await stage.put(f"{stage.path}/keys/{key}", {"name": "Stall"})


@does("instance_key.regenerated")
async def regenerate_key(stage: Stage) -> Response:
    key = (await create_key(stage)).data["id"]
    return await stage.admin.post(f"{stage.path}/keys/{key}/regenerate")


@does("instance_key.revoked")
async def revoke_key(stage: Stage) -> Response:
    key = (await create_key(stage)).data["id"]
    return await stage.delete(f"{stage.path}/keys/{key}")


async def a_dead_letter(stage: Stage) -> str:
    command = commands.DisconnectInstance(instance_id=stage.instance)
    dead = Outgoing(
        exchange=DEAD,
        routing_key="sessions.shard.07.dead",
        body=command.model_dump_json().encode(),
        message_id=str(new_id()),
        type=command.TYPE,
        headers={REASON: Reason.REFUSED, AT: NOON.isoformat()},
    )
    await stage.gateway.broker.publish([dead])
    [letter] = (await stage.admin.get("/api/dead-letters")).data
    return str(letter["id"])


@does("dead_letter.requeued")
async def requeue(stage: Stage) -> Response:
    return await stage.admin.post(f"/api/dead-letters/{await a_dead_letter(stage)}/requeue")


@does("dead_letter.deleted")
async def throw_away(stage: Stage) -> Response:
    return await stage.delete(f"/api/dead-letters/{await a_dead_letter(stage)}")


@does("phone_mapping.created")
async def map_number(stage: Stage) -> Response:
    body = {"phoneNumber": "+12025550142", "userId": stage.account["user"]["id"]}
    return await stage.admin.post(f"{stage.path}/phone-mappings", body)


@does("phone_mapping.deleted")
async def unmap_number(stage: Stage) -> Response:
    mapping = (await map_number(stage)).data["id"]
    return await stage.delete(f"{stage.path}/phone-mappings/{mapping}")


@does("worker.ordered")
async def order_worker(stage: Stage) -> Response:
    await stage.gateway.sql.execute(
        "INSERT INTO dispatcher.workers (id, name, state, processing, completed, failed,"
        " throughput, memory, pausable, restartable, started_at, beat_at)"
        " VALUES ($1, 'dispatcher@here', 'running', 0, 0, 0, 0, 0, true, true, now(), now())",
        new_id(),
    )
    operator = await stage.gateway.operator()
    return await operator.post("/api/workers", {"action": "pause", "worker": "dispatcher@here"})


@does("group.created")
async def create_group(stage: Stage) -> Response:
    asked = stage.admin.post(
        f"{stage.path}/groups", {"name": "Support", "members": ["+12025550142"]}
    )
    member = GroupMember(identity=ADA, role="owner")
    made = Group(id=GROUP, name="Support", created_at=NOON, members=(member,))
    return await stage.answered(asked, made)


@does("group.members_changed")
async def change_members(stage: Stage) -> Response:
    body = {"change": "add", "members": ["+12025550142"]}
    asked = stage.admin.post(f"{stage.path}/groups/{GROUP}/members", body)
    changed = ChangedMember(address="12025550142@s.whatsapp.net")
    return await stage.answered(asked, ChangedMembers(members=(changed,)))


@does("group.left")
async def leave_group(stage: Stage) -> Response:
    return await stage.answered(stage.delete(f"{stage.path}/groups/{GROUP}"), Done())


@does("group.invite_link_renewed")
async def renew_link(stage: Stage) -> Response:
    asked = stage.admin.post(f"{stage.path}/groups/{GROUP}/invite-link")
    return await stage.answered(asked, InviteLink(url="https://chat.whatsapp.com/AbCdEf"))


@does("media.uploaded")
async def upload(stage: Stage) -> Response:
    return await stage.admin.post("/api/media", {"base64": "aGVsbG8gd29ybGQ=", "kind": "document"})


@does("media.deleted")
async def delete_file(stage: Stage) -> Response:
    return await stage.delete(f"/api/media/{(await upload(stage)).data['id']}")


@does("webhook.created")
async def create_webhook(stage: Stage) -> Response:
    return await stage.admin.post(f"{stage.path}/webhook", HOOK)


@does("webhook.changed")
async def change_webhook(stage: Stage) -> Response:
    await create_webhook(stage)
    return await stage.put(f"{stage.path}/webhook", {"active": False})


@does("webhook.deleted")
async def delete_webhook(stage: Stage) -> Response:
    await create_webhook(stage)
    return await stage.delete(f"{stage.path}/webhook")


@does("webhook.tested")
async def try_webhook(stage: Stage) -> Response:
    await create_webhook(stage)
    answer = await stage.admin.post(f"{stage.path}/webhook/test")
    await stage.gateway.heard.next(commands.TestEndpoint)
    return answer


async def a_member(stage: Stage) -> Any:
    body = {"email": f"{new_id().hex}@example.com", "name": "Grace", "role": "agent"}
    return (await stage.admin.post("/api/team/members", body)).data


@does("member.invited")
async def invite(stage: Stage) -> Response:
    return await stage.admin.post("/api/team/members", {"email": "g@example.com", "name": "Grace"})


@does("user.joined")
async def join(stage: Stage) -> Response:
    token = (await a_member(stage))["invitation"]["token"]
    return await stage.gateway.stranger().post(
        "/api/auth/accept-invitation", {"token": token, "password": PASSWORD}
    )


@does("member.changed")
async def change_member(stage: Stage) -> Response:
    member = await a_member(stage)
    return await stage.put(f"/api/team/members/{member['id']}", {"role": "viewer"})


@does("member.removed")
async def remove_member(stage: Stage) -> Response:
    return await stage.delete(f"/api/team/members/{(await a_member(stage))['id']}")


@does("member.password_reset")
async def reset_password(stage: Stage) -> Response:
    member = await a_member(stage)
    return await stage.admin.post(f"/api/team/members/{member['id']}/reset-password")


@does("member.instance_assigned")
async def assign(stage: Stage) -> Response:
    member = await a_member(stage)
    return await stage.admin.post(f"/api/team/members/{member['id']}/instances/{stage.instance}")


@does("member.instance_unassigned")
async def unassign(stage: Stage) -> Response:
    member = await a_member(stage)
    return await stage.delete(f"/api/team/members/{member['id']}/clients/{stage.instance}")


@does("user.deactivated")
async def leave(stage: Stage) -> Response:
    await stage.gateway.sql.execute(
        "INSERT INTO gateway.users (id, tenant_id, email, name, password_hash, role, active,"
        " created_at) VALUES ($1, $2, 'o@example.com', 'Other', 'x', 'admin', true, now())",
        new_id(),
        stage.tenant,
    )
    return await stage.admin.post("/api/auth/deactivate", {"currentPassword": PASSWORD})


@does("user_key.created")
async def create_user_key(stage: Stage) -> Response:
    return await stage.admin.post("/api/team/keys", {"name": "Reports"})


@does("user_key.revoked")
async def revoke_user_key(stage: Stage) -> Response:
    key = (await create_user_key(stage)).data["id"]
    return await stage.delete(f"/api/team/keys/{key}")


@does("platform.organization_changed")
async def manage_organization(stage: Stage) -> Response:
    operator = await stage.gateway.operator()
    path = f"/api/admin/organizations/{stage.tenant}"
    return await operator.call("PUT", path, json={"plan": "pro"})


@does("platform.broadcast_announced")
async def announce(stage: Stage) -> Response:
    operator = await stage.gateway.operator()
    return await operator.post("/api/admin/broadcast", {"message": "Maintenance on Sunday."})


@pytest.fixture
async def stage(database_url: str) -> Any:
    async with gateway_support.running(database_url, webhook_test_seconds=0.01) as gateway:
        admin, account = await gateway.register()
        tenant = UUID(account["organization"]["id"])
        instance = await an_instance(gateway.sql, tenant, status="ready", settings={})
        yield Stage(gateway, admin, account, instance)


async def entries(gateway: Gateway, action: str) -> list[dict[str, Any]]:
    rows = await gateway.sql.fetch(
        "SELECT * FROM gateway.audit_logs WHERE action = $1 ORDER BY at, id", action
    )
    return [dict(row) for row in rows]


def test_every_declared_action_is_tried() -> None:
    assert set(DEEDS) == {route.audited for route in declared() if route.audited is not None}


@pytest.mark.parametrize("action", sorted(DEEDS))
async def test_what_is_done_is_found_in_the_log(stage: Stage, action: str) -> None:
    before = len(await entries(stage.gateway, action))
    answer = await DEEDS[action](stage)
    assert answer.status < 300, answer.body
    found = await entries(stage.gateway, action)
    assert len(found) == before + 1
    entry = found[-1]
    assert entry["tenant_id"] is not None
    assert entry["actor_type"] == ("operator" if action in FOR_OPERATORS else "user")
    assert entry["user_id"] is not None
    assert entry["resource_type"]
    assert entry["resource_id"]
    assert entry["address"] == "127.0.0.1"
    assert entry["request_id"] == answer.headers["X-Request-Id"]
    assert entry["times"] == 1
    for secret in (PASSWORD, "quite another one", "whsec_", "+1202555", "ABCD1234"):
        assert secret not in str(entry), secret
    assert not re.search(r"api_\w{8}", str(entry))


async def test_a_change_says_what_was_and_what_is(stage: Stage) -> None:
    await change_instance(stage)
    [entry] = await entries(stage.gateway, "instance.changed")
    assert orjson.loads(entry["before"]) == {"name": "An instance", "phoneNumber": None}
    assert orjson.loads(entry["after"]) == {"name": "Stall", "phoneNumber": "***77"}
    assert entry["resource_id"] == str(stage.instance)
    assert entry["user_id"] == UUID(stage.account["user"]["id"])
    assert entry["tenant_id"] == stage.tenant


class Locked(EngineSettings):
    """Settings with a secret whose name tells nobody that it is one."""

    door: SecretStr | None = None
    floor: int | None = None


async def test_a_secret_setting_is_in_no_entry_whatever_its_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = replace(ENGINES["sandbox"], name="locked", settings=Locked)
    monkeypatch.setitem(cast(dict[str, Engine], ENGINES), "locked", engine)
    wanted = {"name": "x", "engine": "locked", "settings": {"door": "open sesame", "floor": 1}}
    made = await stage.admin.post("/api/instances", wanted)
    path = f"/api/instances/{made.data['id']}"
    assert (await stage.put(path, {"settings": {"door": "it is ajar", "floor": 1}})).status == 200
    assert (await stage.delete(path)).status == 200
    [created] = await entries(stage.gateway, "instance.created")
    assert orjson.loads(created["after"])["settings"] == {"door": MASK, "floor": 1}
    [changed] = await entries(stage.gateway, "instance.changed")
    assert orjson.loads(changed["after"]) == {"settingsReplaced": ["door"]}
    [deleted] = await entries(stage.gateway, "instance.deleted")
    for entry in (created, changed, deleted):
        assert not re.search("sesame|ajar", str(entry))


async def test_what_is_refused_leaves_no_entry_of_a_change(stage: Stage) -> None:
    refused = await stage.put(stage.path, {"settings": {"nonsense": True}})
    assert refused.status == 422
    missing = await stage.delete(f"/api/instances/{new_id()}")
    assert missing.status == 404
    assert not await entries(stage.gateway, "instance.changed")
    assert not await entries(stage.gateway, "instance.deleted")


async def test_what_is_sent_twice_under_one_key_is_one_entry(stage: Stage) -> None:
    body, headers = {"name": "Shop"}, {"Idempotency-Key": "k"}
    for _ in range(2):
        await stage.admin.post(f"{stage.path}/keys", body, headers=headers)
    assert len(await entries(stage.gateway, "instance_key.created")) == 1


async def test_a_change_whose_entry_cannot_be_written_is_not_made(stage: Stage) -> None:
    await stage.gateway.sql.execute("REVOKE INSERT ON gateway.audit_logs FROM waypost_gateway")
    refused = await stage.put(stage.path, {"name": "Stall"})
    assert refused.status == 500
    name = await stage.gateway.sql.fetchval(
        "SELECT name FROM gateway.instances WHERE id = $1", stage.instance
    )
    assert name == "An instance"


async def test_an_instance_key_is_named_by_its_id(stage: Stage) -> None:
    keyed, key = await stage.gateway.key(stage.instance, stage.tenant)
    assert (await keyed.post("/api/webhook", HOOK)).status == 201
    [entry] = await entries(stage.gateway, "webhook.created")
    assert (entry["actor_type"], entry["key_id"], entry["user_id"]) == ("instance_key", key, None)
