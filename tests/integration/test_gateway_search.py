"""Searching what was said, and who sees how much of it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from services.dispatcher.store import history
from services.gateway.store import messages
from shared.security.sealing import Key, KeyRing
from tests.support.builders import a_message_row, an_instance, an_organization
from tests.support.customer import Answer
from tests.support.gateway import PASSWORD, Gateway, Sender, running
from tests.support.keys import KEYS, RING


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as made:
        yield made


@pytest.fixture
async def sender(gateway: Gateway) -> Sender:
    return await gateway.sender()


async def say(gateway: Gateway, sender: Sender, *texts: str, ring: KeyRing = RING) -> list[str]:
    """Messages with these texts, indexed; their ids."""
    ids = []
    for text in texts:
        id_ = await a_message_row(
            gateway.sql, sender.tenant, sender.instance, text=text, status="sent", ring=ring
        )
        ids.append(str(id_))
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET words = '{}' WHERE id = ANY ($1::uuid[])",
        [UUID(id_) for id_ in ids],
    )
    # By the dispatcher's step, as the database's owner: the grants are others' tests.
    async with gateway.sql.transaction():
        indexed = await history.index(gateway.sql, ring=ring, limit=1000)  # type: ignore[arg-type]
        assert indexed >= len(texts)
    return ids


async def search(sender: Sender, query: str, more: str = "") -> Answer:
    return await sender.customer.get(f"/api/messages?search={query}{more}")


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [one["id"] for one in answer.data]


async def test_messages_are_found_by_all_of_their_words_newest_first(
    gateway: Gateway, sender: Sender
) -> None:
    one, two, three = await say(
        gateway, sender, "Invoice for March", "invoice for april", "March of the penguins"
    )
    assert ids(await search(sender, "invoice")) == [two, one]
    assert ids(await search(sender, "MARCH+invoice")) == [one]
    assert ids(await search(sender, "march")) == [three, one]
    assert ids(await search(sender, "may")) == []
    shown = (await search(sender, "april")).data[0]
    assert shown["content"] == {"kind": "text", "text": "invoice for april"}


async def test_pages_follow_one_another_and_filters_hold(gateway: Gateway, sender: Sender) -> None:
    said = await say(gateway, sender, *(f"hello {number}" for number in range(5)))
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET status = 'read' WHERE id = $1", UUID(said[1])
    )
    assert ids(await search(sender, "hello", "&status=read")) == [said[1]]
    seen: list[str] = []
    more = "&limit=2"
    while True:
        answer = await search(sender, "hello", more)
        seen += ids(answer)
        if not answer.body["pagination"]["hasMore"]:
            break
        more = f"&limit=2&cursor={answer.body['pagination']['nextCursor']}"
    assert seen == said[::-1]


async def test_a_search_that_looks_at_too_much_goes_on_from_where_it_stopped(
    gateway: Gateway, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LOOKED_AT", 3)
    said = await say(gateway, sender, *["needle hay"], *["hay only"] * 7)
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET status = 'read' WHERE id = $1", UUID(said[0])
    )
    found: list[str] = []
    pages, more = 0, ""
    while True:
        answer = await search(sender, "hay", f"&status=read{more}")
        found += ids(answer)
        pages += 1
        if not answer.body["pagination"]["hasMore"]:
            break
        more = f"&cursor={answer.body['pagination']['nextCursor']}"
    assert (found, pages) == ([said[0]], 3)


async def test_nobody_finds_what_another_tenant_said(gateway: Gateway, sender: Sender) -> None:
    await say(gateway, sender, "secret")
    other = await gateway.sender()
    assert ids(await search(other, "secret")) == []
    instance = await an_instance(gateway.sql, sender.tenant)
    colleague, _ = await gateway.key(instance, sender.tenant)
    assert ids(await search(Sender(colleague, instance, sender.tenant), "secret")) == []


async def test_without_a_history_it_says_how_to_have_one(
    gateway: Gateway, database_url: str
) -> None:
    tenant = await an_organization(gateway.sql, content_storage="none")
    instance = await an_instance(gateway.sql, tenant)
    customer, _ = await gateway.key(instance, tenant)
    refused = await customer.get("/api/messages?search=hello")
    assert (refused.status, refused.code) == (409, "CONFLICT")
    assert '{"contentStorage": "encrypted"}' in refused.body["error"]["message"]


@pytest.mark.parametrize(
    "query", ["%E2%80%A6", "a+b+c+d+e+f+g+h+i+j+k", "", "x" * 201, "a&page=1", "a&offset=1"]
)
async def test_what_is_no_search_is_refused(sender: Sender, query: str) -> None:
    assert (await search(sender, query)).status == 422


async def test_after_a_rotation_words_under_the_old_key_are_still_found(
    gateway: Gateway, database_url: str
) -> None:
    sender = await gateway.sender()
    new = Key.new("new")
    [old] = await say(gateway, sender, "hello old")
    async with running(database_url, encryption_keys=f"{new.written()},{KEYS}") as rotated:
        both = KeyRing([new, Key.parse(KEYS)])
        [young] = await say(gateway, sender, "hello new", ring=both)
        customer = Sender(
            type(sender.customer)(rotated.http, rotated.url, sender.customer.headers),
            sender.instance,
            sender.tenant,
        )
        assert ids(await search(customer, "hello")) == [young, old]
        assert ids(await search(customer, "hello+old")) == [old]


async def test_an_organization_chooses_and_is_told_how_far_its_erasing_is(
    gateway: Gateway,
) -> None:
    ada, account = await gateway.register()
    shown = (await ada.get("/api/organization")).data
    assert (shown["contentStorage"], shown["retentionDays"], shown["piiMasking"]) == (
        "none",
        0,
        False,
    )
    assert shown["contentErasure"] is None

    async def change(**body: Any) -> Answer:
        return await ada.call("PUT", "/api/organization", json=body)

    changed = await change(contentStorage="encrypted", retentionDays=90, piiMasking=True)
    assert changed.data["contentStorage"] == "encrypted"
    assert changed.data["contentErasure"] is None
    back = (await change(contentStorage="none")).data
    assert back["contentErasure"]["state"] == "waiting"
    assert (back["retentionDays"], back["piiMasking"]) == (90, True)
    for wrong in (
        {"contentStorage": "plain"},
        {"retentionDays": -1},
        {"retentionDays": 3651},
        {"piiMasking": "maybe"},
    ):
        assert (await change(**wrong)).status == 422, wrong
    assert account["organization"]["contentStorage"] == "none"


async def test_who_is_not_to_know_numbers_sees_their_ends(gateway: Gateway) -> None:
    ada, account = await gateway.register()
    tenant = UUID(account["organization"]["id"])
    user = UUID(account["user"]["id"])
    instance = await an_instance(gateway.sql, tenant)
    message = await a_message_row(gateway.sql, tenant, instance, status="sent", ring=RING)
    await gateway.sql.execute(
        "INSERT INTO gateway.assignments (user_id, instance_id, assigned_at)"
        " VALUES ($1, $2, now())",
        user,
        instance,
    )
    assert (await ada.call("PUT", "/api/organization", json={"piiMasking": True})).status == 200
    for role, to, reads in (
        ("admin", "+12025550199", True),
        ("agent", "+1202•••0199", True),
        ("viewer", "+1202•••0199", False),
    ):
        await gateway.sql.execute("UPDATE gateway.users SET role = $1 WHERE id = $2", role, user)
        customer = gateway.with_token((await login(gateway)).data["token"])
        listed = (await customer.get("/api/messages")).data
        single = (await customer.get(f"/api/messages/{message}")).data
        for shown in (*listed, single):
            assert (shown["to"], shown["content"] is not None) == (to, reads), role
            assert shown["contentErased"] is False
            assert ("12025550199" in str(shown)) is (role == "admin")


async def login(gateway: Gateway) -> Answer:
    """Ada again, with the role that she has by now."""
    return await gateway.stranger().post(
        "/api/auth/login", {"email": "ada@example.com", "password": PASSWORD}
    )
