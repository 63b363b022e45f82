"""What may be kept for years of what was changed: no secrets, no phone numbers, nothing endless."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from shared.contracts.model import rfc3339
from shared.log import MASK, SECRET, mask_text

_SECRET_PARTS: Final = (
    "authorization",
    "cookie",
    "credential",
    "digest",
    "hash",
    "passphrase",
    "password",
    "secret",
    "signature",
    "token",
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Opaque, and long enough to be a credential of somebody's: an id in the usual form is none.
_OPAQUE: Final = re.compile(r"[A-Za-z0-9_=+-]{32,}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_QUERY: Final = re.compile(r"(\bhttps?://[^\s?#]*)[?#]\S*")
_USERINFO: Final = re.compile(r"(://)[^\s/@]+(?=@)")
_PEM: Final = re.compile(r"-----BEGIN [^-]+-----.*", re.DOTALL)

_LONGEST_TEXT: Final = 300
_MOST_ITEMS: Final = 50
_DEEPEST: Final = 5

Facts = Mapping[str, object]


def redacted(facts: Facts) -> dict[str, object]:
    """The facts without what nobody needs to know who reads what was done, or by whom.

    A secret is told by its field's name, or by what it looks like wherever it stands.
    """
    return {
        name: MASK if _is_secret(name, value) else _value(value, _DEEPEST)
        for name, value in list(facts.items())[:_MOST_ITEMS]
    }


def changed(before: Facts, after: Facts) -> tuple[dict[str, object], dict[str, object]]:
    """Of both, what differs: that a secret was changed shows, but neither the old nor the new."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        {name: before[name] for name in names if name in before},
        {name: after[name] for name in names if name in after},
    )


def _value(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        if depth == 0:
            return MASK
        return {
            str(name): MASK if _is_secret(str(name), inner) else _value(inner, depth - 1)
            for name, inner in list(value.items())[:_MOST_ITEMS]
        }
    if isinstance(value, list | tuple | set | frozenset):
        if depth == 0:
            return MASK
        return [_value(inner, depth - 1) for inner in list(value)[:_MOST_ITEMS]]
    return rfc3339(value) if isinstance(value, datetime) else _text(str(value))


def _text(text: str) -> str:
    text = _PEM.sub(MASK, text)
    text = _USERINFO.sub(rf"\1{MASK}", text)
    text = _QUERY.sub(rf"\1?{MASK}", text)
    text = _OPAQUE.sub(lambda found: MASK if _is_opaque(found[0]) else found[0], mask_text(text))
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _is_opaque(word: str) -> bool:
    """Whether it looks drawn at random: digits among letters, and no words between hyphens."""
    if _UUID.fullmatch(word):
        return False
    runs = re.split(r"[-_]", word)
    return any(len(run) >= 12 and re.search(r"\d", run) for run in runs) or word.isalnum()


def _is_secret(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return False
    plain = _CAMEL.sub("_", name).lower().replace("-", "_")
    if isinstance(value, int | float):
        return plain in SECRET
    return plain in SECRET or plain.endswith("_key") or any(part in plain for part in _SECRET_PARTS)
