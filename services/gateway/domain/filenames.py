"""Names of files, as strangers give them and as browsers are told them."""

import re
from typing import Final
from urllib.parse import quote

_LONGEST: Final = 200

# Control characters, those that turn the direction of writing, and what no file system takes.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    r'<>:"|?*\\/]'
)
_NOT_ASCII: Final = re.compile(r"[^\x20-\x7e]")
_QUOTED: Final = re.compile(r"[\"\\%]")


def safe(name: str | None) -> str | None:
    """The name without folders and without what could harm whoever saves it; ``None`` if nothing
    is left of it.
    """
    if name is None:
        return None
    last = re.split(r"[\\/]", name)[-1]
    clean = _UNSAFE.sub("", last).strip(" .")
    if len(clean) > _LONGEST:
        stem, dot, ending = clean.rpartition(".")
        kept = dot + ending if dot and len(ending) <= 20 else ""
        clean = (stem if kept else clean)[: _LONGEST - len(kept)].rstrip(" .") + kept
    return clean or None


def disposition(name: str | None) -> str:
    """A ``Content-Disposition`` that has the answer saved under ``name`` and never shown as a page.

    Both forms of RFC 6266: plain for old clients, and the real name for the others.
    """
    if name is None:
        return "attachment"
    plain = _QUOTED.sub("_", _NOT_ASCII.sub("_", name))
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
