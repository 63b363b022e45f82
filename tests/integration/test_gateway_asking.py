"""What is asked of an instance while a request waits: answers, refusals, and nobody there."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.api.asking import Asking
from services.gateway.metrics import GatewayMetrics
from shared.broker.memory import MemoryBroker
from shared.broker.port import Outgoing, Subscription
from shared.broker.topology import REPLIES, shard_queue
from shared.clock import SystemClock
from shared.contracts.commands import AskInstance, InstanceAnswered, Refusal
from shared.contracts.content import Identity
from shared.contracts.questions import (
    Answer,
    ChangedMember,
    ChangedMembers,
    ChangeMembers,
    CheckedNumber,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    Done,
    Group,
    GroupMember,
    Groups,
    InviteLink,
    LeaveGroup,
    ListGroups,
    PairByCode,
    PairingCode,
    Profile,
    Question,
    TellGroup,
    TellInviteLink,
    TellProfile,
)
from shared.errors import Transient
from shared.ids import new_id
from tests.support import gateway as gateway_support
from tests.support.builders import an_instance
from tests.support.customer import Answer as Response
from tests.support.customer import Customer
from tests.support.gateway import Gateway, Heard, Sender

GROUP = "120363000000000001@g.us"
ADA = Identity(phone="+12025550142", chat_id="12025550142@s.whatsapp.net", push_name="Ada")
ADA_SHOWN = {
    "phone": "+12025550142",
    "lid": None,
    "chatId": "12025550142@s.whatsapp.net",
    "pushName": "Ada",
}
THE_GROUP = Group(
    id=GROUP,
    name="Support",
    created_at=datetime(2026, 1, 15, 12, tzinfo=UTC),
    members=(GroupMember(identity=ADA, role="owner"),),
)
THE_GROUP_SHOWN = {
    "id": GROUP,
    "name": "Support",
    "topic": None,
    "createdAt": "2026-01-15T12:00:00.000Z",
    "announceOnly": False,
    "size": 1,
    "members": [{"identity": ADA_SHOWN, "role": "owner"}],
}


async def say(gateway: Gateway, asked: AskInstance, said: Answer | Refusal, *more: UUID) -> None:
    """Answer a question; and, under the ids in ``more``, questions that nobody asked."""
    for ask_id in (asked.ask_id, *more):
        answered = (
            InstanceAnswered(ask_id=ask_id, refusal=said)
            if isinstance(said, Refusal)
            else InstanceAnswered(ask_id=ask_id, answer=said)
        )
        await gateway.broker.publish(
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


async def answering(
    gateway: Gateway, request: Awaitable[Response], *said: Answer | Refusal
) -> tuple[Response, list[Question]]:
    """What is answered to a request whose questions are answered so, and these questions."""
    questions = []
    async with asyncio.TaskGroup() as group:
        response = group.create_task(_done(request))
        for one in said:
            asked: AskInstance = await gateway.heard.next(AskInstance, queue=shard_queue(7))
            questions.append(asked.question)
            await say(gateway, asked, one)
    return response.result(), questions


async def _done(request: Awaitable[Response]) -> Response:
    return await request


def asks(gateway: Gateway) -> int:
    """How many questions were asked that no test has looked at."""
    return sum(message.type == AskInstance.TYPE for message in gateway.heard.messages)


@pytest.fixture
async def user(gateway: Gateway) -> tuple[Customer, UUID]:
    """Somebody with a ready linked device."""
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    return ada, await an_instance(gateway.sql, tenant, engine="whatsmeow")


Ask = Callable[[Customer, str], Awaitable[Response]]
Case = tuple[str, Ask, Question, Answer, int, object]
ASKED: list[Case] = [
    (
        "profile",
        lambda who, at: who.get(f"{at}/profile"),
        TellProfile(),
        Profile(identity=ADA, about="Hi", picture_url="https://example.com/a.jpg"),
        200,
        {"identity": ADA_SHOWN, "about": "Hi", "pictureUrl": "https://example.com/a.jpg"},
    ),
    (
        "groups",
        lambda who, at: who.get(f"{at}/groups"),
        ListGroups(),
        Groups(groups=(THE_GROUP,)),
        200,
        [THE_GROUP_SHOWN],
    ),
    (
        "group",
        lambda who, at: who.get(f"{at}/groups/{GROUP}"),
        TellGroup(group=GROUP),
        THE_GROUP,
        200,
        THE_GROUP_SHOWN,
    ),
    (
        "group by its number",
        lambda who, at: who.get(f"{at}/groups/120363000000000001"),
        TellGroup(group=GROUP),
        THE_GROUP,
        200,
        THE_GROUP_SHOWN,
    ),
    (
        "new group",
        lambda who, at: who.post(
            f"{at}/groups", {"name": " Support ", "members": ["+12025550142", "12025550142"]}
        ),
        CreateGroup(name="Support", members=("12025550142@s.whatsapp.net",)),
        THE_GROUP,
        201,
        THE_GROUP_SHOWN,
    ),
    (
        "members",
        lambda who, at: who.post(
            f"{at}/groups/{GROUP}/members", {"change": "promote", "members": ["+12025550142"]}
        ),
        ChangeMembers(group=GROUP, change="promote", members=("12025550142@s.whatsapp.net",)),
        ChangedMembers(members=(ChangedMember(address="12025550142@s.whatsapp.net", error="403"),)),
        200,
        [{"member": "12025550142@s.whatsapp.net", "error": "403"}],
    ),
    (
        "invite link",
        lambda who, at: who.get(f"{at}/groups/{GROUP}/invite-link"),
        TellInviteLink(group=GROUP),
        InviteLink(url="https://chat.whatsapp.com/x"),
        200,
        {"url": "https://chat.whatsapp.com/x"},
    ),
    (
        "new invite link",
        lambda who, at: who.post(f"{at}/groups/{GROUP}/invite-link"),
        TellInviteLink(group=GROUP, renew=True),
        InviteLink(url="https://chat.whatsapp.com/y"),
        200,
        {"url": "https://chat.whatsapp.com/y"},
    ),
    (
        "leaving",
        lambda who, at: who.call("DELETE", f"{at}/groups/{GROUP}"),
        LeaveGroup(group=GROUP),
        Done(),
        200,
        {"id": GROUP, "left": True},
    ),
]


@pytest.mark.parametrize("case", ASKED, ids=[case[0] for case in ASKED])
async def test_a_question_goes_to_the_instances_shard_and_its_answer_is_answered(
    gateway: Gateway, user: tuple[Customer, UUID], case: Case
) -> None:
    _, ask, question, answer, status, data = case
    ada, instance = user
    response, asked = await answering(gateway, ask(ada, f"/api/instances/{instance}"), answer)
    assert asked == [question]
    assert (response.status, response.data) == (status, data)


async def test_an_instance_key_asks_about_its_own_groups_without_naming_the_instance(
    gateway: Gateway, sender: Sender
) -> None:
    response, asked = await answering(
        gateway, sender.customer.get("/api/groups"), Groups(groups=())
    )
    assert (response.data, asked) == ([], [ListGroups()])
    assert response.body["pagination"] == {"limit": 0, "nextCursor": None, "hasMore": False}
    ada, _ = await gateway.register()
    assert (await ada.get("/api/groups")).status == 403


REFUSALS = [
    ("INSTANCE_NOT_READY", 409, "INSTANCE_NOT_READY"),
    ("UNSUPPORTED", 422, "VALIDATION_FAILED"),
    ("REJECTED", 422, "VALIDATION_FAILED"),
    ("NOT_FOUND", 404, "NOT_FOUND"),
    ("CONFLICT", 409, "CONFLICT"),
    ("RATE_LIMIT_EXCEEDED", 429, "RATE_LIMIT_EXCEEDED"),
    ("ENGINE_UNAVAILABLE", 503, "ENGINE_UNAVAILABLE"),
    ("UNCONFIRMED", 504, "UNCONFIRMED"),
    ("INTERNAL_SERVER_ERROR", 422, "VALIDATION_FAILED"),
]


async def test_a_refusal_is_told_in_a_public_code_with_its_sentence(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    for code, status, shown in REFUSALS:
        response, _ = await answering(
            gateway,
            ada.get(f"/api/instances/{instance}/profile"),
            Refusal(code=code, message="WhatsApp says no."),
        )
        assert (response.status, response.code) == (status, shown)
        assert "WhatsApp says no" in response.body["error"]["message"]
        assert ("Retry-After" in response.headers) == (status in {429, 503})


async def test_what_comes_late_twice_or_unasked_changes_nothing(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    first = Profile(identity=ADA, about="first")
    async with asyncio.TaskGroup() as group:
        response = group.create_task(ada.get(f"/api/instances/{instance}/profile"))
        asked: AskInstance = await gateway.heard.next(AskInstance)
        await say(gateway, asked, first, new_id(), asked.ask_id)
        await say(gateway, asked, Refusal(code="NOT_FOUND", message="Too late."))
    await say(gateway, asked, first)
    assert response.result().data["about"] == "first"
    assert asked.request_id == response.result().headers["X-Request-Id"]


async def test_an_answer_of_another_kind_is_a_mistake_of_ours(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    response, _ = await answering(gateway, ada.get(f"/api/instances/{instance}/profile"), Done())
    assert (response.status, response.code) == (500, "INTERNAL_SERVER_ERROR")


async def test_without_an_answer_in_time_one_is_told_what_to_do(database_url: str) -> None:
    async with gateway_support.running(database_url, ask_seconds=0.2) as gateway:
        ada, account = await gateway.register()
        instance = await an_instance(gateway.sql, UUID(account["organization"]["id"]))
        at = f"/api/instances/{instance}/groups"
        asked, made = await asyncio.gather(
            ada.get(at), ada.post(at, {"name": "x", "members": ["+12025550142"]})
        )
        assert (asked.status, asked.code) == (503, "ENGINE_UNAVAILABLE")
        assert "ask again in a moment" in asked.body["error"]["message"]
        assert asked.headers["Retry-After"] == "5"
        # Whoever repeats it blindly may get two groups.
        assert (made.status, made.code) == (504, "UNCONFIRMED")
        assert "look before you ask again" in made.body["error"]["message"]
        assert "Retry-After" not in made.headers
        # It waits no longer than the question is good for.
        question: AskInstance = await gateway.heard.next(AskInstance)
        assert question.until - gateway.clock.now() < timedelta(seconds=0.2)


async def test_more_than_may_wait_are_refused_at_once(database_url: str) -> None:
    async with gateway_support.running(database_url, asks_at_once=1) as gateway:
        ada, account = await gateway.register()
        instance = await an_instance(gateway.sql, UUID(account["organization"]["id"]))
        at = f"/api/instances/{instance}/profile"
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ada.get(at))
            asked: AskInstance = await gateway.heard.next(AskInstance)
            refused = await ada.get(at)
            assert (refused.status, refused.code) == (503, "ENGINE_UNAVAILABLE")
            await say(gateway, asked, Profile(identity=ADA))
        assert first.result().status == 200
        assert (await answering(gateway, ada.get(at), Profile(identity=ADA)))[0].status == 200


async def test_when_the_process_stops_nobody_waits_any_longer() -> None:
    broker = MemoryBroker(raise_failures=True)
    heard = Heard()
    asking = Asking(
        broker=broker,
        clock=SystemClock(),
        metrics=GatewayMetrics(CollectorRegistry()),
        deadline=timedelta(seconds=30),
        most=10,
    )

    async def ask() -> Profile:
        return await asking.ask(
            TellProfile(), Profile, instance_id=new_id(), shard=7, request_id="r"
        )

    queue = Subscription(queue=shard_queue(7), receive=heard.receive)
    async with broker.subscribe(queue), asking.listening():
        waiting = asyncio.ensure_future(ask())
        await heard.next(AskInstance)
        asking.close()
        for one in (waiting, ask()):
            with pytest.raises(Transient, match="restarted"):
                await one


@pytest.mark.parametrize("status", ["created", "qr", "connecting", "disconnected", "banned"])
async def test_an_instance_that_is_not_ready_is_not_asked(gateway: Gateway, status: str) -> None:
    ada, account = await gateway.register()
    instance = await an_instance(
        gateway.sql, UUID(account["organization"]["id"]), status=status, connected=True
    )
    refused = await ada.get(f"/api/instances/{instance}/groups")
    assert (refused.status, refused.code) == (409, "INSTANCE_NOT_READY")
    assert refused.body["error"]["data"] == {"status": status}
    assert asks(gateway) == 0


async def test_what_an_engine_cannot_do_is_not_asked_of_it(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    instance = await an_instance(
        gateway.sql, UUID(account["organization"]["id"]), engine="pigeon", status="qr"
    )
    at = f"/api/instances/{instance}"
    numbers = {"numbers": ["+12025550142"], "instanceId": str(instance)}
    for request in (
        ada.get(f"{at}/groups"),
        ada.get(f"{at}/profile"),
        ada.post(f"{at}/pairing-code", {"phoneNumber": "+12025550142"}),
        ada.post("/api/contacts/check", numbers),
    ):
        refused = await request
        assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
        assert refused.body["error"]["data"]["capabilities"] == []
    assert asks(gateway) == 0


async def test_wrong_groups_and_members_are_refused_without_asking(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    at = f"/api/instances/{instance}/groups"
    for group in ("x", "12025550142@s.whatsapp.net", "1@lid"):
        assert (await ada.get(f"{at}/{group}")).status == 404
    for body in (
        {"name": "x", "members": []},
        {"name": "", "members": ["+12025550142"]},
        {"name": "x", "members": [GROUP]},
        {"name": "x", "members": ["nobody"]},
    ):
        assert (await ada.post(at, body)).status == 422
    wrong = {"change": "ban", "members": ["+12025550142"]}
    assert (await ada.post(f"{at}/{GROUP}/members", wrong)).status == 422
    assert asks(gateway) == 0


async def test_a_group_is_made_once_under_one_key(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    at, body = f"/api/instances/{instance}/groups", {"name": "x", "members": ["+12025550142"]}
    headers = {"Idempotency-Key": "group-1"}
    async with asyncio.TaskGroup() as group:
        made = group.create_task(ada.post(at, body, headers=headers))
        asked: AskInstance = await gateway.heard.next(AskInstance)
        meanwhile = await ada.post(at, body, headers=headers)
        assert (meanwhile.status, meanwhile.code) == (409, "CONFLICT")
        await say(gateway, asked, THE_GROUP)
    again = await ada.post(at, body, headers=headers)
    assert again.data == made.result().data == THE_GROUP_SHOWN
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await ada.post(at, {**body, "name": "y"}, headers=headers)
    assert other.code == "IDEMPOTENCY_MISMATCH"
    assert asks(gateway) == 0


async def test_a_group_that_was_refused_may_be_tried_again_under_its_key(
    gateway: Gateway, user: tuple[Customer, UUID]
) -> None:
    ada, instance = user
    at, body = f"/api/instances/{instance}/groups", {"name": "x", "members": ["+12025550142"]}
    headers = {"Idempotency-Key": "group-1"}
    no = Refusal(code="REJECTED", message="No.")
    refused, _ = await answering(gateway, ada.post(at, body, headers=headers), no)
    assert refused.status == 422
    made, _ = await answering(gateway, ada.post(at, body, headers=headers), THE_GROUP)
    assert made.status == 201


# Pairing


@pytest.mark.parametrize("status", ["connecting", "qr"])
async def test_a_code_is_asked_for_while_the_instance_waits_for_a_phone(
    gateway: Gateway, status: str
) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(gateway.sql, tenant, engine="whatsmeow", status=status)
    expires_at = datetime(2026, 1, 15, 12, 3, tzinfo=UTC)
    response, asked = await answering(
        gateway,
        ada.post(f"/api/instances/{instance}/pairing-code", {"phoneNumber": "+1 202 555 0142"}),
        PairingCode(code="ABCD-EFGH", expires_at=expires_at),
    )
    assert asked == [PairByCode(phone_number="+12025550142")]
    assert response.data == {"code": "ABCD-EFGH", "expiresAt": "2026-01-15T12:03:00.000Z"}


STATES = [
    ("created", False, "connect it first"),
    ("pairing", True, "being linked"),
    ("ready", True, "paired already"),
    ("disconnected", True, "connect it first"),
    ("logged_out", True, "connect it first"),
    ("banned", True, "banned"),
    ("failed", True, "lastError"),
    ("qr", False, "connect it first"),
]


@pytest.mark.parametrize(("status", "connected", "advice"), STATES)
async def test_in_any_other_state_both_codes_say_which_it_is_and_what_to_do(
    gateway: Gateway, status: str, connected: bool, advice: str
) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    instance = await an_instance(
        gateway.sql, tenant, engine="whatsmeow", status=status, connected=connected
    )
    at = f"/api/instances/{instance}"
    for refused in (
        await ada.post(f"{at}/pairing-code", {"phoneNumber": "+12025550142"}),
        await ada.get(f"{at}/qr"),
    ):
        assert (refused.status, refused.code) == (409, "CONFLICT")
        assert refused.body["error"]["data"] == {"status": status}
        assert f"the instance is {status}; " in refused.body["error"]["message"]
        assert advice in refused.body["error"]["message"]
    assert asks(gateway) == 0


# Numbers


async def test_numbers_are_asked_about_in_batches_and_invalid_ones_not_at_all(
    gateway: Gateway, sender: Sender
) -> None:
    numbers = [f"+1202555{n:04d}" for n in range(60)]
    wrong = ["nobody", GROUP, "0151 12345678"]
    digits = [number.removeprefix("+") for number in numbers]
    doubled = "1 (202) 555-0000"

    def checked(part: list[str]) -> CheckedNumbers:
        return CheckedNumbers(
            numbers=tuple(
                CheckedNumber(
                    number=one,
                    on_whatsapp=one.endswith("0"),
                    address=f"{one}@lid" if one.endswith("0") else None,
                )
                for one in part
            )
        )

    response, asked = await answering(
        gateway,
        sender.customer.post("/api/contacts/check", {"numbers": [*wrong, *numbers, doubled]}),
        checked(digits[:50]),
        checked(digits[50:]),
    )
    assert asked == [
        CheckNumbers(numbers=tuple(digits[:50])),
        CheckNumbers(numbers=tuple(digits[50:])),
    ]
    assert response.status == 200
    found = {one["input"]: one for one in response.data}
    assert [one["input"] for one in response.data] == [*wrong, *numbers, doubled]
    for one in wrong:
        assert (found[one]["valid"], found[one]["onWhatsApp"], found[one]["jid"]) == (
            False,
            False,
            None,
        )
        assert found[one]["reason"]
    for one in ("+12025550000", doubled):
        assert found[one] == {
            "input": one,
            "valid": True,
            "onWhatsApp": True,
            "jid": "12025550000@lid",
            "reason": None,
        }
    assert (found["+12025550001"]["onWhatsApp"], found["+12025550001"]["jid"]) == (False, None)


async def test_all_batches_together_have_the_time_of_one_question(database_url: str) -> None:
    async with gateway_support.running(database_url, ask_seconds=1) as gateway:
        sender = await gateway.sender()
        numbers = [f"+1202555{n:04d}" for n in range(60)]
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(
                sender.customer.post("/api/contacts/check", {"numbers": numbers})
            )
            first: AskInstance = await gateway.heard.next(AskInstance)
            assert isinstance(first.question, CheckNumbers)
            checked = [
                CheckedNumber(number=one, on_whatsapp=True) for one in first.question.numbers
            ]
            await say(gateway, first, CheckedNumbers(numbers=tuple(checked)))
            second: AskInstance = await gateway.heard.next(AskInstance)
            assert second.until - first.until < timedelta(milliseconds=50)
        assert waiting.result().code == "ENGINE_UNAVAILABLE"


async def test_if_all_numbers_are_invalid_nobody_is_asked(gateway: Gateway) -> None:
    sender = await gateway.sender(status="disconnected")
    response = await sender.customer.post("/api/contacts/check", {"numbers": ["nobody"]})
    assert (response.status, response.data[0]["valid"]) == (200, False)
    assert asks(gateway) == 0
    too_many = await sender.customer.post(
        "/api/contacts/check", {"numbers": [f"+1202555{n:04d}" for n in range(501)]}
    )
    assert too_many.status == 422


async def test_checking_takes_its_own_permission(gateway: Gateway, sender: Sender) -> None:
    none: dict[str, Any] = {"contacts": {"check": False}}
    key, _ = await gateway.key(sender.instance, sender.tenant, permissions=none)
    refused = await key.post("/api/contacts/check", {"numbers": ["+12025550142"]})
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
