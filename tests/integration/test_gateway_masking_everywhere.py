"""Every route and every event, as whoever is not to know numbers: none is shown, nor what is said.

Made from the route table itself, in the world of the role matrix: a route that is added is walked
without further ado. The same walk as an administrator shows that there is something to be hidden.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import pytest

from shared.broker.port import Outgoing
from shared.broker.topology import REPLIES
from shared.contracts.commands import AskInstance, InstanceAnswered, Refusal
from shared.contracts.content import Identity
from shared.contracts.envelope import Emitted
from shared.contracts.events import MessageReceived, UserMapped
from shared.contracts.model import Event
from shared.contracts.questions import (
    Answer,
    ChangedMember,
    ChangedMembers,
    CheckedNumber,
    CheckedNumbers,
    CheckNumbers,
    Group,
    GroupMember,
    Groups,
    InviteLink,
    ListGroups,
    Profile,
    Question,
    TellProfile,
)
from shared.ids import new_id
from shared.messaging.contents import seal
from shared.messaging.outbox import event, outgoing
from tests.integration.test_gateway_events import joined
from tests.support import gateway as gateway_support
from tests.support.builders import NOON
from tests.support.customer import Answer as Response
from tests.support.files import an_inbound_file, download, upload
from tests.support.gateway import Gateway
from tests.support.houses import GROUP, Builder, Caller, House
from tests.support.keys import RING
from tests.support.live import LiveClient
from tests.support.matrix import BODIES, Call, Matrix, World, calls

# Those of the world: of the instance, of a contact, of who founded the group.
OWN, CONTACT, FOUNDER = "12025550001", "12025550142", "12025550177"
# Those of the role matrix's world: to whom its message goes, and whom it maps.
ADDRESSED, MAPPED = "12025550113", "12025550188"
# Whom its callers name in their bodies; here they name another.
EXAMPLE: Final = "12025550199"
NAMED: Final = "12025550155"
NUMBERS: Final = (OWN, CONTACT, FOUNDER, ADDRESSED, MAPPED)
SAID: Final = ("Quetzalcoatl", "Xylophonist", "Zugzwang")
LINK: Final = "0123456789ABCDEFGHIJKL"
OLD_GROUP: Final = f"{FOUNDER}-1399999999@g.us"
REACTING: Final = "POST /api/messages/reaction"
FILE: Final = f"{SAID[1]}_{CONTACT}.png"

ADA = Identity(
    phone=f"+{CONTACT}",
    chat_id=f"{CONTACT}@s.whatsapp.net",
    push_name=f"Ada +1 202 555 {CONTACT[-4:]}",
)
THE_GROUP = Group(
    id=OLD_GROUP,
    name=f"Friends of +{CONTACT}",
    topic=SAID[2],
    created_at=NOON,
    members=(GroupMember(identity=ADA, role="owner"),),
)

ANSWERS: Final[dict[str, Answer]] = {
    ListGroups().kind: Groups(groups=(THE_GROUP,)),
    "tell_group": THE_GROUP,
    "create_group": THE_GROUP,
    "change_members": ChangedMembers(
        members=(ChangedMember(address=ADA.chat_id, error=f"+{CONTACT} is away"),)
    ),
    "tell_invite_link": InviteLink(url=f"https://chat.whatsapp.com/{LINK}"),
    TellProfile().kind: Profile(identity=ADA, about="Hi", picture_url=None),
}


def said_to(question: Question) -> Answer | Refusal:
    """What WhatsApp answers."""
    if isinstance(question, CheckNumbers):
        there = (
            CheckedNumber(number=one, on_whatsapp=True, address=ADA.chat_id)
            for one in question.numbers
        )
        return CheckedNumbers(numbers=tuple(there))
    refused = Refusal(code="CONFLICT", message=f"+{CONTACT} does not want that.")
    return ANSWERS.get(question.kind, refused)


@dataclass
class Office:
    """A house in which everything that can hold a number or a word does."""

    gateway: Gateway
    house: House
    matrix: Matrix

    def caller(self, name: str) -> Caller:
        """Somebody of the house, logged in."""
        return next(one for one in self.house.callers if one.name == name)

    async def ask(self, request: Awaitable[Response]) -> Response:
        """What is answered to a request, WhatsApp's part in it included."""
        async with asyncio.TaskGroup() as group:
            response = group.create_task(_awaited(request))
            answering = group.create_task(self._answer())
            await asyncio.wait([response])
            answering.cancel()
        return response.result()

    async def _answer(self) -> None:
        heard = self.gateway.heard
        while True:
            heard.news.clear()
            for message in [one for one in heard.messages if one.type == AskInstance.TYPE]:
                heard.messages.remove(message)
                await self._say(AskInstance.model_validate_json(message.body))
            await heard.news.wait()

    async def _say(self, asked: AskInstance) -> None:
        said = said_to(asked.question)
        named: dict[str, Any] = {"refusal" if isinstance(said, Refusal) else "answer": said}
        answered = InstanceAnswered(ask_id=asked.ask_id, **named)
        await self.gateway.broker.publish(
            [
                Outgoing(
                    exchange=REPLIES,
                    routing_key=asked.reply_to,
                    body=answered.model_dump_json().encode(),
                    message_id=str(new_id()),
                    type=InstanceAnswered.TYPE,
                    mandatory=False,
                )
            ]
        )

    async def call(self, call: Call, caller: Caller) -> Response:
        """One route as the role matrix calls it, but that nobody names a number of the world."""
        named: Any = None
        if call.key == REACTING:
            named = self.reacting()
        elif call.changes:
            named = self.matrix.body(call, caller, self.house.named)
        body = json.dumps(named)
        for number in (ADDRESSED, EXAMPLE, CONTACT):
            body = body.replace(number, NAMED)
        path = call.filled(self.house).replace(GROUP, OLD_GROUP)
        request = caller.customer.call(call.route.method, path, json=json.loads(body))
        return await self.ask(request)

    def reacting(self) -> dict[str, str]:
        """To the message of the house."""
        named = self.house.named
        return {"instanceId": named["instance"], "messageId": named["message"], "emoji": "👍"}

    async def tell(self, told: Event) -> None:
        """Something happens to the instance."""
        emitted = Emitted(
            id=new_id(),
            event=told,
            tenant_id=self.house.tenant,
            instance_id=self.house.instance,
            time=self.gateway.clock.now(),
            subject=f"chats/{CONTACT}",
            partition_key=ADA.chat_id,
        )
        await self.gateway.broker.publish(outgoing([event(emitted)]))

    async def hear(self) -> None:
        """A contact writes."""
        content = {"kind": "text", "text": SAID[0]}
        await self.tell(
            MessageReceived.model_validate(
                {
                    "messageId": str(new_id()),
                    "engineMessageId": "3EB0",
                    "from": f"+{CONTACT}",
                    "to": f"+{OWN}",
                    "messageType": "text",
                    "timestamp": self.gateway.clock.now(),
                    "groupId": OLD_GROUP,
                    "identity": ADA.model_dump(by_alias=True),
                    "content": content,
                }
            )
        )


