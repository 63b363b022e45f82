"""What the media store promises, held against a folder and against S3 alike."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from shared.errors import Transient
from shared.ids import new_id
from shared.media.store import CHUNK, MediaGone, MediaStore
from tests.support import object_store
from tests.support.media import media_settings
from tests.support.object_store import S3Server

TENANT = new_id()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with object_store.serving() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    place = tmp_path / "kept"
    if request.param == "folder":
        return MediaStore.of(media_settings(place))
    server: S3Server = request.getfixturevalue("s3")
    return MediaStore.of(media_settings(server.bucket()))


def a_file(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / f"source-{new_id()}"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


async def kept(store: MediaStore, folder: Path, content: bytes, tenant: UUID = TENANT) -> str:
    path, sha256 = a_file(folder, content)
    await store.put(tenant, path, sha256)
    return sha256


async def whole(store: MediaStore, sha256: str, **part: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(TENANT, sha256, **part)])


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 11 * 1024 * 1024 + 3])
async def test_what_was_put_is_read_back_whatever_its_size(
    store: MediaStore, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    sha256 = await kept(store, tmp_path, content)
    assert await store.size(TENANT, sha256) == size
    assert await store.exists(TENANT, sha256)
    assert await whole(store, sha256) == content


async def test_a_part_is_read_without_the_rest(store: MediaStore, tmp_path: Path) -> None:
    content = os.urandom(3 * CHUNK)
    sha256 = await kept(store, tmp_path, content)
    assert await whole(store, sha256, start=5, end=17) == content[5:17]
    assert (
        await whole(store, sha256, start=CHUNK - 1, end=2 * CHUNK + 1)
        == (content[CHUNK - 1 : 2 * CHUNK + 1])
    )
    assert await whole(store, sha256, start=3 * CHUNK - 1) == content[-1:]
    assert await whole(store, sha256, start=7, end=7) == b""


async def test_no_chunk_is_larger_than_promised(store: MediaStore, tmp_path: Path) -> None:
    sha256 = await kept(store, tmp_path, os.urandom(4 * CHUNK + 1))
    sizes = [len(chunk) async for chunk in store.read(TENANT, sha256)]
    assert sizes == [CHUNK] * 4 + [1]


async def test_what_is_not_there_is_gone(store: MediaStore, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"never put").hexdigest()
    assert await store.size(TENANT, sha256) is None
    assert not await store.exists(TENANT, sha256)
    with pytest.raises(MediaGone):
        await whole(store, sha256)
    with pytest.raises(MediaGone):
        await whole(store, sha256, start=0, end=9)
    with pytest.raises(MediaGone):
        await store.save(TENANT, sha256, tmp_path / "into")
    await store.delete(TENANT, sha256)


async def test_a_file_that_vanishes_while_it_is_read_is_not_cut_short_in_silence(
    store: MediaStore, tmp_path: Path
) -> None:
    sha256 = await kept(store, tmp_path, os.urandom(2 * CHUNK))
    chunks = store.read(TENANT, sha256)
    await anext(chunks)
    await store.delete(TENANT, sha256)
    with pytest.raises(MediaGone):
        await anext(chunks)


async def test_the_same_file_put_again_and_at_once_is_there_once(
    store: MediaStore, tmp_path: Path
) -> None:
    content = os.urandom(6 * 1024 * 1024)
    path, sha256 = a_file(tmp_path, content)
    await asyncio.gather(*(store.put(TENANT, path, sha256) for _ in range(4)))
    assert await whole(store, sha256) == content
    listed = [kept.sha256 async for page in store.objects() for kept in page]
    assert listed == [sha256]


async def test_tenants_share_no_file(store: MediaStore, tmp_path: Path) -> None:
    other = new_id()
    sha256 = await kept(store, tmp_path, b"the same words")
    assert not await store.exists(other, sha256)
    await kept(store, tmp_path, b"the same words", tenant=other)
    await store.delete(TENANT, sha256)
    assert await store.exists(other, sha256)


async def test_a_put_whose_source_is_missing_leaves_nothing_behind(
    store: MediaStore, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(b"lost").hexdigest()
    with pytest.raises(FileNotFoundError):
        await store.put(TENANT, tmp_path / "lost", sha256)
    assert not await store.exists(TENANT, sha256)
    assert [page async for page in store.objects() if page] == []


async def test_a_put_that_is_cancelled_leaves_nothing_under_the_name_or_all_of_it(
    store: MediaStore, tmp_path: Path
) -> None:
    content = os.urandom(16 * 1024 * 1024)
    path, sha256 = a_file(tmp_path, content)
    putting = asyncio.ensure_future(store.put(TENANT, path, sha256))
    await asyncio.sleep(0)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    assert await store.size(TENANT, sha256) in {None, len(content)}


async def test_everything_that_is_kept_is_listed_with_its_size_and_time(
    store: MediaStore, tmp_path: Path
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    contents = [os.urandom(size) for size in range(1, 8)]
    names = {await kept(store, tmp_path, content) for content in contents}
    found = [kept async for page in store.objects() for kept in page]
    assert {kept.sha256 for kept in found} == names
    assert sorted(kept.size for kept in found) == list(range(1, 8))
    assert all(kept.tenant_id == TENANT for kept in found)
    assert all(before <= kept.stored_at <= datetime.now(UTC) for kept in found)


async def test_a_file_is_saved_where_it_is_wanted_and_overwrites_nothing(
    store: MediaStore, tmp_path: Path
) -> None:
    content = os.urandom(CHUNK + 9)
    sha256 = await kept(store, tmp_path, content)
    into = tmp_path / "into"
    await store.save(TENANT, sha256, into)
    assert into.read_bytes() == content
    with pytest.raises(FileExistsError):
        await store.save(TENANT, sha256, into)


async def test_a_name_that_is_no_hash_leads_nowhere(store: MediaStore, tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"):
        with pytest.raises(ValueError, match="SHA-256"):
            await store.exists(TENANT, name)


async def test_a_store_that_answers_is_well(store: MediaStore) -> None:
    await store.check()


async def test_a_server_that_is_away_is_worth_trying_again(tmp_path: Path, s3: S3Server) -> None:
    place = {**s3.bucket(), "media_s3_endpoint": "http://127.0.0.1:1"}
    store = MediaStore.of(media_settings(place))
    path, sha256 = a_file(tmp_path, b"something")
    with pytest.raises(Transient) as told:
        await store.put(TENANT, path, sha256)
    assert "127.0.0.1" not in told.value.message
    with pytest.raises(Transient):
        await store.exists(TENANT, sha256)
    with pytest.raises(Transient):
        await store.check()


async def test_a_bucket_that_is_missing_is_no_file_that_is_missing(s3: S3Server) -> None:
    place = {**s3.bucket(), "media_store": "s3://no-such-bucket"}
    store = MediaStore.of(media_settings(place))
    with pytest.raises(Transient):
        await store.put(TENANT, Path(__file__), "0" * 64)
    with pytest.raises(Transient):
        await store.check()


async def test_a_folder_that_is_gone_is_worth_trying_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    store = MediaStore.of(media_settings(folder))
    folder.rmdir()
    with pytest.raises(Transient):
        await store.check()


async def test_what_a_crash_leaves_in_a_folder_is_no_file_and_goes_when_it_is_old(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kept"
    store = MediaStore.of(media_settings(folder))
    sha256 = await kept(store, tmp_path, b"whole")
    half = folder / str(TENANT) / sha256[:2] / f"{sha256}#1"
    half.write_bytes(b"who")
    strange = half.with_name("notes#1")
    strange.write_bytes(b"not ours")
    assert [kept.sha256 async for page in store.objects() for kept in page] == [sha256]
    now = datetime.now(UTC)
    assert await store.forget_unfinished(before=now - timedelta(days=1)) == 0
    assert half.exists()
    assert await store.forget_unfinished(before=now + timedelta(days=1)) == 1
    assert (half.exists(), strange.exists()) == (False, True)
    assert await whole(store, sha256) == b"whole"
