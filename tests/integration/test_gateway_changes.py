"""Editing and revoking messages: accepted as messages of their own, in time, and shown."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from services.gateway.domain.changing import EDITABLE_FOR, REVOCABLE_FOR
from shared.contracts.content import Edit, Revoke, Sendable
from shared.ids import new_id
from shared.messaging.contents import seal
from shared.security.sealing import Key, KeyRing
from tests.integration.test_gateway_kinds import GROUP, a_row
from tests.support.customer import Answer
from tests.support.gateway import Gateway, Sender
from tests.support.keys import said

CONTENT: TypeAdapter[Sendable] = TypeAdapter(Sendable)
SECOND = timedelta(seconds=1)


async def edit(sender: Sender, message: UUID, words: str = "New", **more: Any) -> Answer:
    return await sender.customer.call(
        "PUT", f"/api/messages/{message}", json={"message": words, **more}
    )


async def revoke(sender: Sender, message: UUID) -> Answer:
    return await sender.customer.call("DELETE", f"/api/messages/{message}")


async def a_sent_row(gateway: Gateway, sender: Sender, **given: Any) -> UUID:
    return await a_row(
        gateway, sender, **{"status": "sent", "sent_at": gateway.clock.now(), **given}
    )


async def test_an_edit_and_a_revocation_are_messages_about_a_message(
    gateway: Gateway, sender: Sender
) -> None:
    target = await a_sent_row(gateway, sender, chat=GROUP, recipient=GROUP)
    engine_id = "3EB0" + target.hex[:18].upper()
    edited = await edit(sender, target, metadata={"why": "typo"})
    revoked = await revoke(sender, target)
    for answer, kind, content in (
        (edited, "edit", Edit(target_id=engine_id, text="New")),
        (revoked, "revoke", Revoke(target_id=engine_id)),
    ):
        assert answer.status == 202, answer.body
        assert answer.data["targetId"] == str(target)
        assert answer.data["to"] == GROUP
        row = await gateway.row(
            "SELECT * FROM dispatcher.messages WHERE id = $1", UUID(answer.data["id"])
        )
        assert (row["type"], row["status"], row["chat"]) == (kind, "queued", GROUP)
        assert row["target_id"] == target
        sent_at = await gateway.sql.fetchval(
            "SELECT sent_at FROM dispatcher.messages WHERE id = $1", target
        )
        assert row["expires_at"] == sent_at + (EDITABLE_FOR if kind == "edit" else REVOCABLE_FOR)
        assert CONTENT.validate_json(said(row)) == content
    shown = (await sender.customer.get(f"/api/messages/{edited.data['id']}")).data
    assert shown["targetId"] == str(target)
    assert shown["metadata"] == {"why": "typo"}


@pytest.mark.parametrize(
    ("given", "edits", "revokes"),
    [
        ({}, 202, 202),
        ({"status": "delivered"}, 202, 202),
        ({"status": "read"}, 202, 202),
        ({"status": "queued", "sent_at": None}, 409, 409),
        ({"status": "unconfirmed", "sent_at": None}, 409, 409),
        ({"status": "failed", "sent_at": None}, 409, 409),
        ({"direction": "inbound", "status": "received", "sent_at": None}, 422, 422),
        ({"type": "image"}, 422, 202),
        ({"type": "reaction"}, 422, 422),
        ({"type": "edit"}, 422, 422),
        ({"type": "revoke"}, 422, 422),
    ],
)
async def test_only_what_was_sent_can_be_changed_and_only_texts_have_words_to_change(
    gateway: Gateway, sender: Sender, given: dict[str, Any], edits: int, revokes: int
) -> None:
    message = await a_sent_row(gateway, sender, **given)
    edited, revoked = await edit(sender, message), await revoke(sender, message)
    assert (edited.status, revoked.status) == (edits, revokes), (edited.body, revoked.body)
    for answer in (edited, revoked):
        assert answer.status == 202 or answer.code in {"CONFLICT", "VALIDATION_FAILED"}


@pytest.mark.parametrize(
    ("age", "edits", "revokes"),
    [
        (EDITABLE_FOR - 10 * SECOND, 202, 202),
        (EDITABLE_FOR + SECOND, 409, 202),
        (REVOCABLE_FOR - 10 * SECOND, 409, 202),
        (REVOCABLE_FOR + SECOND, 409, 409),
    ],
)
async def test_whatsapp_lets_words_be_changed_for_minutes_and_messages_be_deleted_for_days(
    gateway: Gateway, sender: Sender, age: timedelta, edits: int, revokes: int
) -> None:
    message = await a_sent_row(gateway, sender, sent_at=gateway.clock.now() - age)
    assert (await edit(sender, message)).status == edits
    assert (await revoke(sender, message)).status == revokes


async def test_what_is_deleted_can_neither_be_edited_nor_deleted_nor_reacted_to(
    gateway: Gateway, sender: Sender
) -> None:
    message = await a_sent_row(gateway, sender, revoked_at=gateway.clock.now())
    assert (await edit(sender, message)).code == "CONFLICT"
    assert (await revoke(sender, message)).code == "CONFLICT"
    reaction = await sender.customer.post(
        "/api/messages/reaction", {"messageId": str(message), "emoji": "👍"}
    )
    assert reaction.status == 422


async def test_a_repeated_edit_under_a_key_gets_the_first_answer_also_after_its_time(
    gateway: Gateway, sender: Sender
) -> None:
    message = await a_sent_row(gateway, sender)
    headers = {"Idempotency-Key": "edit-1"}
    path = f"/api/messages/{message}"
    first = await sender.customer.call("PUT", path, json={"message": "New"}, headers=headers)
    gateway.clock.move(timedelta(hours=1))
    again = await sender.customer.call("PUT", path, json={"message": "New"}, headers=headers)
    assert again.data == first.data
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_an_instance_that_is_not_ready_changes_nothing(gateway: Gateway) -> None:
    sender = await gateway.sender(status="logged_out")
    message = await a_sent_row(gateway, sender)
    assert (await edit(sender, message)).code == "INSTANCE_NOT_READY"
    assert (await revoke(sender, message)).code == "INSTANCE_NOT_READY"


async def test_unknown_ids_and_empty_words_are_refused(gateway: Gateway, sender: Sender) -> None:
    assert (await edit(sender, new_id())).status == 404
    message = await a_sent_row(gateway, sender)
    assert (await edit(sender, message, "")).status == 422
    assert (await edit(sender, message, "x" * 4097)).status == 422


async def test_the_timeline_and_the_message_show_what_became_of_it(
    gateway: Gateway, sender: Sender
) -> None:
    now = gateway.clock.now()
    message = await a_sent_row(gateway, sender)
    changes = {}
    for seconds, kind in enumerate(("reaction", "edit", "edit", "revoke"), start=1):
        changes[seconds] = await a_row(
            gateway,
            sender,
            type=kind,
            status="sent",
            sent_at=now + seconds * SECOND,
            target_id=message,
            content='{"kind": "reaction", "emoji": "👍"}' if kind == "reaction" else "{}",
        )
    await a_row(gateway, sender, type="edit", status="queued", target_id=message)
    for column in ("edited_at", "revoked_at"):
        await gateway.sql.execute(
            f"UPDATE dispatcher.messages SET {column} = $1 WHERE id = $2", now, message
        )
    hops = (await sender.customer.get(f"/api/messages/{message}/timeline")).data
    told = [(hop["hop"], hop["details"]) for hop in hops if hop["hop"] not in {"accepted", "sent"}]
    assert told == [
        ("reacted", {"messageId": str(changes[1]), "emoji": "👍"}),
        ("edited", {"messageId": str(changes[2])}),
        ("edited", {"messageId": str(changes[3])}),
        ("revoked", {"messageId": str(changes[4])}),
    ]
    shown = (await sender.customer.get(f"/api/messages/{message}")).data
    assert (
        shown["editedAt"] == shown["revokedAt"] == now.isoformat(timespec="milliseconds")[:23] + "Z"
    )


async def test_a_reaction_that_no_key_opens_is_on_the_timeline_without_its_emoji(
    gateway: Gateway, sender: Sender
) -> None:
    message = await a_sent_row(gateway, sender)
    reaction = await a_sent_row(gateway, sender, type="reaction", target_id=message)
    sealed = seal(KeyRing([Key.new("lost")]), sender.tenant, reaction, "{}")
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET content = NULL, sealed = $1 WHERE id = $2", sealed, reaction
    )
    answer = await sender.customer.get(f"/api/messages/{message}/timeline")
    assert answer.status == 200, answer.body
    [reacted] = [hop for hop in answer.data if hop["hop"] == "reacted"]
    assert reacted["details"] == {"messageId": str(reaction)}


async def test_what_a_contact_did_to_its_message_is_on_the_timeline_too(
    gateway: Gateway, sender: Sender
) -> None:
    now = gateway.clock.now()
    message = await a_row(
        gateway,
        sender,
        status="received",
        direction="inbound",
        edited_at=now + SECOND,
        revoked_at=now + 2 * SECOND,
    )
    hops = (await sender.customer.get(f"/api/messages/{message}/timeline")).data
    assert [hop["hop"] for hop in hops] == ["received", "edited", "revoked"]
