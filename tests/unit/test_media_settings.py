"""Where media is kept, as operators say it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.media import media_settings


@pytest.mark.parametrize("place", ["", "  ", "s3://", "s3:///prefix", "gs://bucket", "s3://-"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="s3://"):
        media_settings({"media_store": place})


def test_a_server_is_named_by_its_url(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="https://"):
        media_settings(tmp_path, media_s3_endpoint="minio:9000")


def test_types_are_taken_by_pattern(tmp_path: Path) -> None:
    usual = media_settings(tmp_path)
    assert usual.takes("image/png")
    assert usual.takes("application/vnd.oasis.opendocument.text")
    assert not usual.takes("text/html")
    assert not usual.takes("application/octet-stream")
    chosen = media_settings(tmp_path, media_types="image/PNG, application/*")
    assert chosen.takes("image/png")
    assert chosen.takes("application/octet-stream")
    assert not chosen.takes("image/jpeg")


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    found = media_settings(tmp_path, media_s3_access_key="AKIA1", media_s3_secret_key="hush")
    assert "hush" not in repr(found)
    assert "AKIA1" not in repr(found)