async def _awaited(request: Awaitable[Response]) -> Response:
    return await request


async def furnish(office: Office) -> None:
    """Put numbers and words wherever they can be."""
    sql, house = office.gateway.sql, office.house
    await sql.execute(
        "UPDATE gateway.organizations SET pii_masking = true WHERE id = $1", house.tenant
    )
    await sql.execute(
        "UPDATE gateway.instances SET name = $2 WHERE id = $1", house.instance, f"Line +{OWN}"
    )
    await sql.execute(
        "UPDATE sessions.session_states SET phone_number = $2, device_info = $3::jsonb,"
        " last_error = $4 WHERE instance_id = $1",
        house.instance,
        f"+{OWN}",
        orjson.dumps({"jid": f"{OWN}:7@s.whatsapp.net"}).decode(),
        f"refused by +{CONTACT}",
    )
    message = UUID(house.named["message"])
    content = orjson.dumps({"kind": "text", "text": f"{SAID[0]}"}).decode()
    await sql.execute(
        "UPDATE dispatcher.messages SET status = 'sent', sent_at = $2, created_at = $2,"
        " content = NULL, sealed = $3, engine_message_id = '3EB0BBBB', error_code = 'REJECTED',"
        " error_message = $4, metadata = $5::jsonb WHERE id = $1",
        message,
        office.gateway.clock.now(),
        seal(RING, house.tenant, message, content),
        f"+{CONTACT} does not take it",
        orjson.dumps({"about": f"+{CONTACT}"}).decode(),
    )
    await sql.execute(
        "INSERT INTO dispatcher.transmissions (id, message_id, instance_id, shard, attempt,"
        " created_at, published_at, outcome, code, detail, settled_at)"
        " VALUES ($1, $2, $3, 7, 1, $4, $4, 'rejected', 'REJECTED', $5, $4)",
        new_id(),
        message,
        house.instance,
        NOON,
        f"+{CONTACT} does not take it",
    )
    await an_inbound_file(
        sql, house.tenant, house.instance, filename=FILE, error=f"+{CONTACT} took it back"
    )
    key = office.caller("key with everything").customer
    made = await upload(key, b"\x89PNG\r\n\x1a\n" + SAID[0].encode(), filename=FILE)
    house.named["media"] = made.data["id"]
    await office.hear()
    mapped = UserMapped(
        mapping_id=str(new_id()), phone_number=f"+{MAPPED}", user_id=str(house.people["agent"])
    )
    await office.tell(mapped)


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with gateway_support.running(
        database_url, ask_seconds=2, access_token_minutes=24 * 60, webhook_test_seconds=0.01
    ) as gateway:
        builder = Builder(gateway)
        house, other = await builder.house("one"), await builder.house("two")
        described = (await gateway.stranger().get("/openapi.json")).body
        made = Office(gateway, house, Matrix(gateway, house, other, described))
        await furnish(made)
        yield made


