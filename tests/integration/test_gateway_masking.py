"""Who is not to know numbers gets to know none: by no route, live or not, and by no guess."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageReceived
from shared.ids import new_id
from shared.messaging.outbox import event, outgoing
from tests.integration.test_gateway_kinds import a_row
from tests.support.builders import an_instance
from tests.support.customer import Customer
from tests.support.gateway import PASSWORD, Gateway, Sender
from tests.support.live import LiveClient

NUMBER = "12025550199"
SHOWN = "+1202•••0199"


@dataclass
class Office:
    """An organization that masks, with an administrator and somebody who sees its instance."""

    gateway: Gateway
    admin: Customer
    tenant: UUID
    instance: UUID

    async def member(self, role: str) -> Customer:
        """Somebody with this role who is assigned to the instance."""
        member = await self.admin.post(
            "/api/team/members",
            {"email": f"{new_id().hex}@example.com", "name": "Grace", "role": role},
        )
        assert member.status == 201, member.body
        login = await self.gateway.stranger().post(
            "/api/auth/accept-invitation",
            {"token": member.data["invitation"]["token"], "password": PASSWORD},
        )
        await self.gateway.sql.execute(
            "INSERT INTO gateway.assignments (user_id, instance_id, assigned_at)"
            " VALUES ($1, $2, now())",
            UUID(member.data["id"]),
            self.instance,
        )
        return self.gateway.with_token(login.data["token"])

    async def mask(self, *, on: bool = True) -> None:
        answer = await self.admin.call("PUT", "/api/organization", json={"piiMasking": on})
        assert answer.status == 200, answer.body

    async def hear(self, text: str = "my secret") -> str:
        """Somebody writes to the instance; the event's id."""
        received = MessageReceived.model_validate(
            {
                "messageId": str(new_id()),
                "engineMessageId": "3EB0",
                "from": f"+{NUMBER}",
                "to": "+12025550000",
                "messageType": "text",
                "timestamp": self.gateway.clock.now(),
                "identity": {"phone": f"+{NUMBER}", "chatId": f"{NUMBER}@s.whatsapp.net"},
                "content": {"kind": "text", "text": text},
            }
        )
        emitted = Emitted(
            id=new_id(),
            event=received,
            tenant_id=self.tenant,
            instance_id=self.instance,
            time=self.gateway.clock.now(),
            subject="x",
            partition_key=f"{NUMBER}@s.whatsapp.net",
        )
        await self.gateway.broker.publish(outgoing([event(emitted)]))
        return str(emitted.id)


@pytest.fixture
async def office(gateway: Gateway) -> Office:
    admin, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    made = Office(gateway, admin, tenant, await an_instance(gateway.sql, tenant))
    await made.mask()
    return made


def token_of(customer: Customer) -> str:
    return customer.headers["Authorization"].removeprefix("Bearer ")


SIGHTS = [("manager", True, True), ("agent", False, True), ("viewer", False, False)]


@pytest.mark.parametrize(("role", "whole", "reads"), SIGHTS)
async def test_events_show_what_messages_do(
    office: Office, role: str, whole: bool, reads: bool
) -> None:
    member = await office.member(role)
    async with (
        LiveClient.connected(office.gateway.url, {"token": token_of(member)}) as client,
        LiveClient.connected(office.gateway.url, {"token": token_of(office.admin)}) as admin,
    ):
        id_ = await office.hear()
        told = await client.event("message.received")
        everything = await admin.event("message.received")
    assert everything["data"]["from"] == f"+{NUMBER}"
    assert everything["data"]["content"]["text"] == "my secret"
    listed = (await member.get("/api/events?types=message.*")).data[-1]
    for shown in (told, listed):
        assert shown["id"] == id_
        assert shown["data"]["from"] == (f"+{NUMBER}" if whole else SHOWN)
        assert (NUMBER in str(shown)) is whole
        assert ("my secret" in str(shown)) is reads


@pytest.mark.parametrize(("role", "whole", "reads"), SIGHTS)
async def test_no_guess_is_confirmed(office: Office, role: str, whole: bool, reads: bool) -> None:
    member = await office.member(role)
    assert (
        await office.admin.call("PUT", "/api/organization", json={"contentStorage": "encrypted"})
    ).status == 200
    for query, may in (
        ("search=secret", reads),
        (f"to=%2B{NUMBER}", whole),
        (f"from=%2B{NUMBER}", whole),
        (f"contact=%2B{NUMBER}", whole),
        (f"contact={NUMBER}@s.whatsapp.net", whole),
        ("contact=120363041234567890@g.us", True),
        ("", True),
    ):
        answer = await member.get(f"/api/messages?{query}")
        assert answer.status == (200 if may else 403), (query, answer.body)
        assert may or answer.code == "FORBIDDEN"


async def test_masking_counts_at_once_and_live_clients_connect_again(office: Office) -> None:
    viewer = await office.member("viewer")
    await office.mask(on=False)
    await office.hear()

    async def shown() -> Any:
        return (await viewer.get("/api/events?types=message.*")).data[-1]["data"]["from"]

    assert await shown() == f"+{NUMBER}"
    async with LiveClient.connected(office.gateway.url, {"token": token_of(viewer)}) as client:
        await office.mask()
        assert await shown() == SHOWN
        assert (await client.event("closing"))["code"] == "SCOPE_CHANGED"
        await client.next("connect")
        await office.hear()
        assert (await client.event("message.received"))["data"]["from"] == SHOWN


async def test_changing_a_message_does_not_tell_to_whom_it_went(office: Office) -> None:
    now = office.gateway.clock.now()
    for member, to in ((office.admin, f"+{NUMBER}"), (await office.member("agent"), SHOWN)):
        sender = Sender(member, office.instance, office.tenant)
        chat = f"{NUMBER}@s.whatsapp.net"
        message = await a_row(office.gateway, sender, status="sent", sent_at=now, chat=chat)
        edited = await member.call("PUT", f"/api/messages/{message}", json={"message": "New"})
        assert (edited.status, edited.data["to"]) == (202, to), edited.body
