"""Files over the API: uploaded, listed, downloaded, deleted."""

import asyncio
import base64
import io
import os
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from services.gateway.domain.permissions import Role
from shared.ids import new_id
from shared.media.store import MediaStore
from tests.support import gateway as gateway_support
from tests.support import object_store, samples
from tests.support.builders import NOON, a_message_row, an_instance
from tests.support.customer import Answer, Customer
from tests.support.files import an_inbound_file, download, form, sha256, upload, upload_base64
from tests.support.gateway import Gateway, Sender
from tests.support.media import media_settings
from tests.support.object_store import S3Server

LARGEST = 1024 * 1024
QUOTA = 3 * 1024 * 1024
BOUNDARY = "AaB03x"
FILE = b'--AaB03x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'


@pytest.fixture
def arriving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where files are while they arrive; nothing may be left there."""
    folder = tmp_path / "arriving"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
async def gateway(database_url: str, kept: Path, arriving: Path) -> AsyncIterator[Gateway]:
    async with gateway_support.running(
        database_url, media_store=str(kept), max_file_size=LARGEST, media_quota=QUOTA
    ) as running:
        yield running


@pytest.fixture
async def ada(gateway: Gateway) -> Customer:
    customer, _ = await gateway.register()
    return customer


async def raw(customer: Customer, body: bytes, boundary: str = BOUNDARY) -> Answer:
    """POST /api/media of a body that no library would write."""
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return await customer.call("POST", "/api/media", data=body, headers=headers)


def objects(kept: Path) -> list[str]:
    return sorted(path.name for path in kept.rglob("*") if path.is_file())


async def test_a_file_that_was_uploaded_can_be_looked_at_and_downloaded(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    made = await upload(ada, samples.png("one"), filename="Grüße.png")
    assert made.status == 201
    size = len(samples.png("one"))
    assert {**made.data, "id": 0, "createdAt": 0} == {
        "id": 0,
        "source": "upload",
        "instanceId": None,
        "status": "stored",
        "mimeType": "image/png",
        "size": size,
        "sha256": sha256(samples.png("one")),
        "filename": "Grüße.png",
        "error": None,
        "createdAt": 0,
    }
    assert (await ada.get(f"/api/media/{made.data['id']}")).data == made.data
    assert objects(kept) == [sha256(samples.png("one"))]

    got = await download(ada, made.data["id"])
    assert (got.status, got.body) == (200, samples.png("one"))
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["Content-Length"] == str(size)
    assert got.headers["ETag"] == f'"{sha256(samples.png("one"))}"'
    assert got.headers["Accept-Ranges"] == "bytes"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in got.headers["Content-Security-Policy"]
    assert got.headers["Content-Disposition"] == (
        "attachment; filename=\"Gr__e.png\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.png"
    )


async def test_the_older_path_uploads_too(ada: Customer) -> None:
    made = await ada.call("POST", "/api/media/upload", data=form(samples.png()))
    assert (made.status, made.data["mimeType"]) == (201, "image/png")


async def test_a_file_may_come_as_base64(ada: Customer) -> None:
    for prefix in ("", "data:image/png;base64,"):
        body = {"base64": prefix + base64.b64encode(samples.png()).decode(), "filename": "a/b.png"}
        made = await ada.post("/api/media", body)
        assert (made.status, made.data["filename"]) == (201, "b.png")
        assert (await download(ada, made.data["id"])).body == samples.png()


async def test_what_is_no_base64_is_told_so(gateway: Gateway, ada: Customer) -> None:
    for text in ("no base64!", "AAA", "data:image/png,plain", "data:;base64"):
        refused = await ada.post("/api/media", {"base64": text})
        fields = list(refused.body["error"]["data"]["fields"])
        assert (refused.status, fields) == (422, ["base64"]), text
    assert await gateway.count("gateway.media") == 0


async def test_what_is_too_large_is_refused_while_it_comes(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        head = samples.png()
        for _ in range(64):
            portion, head = head or bytes(LARGEST), b""
            sent += len(portion)
            yield portion

    refused = await upload(ada, endless())
    assert (refused.status, refused.code) == (413, "PAYLOAD_TOO_LARGE")
    assert refused.body["error"]["data"] == {"maxBytes": LARGEST}

    declared = await upload(ada, samples.png() + bytes(2 * LARGEST))
    assert declared.status == 413
    assert (await upload_base64(ada, bytes(LARGEST + 1))).status == 413
    assert await gateway.count("gateway.media") == 0
    assert objects(kept) == []


async def test_a_file_of_just_the_largest_size_is_taken(ada: Customer) -> None:
    content = (samples.png() + bytes(LARGEST))[:LARGEST]
    assert (await upload(ada, content)).data["size"] == LARGEST
    assert (await upload_base64(ada, content)).data["size"] == LARGEST


async def test_a_large_file_is_never_whole_in_memory(
    database_url: str, kept: Path, arriving: Path
) -> None:
    size = 48 * 1024 * 1024

    async def large() -> AsyncIterator[bytes]:
        yield samples.png()
        for _ in range(size // 65536):
            yield bytes(65536)

    async with gateway_support.running(
        database_url, media_store=str(kept), max_file_size=2 * size
    ) as gateway:
        ada, _ = await gateway.register()
        tracemalloc.start()
        try:
            made = await upload(ada, large())
            url = f"{gateway.url}/api/media/{made.data['id']}/download"
            async with gateway.http.get(url, headers=ada.headers) as response:
                got = 0
                async for chunk in response.content.iter_chunked(65536):
                    got += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert got == size + len(samples.png())
    assert peak < size / 4


async def test_a_type_that_is_not_taken_is_refused_whatever_it_is_called(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    for content in (
        b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
        samples.PROGRAM,
        samples.PROGRAM_OF_WINDOWS,
        bytes(range(1, 250)),
    ):
        refused = await upload(ada, content, filename="cat.png", content_type="image/png")
        assert (refused.status, refused.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert refused.body["error"]["data"]["mimeType"] != "image/png"
    assert await gateway.count("gateway.media") == 0
    assert objects(kept) == []


async def test_the_bytes_decide_over_name_and_header(ada: Customer) -> None:
    made = await upload(ada, samples.PDF, filename="cat.png", content_type="image/png")
    assert made.data["mimeType"] == "application/pdf"


async def test_a_kind_is_checked_at_once_if_it_is_named(ada: Customer) -> None:
    fits = await upload(ada, samples.png(), fields={"kind": "image"})
    assert fits.status == 201
    wrong = await upload(ada, samples.PDF, fields={"kind": "image"})
    assert (wrong.status, wrong.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    large = await upload(ada, samples.WEBP + bytes(600 * 1024), fields={"kind": "sticker"})
    assert (large.status, large.code) == (413, "PAYLOAD_TOO_LARGE")
    unknown = await upload(ada, samples.png(), fields={"kind": "hologram"})
    assert (unknown.status, list(unknown.body["error"]["data"]["fields"])) == (422, ["kind"])


async def test_a_form_that_does_not_fit_is_refused_by_field(
    gateway: Gateway, ada: Customer
) -> None:
    async def refused(**given: Any) -> list[str]:
        answer = await upload(ada, **{"content": samples.png(), **given})
        assert answer.status == 422, answer.body
        return list(answer.body["error"]["data"]["fields"])

    assert await refused(content=b"") == ["file"]
    assert await refused(field="picture") == ["picture"]
    assert await refused(fields={"colour": "red"}) == ["colour"]
    words = aiohttp.FormData({"kind": "image"}, default_to_multipart=True)
    answer = await ada.call("POST", "/api/media", data=words)
    assert list(answer.body["error"]["data"]["fields"]) == ["file"]
    twice = form(samples.png())
    twice.add_field("file", io.BytesIO(samples.png()), filename="b.png")
    answer = await ada.call("POST", "/api/media", data=twice)
    assert list(answer.body["error"]["data"]["fields"]) == ["file"]
    assert await gateway.count("gateway.media") == 0


BROKEN = [
    b"",
    b"no form at all",
    b"--AaB03x\r\n",
    FILE,
    FILE + b"\r\n",
    FILE + b"\r\n" + samples.png(),
    FILE + b"\r\n" + samples.png() + b"\r\n--AaB0",
    FILE + b"\r\n" + samples.png() + b"\r\n--AaB03x",
    b"--AaB03x\r\nno header\r\n\r\nx\r\n--AaB03x--\r\n",
    FILE + b"Content-Type: multipart/mixed; boundary=z\r\n\r\n--z\r\n\r\nx\r\n--z--\r\n--AaB03x--",
]


async def test_a_form_that_is_broken_or_cut_short_leaves_nothing(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    for body in BROKEN:
        answer = await raw(ada, body)
        assert answer.status in {400, 422}, body
    assert await gateway.count("gateway.media") == 0
    assert objects(kept) == []


async def test_a_part_that_is_encoded_is_refused(ada: Customer) -> None:
    for header in (b"Content-Transfer-Encoding: base64", b"Content-Encoding: gzip"):
        body = FILE + header + b"\r\n\r\niVBORw0KGgo=\r\n--AaB03x--\r\n"
        assert (await raw(ada, body)).status == 415


async def test_fields_beside_the_file_are_bounded(ada: Customer) -> None:
    long = await upload(ada, samples.png(), fields={"kind": "x" * 300_000})
    assert long.status == 413
    many = await upload(ada, samples.png(), fields={f"f{n}": "x" for n in range(60)})
    assert many.status == 422


async def test_what_is_neither_form_nor_json_is_refused(ada: Customer) -> None:
    answer = await ada.call(
        "POST", "/api/media", data=samples.png(), headers={"Content-Type": "image/png"}
    )
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_caller_that_hangs_up_half_way_leaves_nothing(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    under_way = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield samples.png() + bytes(300_000)
        under_way.set()
        await asyncio.Event().wait()

    request = asyncio.ensure_future(upload(ada, half()))
    await under_way.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    # The next request is answered after the gateway has noticed, or the fixture finds the rest.
    assert (await ada.get("/api/media")).data == []
    assert objects(kept) == []


async def test_the_same_key_and_file_upload_once(gateway: Gateway, ada: Customer) -> None:
    key = {"Idempotency-Key": "one"}
    first = await upload(ada, samples.png(), headers=key)
    again = await upload(ada, samples.png(), headers=key)
    assert (again.status, again.data) == (201, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await upload(ada, samples.png("other"), headers=key)
    assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
    renamed = await upload(ada, samples.png(), headers=key, filename="other.png")
    assert renamed.code == "IDEMPOTENCY_MISMATCH"
    assert await gateway.count("gateway.media") == 1


async def test_uploads_with_one_key_at_once_make_one_row(gateway: Gateway, ada: Customer) -> None:
    answers = await asyncio.gather(
        *(upload(ada, samples.png(), headers={"Idempotency-Key": "k"}) for _ in range(6))
    )
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.data["id"] for answer in answers if answer.status == 201}) == 1
    assert await gateway.count("gateway.media") == 1


async def test_the_same_content_is_kept_once_under_as_many_names_as_there_are(
    ada: Customer, kept: Path
) -> None:
    made = [await upload(ada, samples.png(), filename=f"{n}.png") for n in range(3)]
    assert len({answer.data["id"] for answer in made}) == 3
    assert objects(kept) == [sha256(samples.png())]
    storage = (await ada.get("/api/analytics/storage")).data
    assert storage["used"] == len(samples.png())


async def test_past_the_quota_nothing_is_taken_until_something_is_deleted(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    pictures = [(samples.png(str(n)) + bytes(LARGEST))[:LARGEST] for n in range(4)]
    made = [await upload(ada, picture) for picture in pictures[:3]]
    assert (await ada.get("/api/analytics/storage")).data == {
        "used": QUOTA,
        "limit": QUOTA,
        "percentUsed": 100.0,
        "received": 0,
    }
    refused = await upload(ada, pictures[3])
    assert (refused.status, refused.code) == (429, "QUOTA_EXCEEDED")
    assert refused.body["error"]["data"] == {"limit": QUOTA, "used": QUOTA, "size": LARGEST}
    assert sha256(pictures[3]) not in objects(kept)
    # What is there already takes no more room.
    assert (await upload(ada, pictures[0])).status == 201
    assert (await ada.call("DELETE", f"/api/media/{made[1].data['id']}")).status == 200
    assert (await upload(ada, pictures[3])).status == 201


async def test_uploads_at_once_do_not_pass_the_quota_together(
    gateway: Gateway, ada: Customer
) -> None:
    answers = await asyncio.gather(
        *(upload(ada, (samples.png(str(n)) + bytes(LARGEST))[:LARGEST]) for n in range(8))
    )
    assert sorted(answer.status for answer in answers) == [201] * 3 + [429] * 5
    assert (await ada.get("/api/analytics/storage")).data["used"] == QUOTA


async def test_what_is_received_takes_no_room_of_the_quota(gateway: Gateway, ada: Customer) -> None:
    sender = await gateway.sender()
    await an_inbound_file(gateway.sql, sender.tenant, sender.instance, size=QUOTA)
    await an_inbound_file(gateway.sql, sender.tenant, sender.instance, size=QUOTA)
    await an_inbound_file(
        gateway.sql, sender.tenant, sender.instance, size=7, sha256=sha256(b"other")
    )
    await an_inbound_file(
        gateway.sql, sender.tenant, sender.instance, size=9, sha256=None, status="waiting"
    )
    assert (await upload(sender.customer, samples.png())).status == 201
    tenant_user = await _user(gateway, sender)
    storage = (await tenant_user.get("/api/analytics/storage")).data
    assert (storage["used"], storage["received"]) == (len(samples.png()), QUOTA + 7)


async def _user(gateway: Gateway, sender: Sender, role: Role = Role.ADMIN) -> Customer:
    """A person of the same organization."""
    email = f"{new_id()}@example.com"
    customer, _ = await gateway.register(email)
    await gateway.sql.execute(
        "UPDATE gateway.users SET tenant_id = $1, role = $2 WHERE email = $3",
        sender.tenant,
        role,
        email,
    )
    gateway.clock.move(timedelta(seconds=5))
    return customer


async def test_a_list_shows_uploads_and_what_was_received_latest_first(gateway: Gateway) -> None:
    sender = await gateway.sender()
    user = await _user(gateway, sender)
    expected = []
    for minute in range(3):
        at = NOON + timedelta(minutes=minute)
        expected.append(
            await an_inbound_file(gateway.sql, sender.tenant, sender.instance, created_at=at)
        )
    # Two of the same moment: the cursor goes by both time and id.
    for _ in range(2):
        at = NOON + timedelta(minutes=9)
        expected.append(
            await an_inbound_file(gateway.sql, sender.tenant, sender.instance, created_at=at)
        )
    expected[3:] = sorted(expected[3:])
    expected += [(await upload(user, samples.png(str(n)))).data["id"] for n in range(2)]

    seen: list[str] = []
    cursor = ""
    while True:
        page = await user.get(f"/api/media?limit=2{cursor}")
        assert page.status == 200
        seen += [file["id"] for file in page.data]
        if not page.body["pagination"]["hasMore"]:
            break
        cursor = f"&cursor={page.body['pagination']['nextCursor']}"
    assert seen == expected[::-1]
    uploads = await user.get("/api/media?source=upload")
    assert [file["id"] for file in uploads.data] == expected[:4:-1]
    received = await user.get("/api/media?source=inbound")
    assert [file["id"] for file in received.data] == expected[4::-1]
    assert (await user.get("/api/media?cursor=nonsense")).status == 422
    assert (await user.get("/api/media?source=elsewhere")).status == 422


async def test_of_another_tenants_files_nothing_is_seen_fetched_or_deleted(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    theirs = await gateway.sender()
    uploaded = (await upload(theirs.customer, samples.png())).data["id"]
    received = await an_inbound_file(gateway.sql, theirs.tenant, theirs.instance)
    mine = (await upload(ada, samples.png())).data["id"]
    ours = await gateway.sender()
    for stranger in (ada, ours.customer):
        for id_ in (uploaded, received):
            assert (await stranger.get(f"/api/media/{id_}")).status == 404
            assert (await download(stranger, id_)).status == 404
            assert (await stranger.call("DELETE", f"/api/media/{id_}")).status == 404
    assert [file["id"] for file in (await ada.get("/api/media")).data] == [mine]
    assert (await ours.customer.get("/api/media")).data == []
    # The same content, and yet two files: neither tenant can tell that the other one has it.
    assert objects(kept) == [sha256(samples.png())] * 2
    assert (await ada.call("DELETE", f"/api/media/{mine}")).status == 200
    assert (await download(theirs.customer, uploaded)).body == samples.png()


async def test_an_instance_key_sees_only_what_its_own_instance_brought_or_got(
    gateway: Gateway,
) -> None:
    sender = await gateway.sender()
    other = await an_instance(gateway.sql, sender.tenant)
    neighbour, _ = await gateway.key(other, sender.tenant)
    user = await _user(gateway, sender)
    mine = (await upload(sender.customer, samples.png("mine"))).data
    got = await an_inbound_file(gateway.sql, sender.tenant, sender.instance)
    persons = (await upload(user, samples.png("a person's"))).data["id"]
    assert mine["instanceId"] == str(sender.instance)

    assert {file["id"] for file in (await sender.customer.get("/api/media")).data} == {
        mine["id"],
        got,
    }
    assert (await neighbour.get("/api/media")).data == []
    for id_ in (mine["id"], got, persons):
        assert (await neighbour.get(f"/api/media/{id_}")).status == 404
        assert (await neighbour.call("DELETE", f"/api/media/{id_}")).status == 404
    assert (await sender.customer.get(f"/api/media/{persons}")).status == 404
    assert {file["id"] for file in (await user.get("/api/media")).data} == {
        mine["id"],
        got,
        persons,
    }


async def test_keys_and_roles_do_what_they_may(gateway: Gateway) -> None:
    sender = await gateway.sender()
    mute = {"messages": {"send": False, "receive": True}}
    deaf = {"messages": {"send": True, "receive": False}}
    reads, _ = await gateway.key(sender.instance, sender.tenant, permissions=mute)
    sends, _ = await gateway.key(sender.instance, sender.tenant, permissions=deaf)
    refused = await upload(reads, samples.png())
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    made = (await upload(sends, samples.png())).data["id"]
    assert (await download(sends, made)).status == 403
    assert (await download(reads, made)).status == 200
    assert (await reads.call("DELETE", f"/api/media/{made}")).status == 403
    assert (await sends.get("/api/analytics/storage")).status == 403

    viewer = await _user(gateway, sender, Role.VIEWER)
    agent = await _user(gateway, sender, Role.AGENT)
    assert (await upload(viewer, samples.png())).status == 403
    assert (await upload(agent, samples.png("agent"))).status == 201
    assert (await agent.get("/api/analytics/storage")).status == 403
    assert (await viewer.get("/api/analytics/storage")).status == 200
    # Neither sees yet what instances have got that were not assigned to them.
    received = await an_inbound_file(gateway.sql, sender.tenant, sender.instance)
    for person in (viewer, agent):
        assert (await download(person, received)).status == 404
        assert (await person.get(f"/api/media/{made}")).status == 404


async def test_parts_of_a_file_are_given_as_the_standard_has_it(ada: Customer) -> None:
    content = samples.png() + os.urandom(5000)
    id_ = (await upload(ada, content)).data["id"]
    etag = f'"{sha256(content)}"'

    part = await download(ada, id_, Range="bytes=10-19")
    assert (part.status, part.body) == (206, content[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(content)}"
    assert part.headers["Content-Length"] == "10"
    assert (await download(ada, id_, Range="bytes=-7")).body == content[-7:]
    assert (await download(ada, id_, Range="bytes=4000-")).body == content[4000:]
    assert (await download(ada, id_, Range="bytes=0-1,5-6")).status == 200

    outside = await download(ada, id_, Range=f"bytes={len(content)}-")
    assert (outside.status, outside.code) == (416, "BAD_REQUEST")
    assert outside.headers["Content-Range"] == f"bytes */{len(content)}"

    assert (await download(ada, id_, Range="bytes=1-2", If_Range=etag)).status == 206
    assert (await download(ada, id_, Range="bytes=1-2", If_Range='"old"')).body == content
    fresh = await download(ada, id_, If_None_Match=f'"x", W/{etag}')
    assert (fresh.status, fresh.body, fresh.headers["ETag"]) == (304, b"", etag)
    assert (await download(ada, id_, If_None_Match='"x"')).status == 200

    head = await ada.call("HEAD", f"/api/media/{id_}/download")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(content))


async def test_a_received_file_is_pending_then_stored_or_failed(
    gateway: Gateway, kept: Path, tmp_path: Path
) -> None:
    sender = await gateway.sender()
    customer = sender.customer
    pending = await an_inbound_file(
        gateway.sql, sender.tenant, sender.instance, status="waiting", size=None, sha256=None
    )
    shown = (await customer.get(f"/api/media/{pending}")).data
    assert (shown["source"], shown["status"], shown["size"]) == ("inbound", "pending", None)
    assert shown["instanceId"] == str(sender.instance)
    early = await download(customer, pending)
    assert (early.status, early.code) == (409, "CONFLICT")
    assert int(early.headers["Retry-After"]) >= 1
    assert (await customer.call("DELETE", f"/api/media/{pending}")).status == 409

    source = tmp_path / "source"
    source.write_bytes(b"abc")
    await MediaStore.of(media_settings(kept)).put(sender.tenant, source, sha256(b"abc"))
    await gateway.sql.execute(
        "UPDATE sessions.inbound_media SET status = 'stored', size = 3, sha256 = $1",
        sha256(b"abc"),
    )
    assert (await customer.get(f"/api/media/{pending}")).data["status"] == "stored"
    assert (await download(customer, pending)).body == b"abc"

    failed = await an_inbound_file(
        gateway.sql,
        sender.tenant,
        sender.instance,
        status="failed",
        sha256=None,
        error="MEDIA_GONE",
    )
    assert (await customer.get(f"/api/media/{failed}")).data["error"] == "MEDIA_GONE"
    gone = await download(customer, failed)
    assert (gone.status, gone.body["error"]["data"]) == (404, {"reason": "MEDIA_GONE"})


async def test_a_file_that_a_message_still_needs_is_not_deleted(gateway: Gateway) -> None:
    sender = await gateway.sender()
    made = (await upload(sender.customer, samples.png())).data["id"]
    message = await a_message_row(gateway.sql, sender.tenant, sender.instance)
    content = {"kind": "image", "mimeType": "image/png", "mediaId": made}
    await gateway.sql.execute(
        "UPDATE dispatcher.messages SET type = 'image', content = $1::jsonb WHERE id = $2",
        orjson.dumps(content).decode(),
        message,
    )
    for status in ("scheduled", "queued", "sending", "retrying", "unconfirmed"):
        await gateway.sql.execute("UPDATE dispatcher.messages SET status = $1", status)
        refused = await sender.customer.call("DELETE", f"/api/media/{made}")
        assert (refused.status, refused.code) == (409, "CONFLICT"), status
        assert "cancel" not in refused.body["error"]["message"]  # there is no way to
    assert (await download(sender.customer, made)).status == 200
    await gateway.sql.execute("UPDATE dispatcher.messages SET status = 'sent'")
    assert (await sender.customer.call("DELETE", f"/api/media/{made}")).status == 200


async def test_what_was_deleted_is_gone_at_once_and_only_once(
    gateway: Gateway, ada: Customer
) -> None:
    made = (await upload(ada, samples.png())).data["id"]
    assert (await ada.call("DELETE", f"/api/media/{made}")).data == {"id": made, "deleted": True}
    for again in (
        await ada.call("DELETE", f"/api/media/{made}"),
        await ada.get(f"/api/media/{made}"),
        await download(ada, made),
    ):
        assert (again.status, again.code) == (404, "NOT_FOUND")
    assert (await ada.get("/api/media")).data == []
    assert (await ada.get("/api/analytics/storage")).data["used"] == 0


async def test_a_received_file_can_be_deleted_too(gateway: Gateway) -> None:
    sender = await gateway.sender()
    for status, hash_ in (("stored", sha256(b"abc")), ("failed", None)):
        got = await an_inbound_file(
            gateway.sql, sender.tenant, sender.instance, status=status, sha256=hash_
        )
        assert (await sender.customer.call("DELETE", f"/api/media/{got}")).status == 200
        assert (await sender.customer.get(f"/api/media/{got}")).status == 404
        assert (await sender.customer.call("DELETE", f"/api/media/{got}")).status == 404
    assert (await sender.customer.get("/api/media")).data == []


async def test_of_a_file_that_is_gone_not_even_the_name_is_kept(gateway: Gateway) -> None:
    sender = await gateway.sender()
    made = await upload(sender.customer, samples.png(), filename="divorce.png")
    got = await an_inbound_file(gateway.sql, sender.tenant, sender.instance, filename="divorce.pdf")
    for file in (made.data["id"], got):
        assert (await sender.customer.call("DELETE", f"/api/media/{file}")).status == 200
    rows = await gateway.sql.fetch("SELECT filename FROM gateway.media")
    assert [row[0] for row in rows] == [None, None]


async def test_a_file_whose_bytes_are_lost_is_not_found_rather_than_half_sent(
    gateway: Gateway, ada: Customer, kept: Path
) -> None:
    made = (await upload(ada, samples.png())).data["id"]
    [name] = objects(kept)
    [path] = kept.glob(f"*/*/{name}")  # noqa: ASYNC240 - a folder of three
    path.unlink()
    lost = await download(ada, made)
    assert (lost.status, lost.code) == (404, "NOT_FOUND")


async def test_without_the_store_uploads_wait_and_everything_else_works(
    database_url: str, arriving: Path
) -> None:
    nowhere: dict[str, Any] = {
        "media_store": "s3://bucket",
        "media_s3_endpoint": "http://127.0.0.1:1",
        "media_s3_access_key": "a",
        "media_s3_secret_key": "b",
    }
    async with gateway_support.running(database_url, **nowhere) as gateway:
        sender = await gateway.sender()
        refused = await upload(sender.customer, samples.png())
        assert (refused.status, refused.code) == (503, "ENGINE_UNAVAILABLE")
        assert "Retry-After" in refused.headers
        assert await gateway.count("gateway.media") == 0
        assert (await sender.text()).status == 202
        got = await an_inbound_file(gateway.sql, sender.tenant, sender.instance)
        assert (await download(sender.customer, got)).status == 503
        assert (await sender.customer.get("/api/media")).status == 200
        ready = await gateway.stranger().get("/health/ready")
        assert ready.status == 200
        assert "media store" in ready.body["checks"]["media"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with object_store.serving() as server:
        yield server


async def test_a_bucket_serves_as_a_folder_does(
    database_url: str, s3: S3Server, arriving: Path
) -> None:
    async with gateway_support.running(database_url, **s3.bucket()) as gateway:
        ada, _ = await gateway.register()
        content = samples.png() + os.urandom(6 * 1024 * 1024)
        made = (await upload(ada, content)).data
        assert made["sha256"] == sha256(content)
        assert (await download(ada, made["id"])).body == content
        assert (await download(ada, made["id"], Range="bytes=9-99")).body == content[9:100]
        assert (await gateway.stranger().get("/health/ready")).body["checks"]["media"] == "up"