def found(answer: Response, words: tuple[str, ...]) -> set[str]:
    """What of these an answer shows, in its body or beside it."""
    body = answer.body.decode(errors="replace") if isinstance(answer.body, bytes) else answer.body
    text = json.dumps(body, ensure_ascii=False) + json.dumps(dict(answer.headers))
    digits = "".join(one for one in text if one not in " ()-.")
    return {word for word in words if word in text or (word.isdigit() and word in digits)}


HIDDEN: Final = {
    "agent": (*NUMBERS, LINK),
    "viewer": (*NUMBERS, LINK, *SAID),
}
# Where there is something to be hidden, and so where it is seen that it is.
SHOWS_NUMBERS: Final = {
    "GET /api/instances",
    "GET /api/instances/{id}",
    "GET /api/instances/{id}/status",
    "GET /api/instances/{id}/profile",
    "GET /api/instances/{id}/phone-mappings",
    "GET /api/instances/{id}/groups",
    "GET /api/instances/{id}/groups/{group}",
    "GET /api/instances/{id}/groups/{group}/invite-link",
    "POST /api/instances/{id}/groups/{group}/invite-link",
    "POST /api/instances/{id}/groups",
    "POST /api/instances/{id}/groups/{group}/members",
    "DELETE /api/instances/{id}/groups/{group}",
    "POST /api/contacts/check",
    "POST /api/messages/reaction",
    "PUT /api/messages/{id}",
    "DELETE /api/messages/{id}",
    "GET /api/messages",
    "GET /api/messages/{id}",
    "GET /api/messages/{id}/timeline",
    "GET /api/media",
    "GET /api/media/{id}",
    "GET /api/media/{id}/download",
    "GET /api/events",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["admin", "agent", "viewer"])
async def test_no_route_shows_what_is_hidden(office: Office, role: str) -> None:
    caller, world = office.caller(role), World(office.gateway)
    hidden = HIDDEN.get(role, HIDDEN["viewer"])
    await world.keep()
    shown: dict[str, set[str]] = {}
    walked = [call for call in calls() if call.path != "/api/auth/logout"]
    for call in sorted(walked, key=lambda one: one.changes):
        answer = await office.call(call, caller)
        assert answer.status != 500, (call.key, answer.body)
        if seen := found(answer, hidden):
            shown[f"{call.key} ({call.path})"] = seen
        if call.changes and answer.status < 400:
            await world.restore()
    if role == "admin":
        assert not SHOWS_NUMBERS - {key.partition(" (")[0] for key in shown}
        return
    assert not shown, f"shown to {role}: {shown}"


@pytest.mark.parametrize("role", ["agent", "viewer"])
async def test_no_event_shows_what_is_hidden(office: Office, role: str) -> None:
    caller, hidden = office.caller(role), HIDDEN[role]
    token = caller.customer.headers["Authorization"].removeprefix("Bearer ")
    cursor = (await caller.customer.get("/api/events")).body["pagination"]["nextCursor"]
    async with (
        LiveClient.connected(office.gateway.url, {"token": token}) as client,
        asyncio.TaskGroup() as group,
    ):
        polled = group.create_task(caller.customer.get(f"/api/events?after={cursor}&wait=20"))
        await joined(office.gateway)
        await office.hear()
        told = await client.event("message.received")
    live = Response(200, told, {})
    assert polled.result().data
    assert not found(polled.result(), hidden)
    assert not found(live, hidden), told


async def test_viewers_get_no_file_and_agents_get_it_under_a_masked_name(office: Office) -> None:
    file = office.house.named["media"]
    refused = await download(office.caller("viewer").customer, file)
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    got = await download(office.caller("agent").customer, file)
    assert got.status == 200
    assert SAID[0].encode() in got.body
    assert SAID[1] in got.headers["Content-Disposition"]
    assert not found(got, NUMBERS)


async def test_a_reaction_says_nothing_of_whose_message_it_is_about(office: Office) -> None:
    agent = office.caller("agent").customer
    answers = [
        await agent.post("/api/messages/reaction", {**office.reacting(), **to})
        for to in ({}, {"to": f"+{ADDRESSED}"}, {"to": f"+{NAMED}"})
    ]
    shown = {(one.status, one.data["to"]) for one in answers}
    assert shown == {(202, "+1202•••0113")}


async def test_whoever_may_not_know_numbers_still_sends_to_them(office: Office) -> None:
    agent = office.caller("agent").customer
    body = {"instanceId": office.house.named["instance"], "to": f"+{NAMED}", "message": "x"}
    sent = await agent.post("/api/messages/text", body)
    assert sent.data["to"] == f"+{NAMED}"
    chat = await office.gateway.sql.fetchval(
        "SELECT chat FROM dispatcher.messages WHERE id = $1", UUID(sent.data["id"])
    )
    assert chat == f"{NAMED}@s.whatsapp.net"
    checking = {"instanceId": body["instanceId"], "numbers": [f"+{NAMED}"]}
    [checked] = (await office.ask(agent.post("/api/contacts/check", checking))).data
    assert (checked["input"], checked["onWhatsApp"]) == (f"+{NAMED}", True)
    assert "POST /api/messages/text" in BODIES
