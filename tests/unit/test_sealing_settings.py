"""The keys that content is sealed with, as operators give them."""

import pytest
from pydantic import ValidationError

from shared.ids import new_id
from shared.security.sealing import Key, Place
from shared.security.settings import SealingSettings
from shared.settings import read

FIRST, SECOND = Key.new("1"), Key.new("2")
ADDRESSES = {"database_url": "postgresql://x", "amqp_url": "amqp://x"}


def settings(keys: str) -> SealingSettings:
    return SealingSettings.model_validate({**ADDRESSES, "encryption_keys": keys})


def test_keys_are_parted_by_commas_and_the_first_seals() -> None:
    place = Place(new_id(), "a table", "a row")
    found = settings(f"{SECOND.written()}, {FIRST.written()}")

    assert settings(SECOND.written()).key_ring.open(found.key_ring.seal(b"x", place), place) == b"x"
    assert found.key_ring.open(settings(FIRST.written()).key_ring.seal(b"x", place), place) == b"x"
    assert FIRST.written().partition(":")[2] not in repr(found)


def test_there_is_no_default() -> None:
    with pytest.raises(ValidationError, match="encryption_keys"):
        SealingSettings.model_validate(ADDRESSES)


def test_all_that_is_wrong_is_said_at_once_and_no_key_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(
        "ENCRYPTION_KEYS", f"{FIRST.written()},1:QUJD,two,{FIRST.written()},3:?secret?"
    )

    with pytest.raises(SystemExit, match="2"):
        read(SealingSettings, database_url="mysql://x", amqp_url="amqp://x")

    said = capsys.readouterr().err
    assert "DATABASE_URL: " in said
    assert "ENCRYPTION_KEYS: " in said
    for problem in (
        "key 2 has 3 bytes after its id, and needs 32",
        "key 3 must be id:base64",
        "key 5 is not base64",
        "the id 1 stands there twice",
    ):
        assert problem in said
    assert "QUJD" not in said
    assert "?secret?" not in said
    assert FIRST.written().partition(":")[2] not in said


def test_an_empty_list_is_no_ring() -> None:
    with pytest.raises(ValidationError, match="at least one key"):
        settings(" , ")
