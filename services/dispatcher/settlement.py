"""What happens to messages when something has become known about them; all of it in batches."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from services.dispatcher.domain import message as messages
from services.dispatcher.domain import outcomes
from services.dispatcher.domain.message import CHANGING, Message
from services.dispatcher.domain.outcomes import Failed, InDoubt, Sent, TryAgain
from services.dispatcher.store import settling, targets
from services.dispatcher.store.settling import Changes
from shared.contracts.commands import Receipt, SettledTransmission
from shared.contracts.envelope import Emitted
from shared.db.database import HotConnection
from shared.messaging import outbox
from shared.messaging.outbox import Stored
from shared.security.sealing import KeyRing


@dataclass(frozen=True, slots=True)
class Freed:
    """Instances that have fewer in flight, those where a chat's next came back in line, and what
    there is to publish once the transaction is committed."""

    instances: frozenset[UUID] = frozenset()
    unparked: frozenset[UUID] = frozenset()
    told: Sequence[Stored] = ()


def jitter() -> float:
    """A number from -1 to 1, so that those who failed together do not return together."""
    return random.uniform(-1, 1)  # noqa: S311 - spreads load, guards nothing


async def settle(
    connection: HotConnection,
    settled: Sequence[SettledTransmission],
    *,
    ring: KeyRing,
    now: datetime,
    jitter: Callable[[], float],
) -> Freed:
    """Decide what becomes of messages whose hand-over has ended.

    A report about a transmission that is no longer the message's own, because it was settled
    before or a receipt came first, changes nothing. Says what that sets free.
    """
    if not settled:
        return Freed()
    found = await settling.lock_messages(connection, (one.message_id for one in settled))
    changed: dict[UUID, Message] = {}
    due: dict[UUID, datetime] = {}
    errors: dict[UUID, tuple[datetime, str, str]] = {}
    throttled: dict[UUID, datetime] = {}
    told: list[Emitted] = []
    for one in settled:
        message = changed.get(one.message_id) or found.get(one.message_id)
        if message is None or message.transmission_id != one.transmission_id:
            continue
        message = replace(message, transmission_id=None)
        decision = outcomes.after(
            one,
            attempt=message.attempts,
            resend_unknown=message.on_unknown == "resend",
            jitter=jitter(),
        )
        match decision:
            case Sent(at):
                # Engines that choose the id by themselves say here which it is.
                id_ = one.engine_message_id or message.engine_message_id
                message = replace(message, status="sent", sent_at=at, engine_message_id=id_)
                told.append(messages.progress(message, "sent", at))
            case Failed(at, code, reason):
                message = replace(message, status="failed")
                errors[message.id] = (at, code, reason)
                told.append(messages.failure(message, code, reason, at))
            case TryAgain(due_at):
                message = replace(message, status="retrying")
                due[message.id] = due_at
                if one.retry_after is not None:
                    throttled[message.instance_id] = due_at
            case InDoubt(until):
                message = replace(message, status="unconfirmed")
                due[message.id] = until
            case _:
                assert_never(decision)
        changed[message.id] = message
    await settling.throttle(connection, throttled)
    done = list(changed.values())
    # One that will be tried again still holds its chat's place in line.
    out_of_line = [one for one in done if one.status != "retrying"]
    changes = Changes(
        messages=done,
        due=due,
        errors=errors,
        settled=settled,
        chats=messages.chats(out_of_line),
        told=[outbox.event(event) for event in told],
    )
    freed = await _write(connection, changes, now=now)
    await _change_targets(connection, done, ring=ring)
    return freed


async def receive(
    connection: HotConnection, receipts: Sequence[Receipt], *, ring: KeyRing, now: datetime
) -> Freed:
    """Move messages forward by what WhatsApp reports. Says what that sets free."""
    by_message: dict[UUID, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_message[receipt.message_id].append(receipt)
    found = await settling.lock_messages(connection, by_message)
    changed: list[Message] = []
    errors: dict[UUID, tuple[datetime, str, str]] = {}
    told: list[Emitted] = []
    for id_, message in found.items():
        after, events = messages.received(message, by_message[id_])
        if events:
            changed.append(replace(after, transmission_id=None))
            told += events
        if events and after.status == "failed":
            # Of several, the first that counted is the one that was told.
            taken_back = min(
                (receipt for receipt in by_message[id_] if receipt.kind == "failed"),
                key=lambda receipt: receipt.at,
            )
            errors[id_] = (taken_back.at, *messages.refusal(taken_back))
    if not changed:
        return Freed()
    # Nearly always it was sent long ago, and its chat went on then.
    out_of_line = [one for one in changed if found[one.id].transmission_id is not None]
    changes = Changes(
        messages=changed,
        errors=errors,
        chats=messages.chats(out_of_line),
        told=[outbox.event(event) for event in told],
    )
    freed = await _write(connection, changes, now=now)
    await _change_targets(connection, changed, ring=ring)
    return freed


async def fail(
    connection: HotConnection, found: Sequence[Message], *, code: str, reason: str, now: datetime
) -> Freed:
    """End messages that will not be sent. Says what that sets free."""
    changed = [replace(message, status="failed", transmission_id=None) for message in found]
    if not changed:
        return Freed()
    told = [messages.failure(message, code, reason, now) for message in changed]
    changes = Changes(
        messages=changed,
        errors={message.id: (now, code, reason) for message in changed},
        chats=messages.chats(changed),
        told=[outbox.event(event) for event in told],
    )
    return await _write(connection, changes, now=now)


async def _change_targets(
    connection: HotConnection, written: Sequence[Message], *, ring: KeyRing
) -> None:
    """Let edits and revocations that have been accepted show in what they are about."""
    accepted = [one.id for one in written if one.type in CHANGING and one.sent_at]
    if accepted:
        await targets.change(connection, accepted, ring=ring)


async def _write(connection: HotConnection, changes: Changes, *, now: datetime) -> Freed:
    unparked, told = await settling.write(connection, changes, now=now)
    instances = frozenset(one.instance_id for one in changes.messages)
    return Freed(instances, frozenset(unparked), told)
