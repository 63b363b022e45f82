"""Words, so that a message can be found by them where nobody may read it.

Each is stored as a hash under a key of its tenant's: whoever has the database alone can neither
read the words nor try out guesses.
"""

import hmac
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

# Beyond these a text is indexed in part: nobody looks for the thousandth word of a message.
MOST_WORDS: Final = 500
_LONGEST: Final = 64

_SPOKEN: Final = ("text", "caption", "filename", "name", "address", "question")
_ASCII: Final = re.compile(r"[a-z0-9]+")
_PART: Final = "LNM"  # letters, digits, and the marks that belong to a letter
# Scripts that do not part their words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
_UNPARTED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)


def of_content(content: Mapping[str, object]) -> list[str]:
    """What a message of this content is found by."""
    said = [value for name in _SPOKEN if isinstance(value := content.get(name), str)]
    options = content.get("options")
    if isinstance(options, list | tuple):
        said += [option for option in options if isinstance(option, str)]
    found = dict.fromkeys(word for text in said for word in _words(text, every=True))
    return list(found)[:MOST_WORDS]


def of_query(query: str) -> list[str]:
    """What a message must hold to be found by ``query``: all of it, each once."""
    return list(dict.fromkeys(_words(query, every=False)))


def hashes(key: bytes, words: Iterable[str]) -> list[int]:
    """Words as the index has them: 64 bits, signed as PostgreSQL's ``bigint`` is."""
    return [
        int.from_bytes(hmac.digest(key, word.encode(), "sha256")[:8], "big", signed=True)
        for word in words
    ]


def _words(text: str, *, every: bool) -> Iterator[str]:
    # Folding may undo the normal form, so that comes twice.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if folded.isascii():
        for word in _ASCII.findall(folded):
            yield word[:_LONGEST]
        return
    for run in _runs(folded):
        start = 0
        for unparted in _UNPARTED.finditer(run):
            if unparted.start() > start:
                yield run[start : unparted.start()][:_LONGEST]
            yield from _pieces(unparted.group(), every=every)
            start = unparted.end()
        if start < len(run):
            yield run[start:][:_LONGEST]


def _runs(text: str) -> Iterator[str]:
    """Letters, digits and marks that stand together."""
    start: int | None = None
    for place, character in enumerate(text):
        if unicodedata.category(character)[0] in _PART:
            start = place if start is None else start
        elif start is not None:
            yield text[start:place]
            start = None
    if start is not None:
        yield text[start:]


def _pieces(run: str, *, every: bool) -> Iterator[str]:
    """Of a script without spaces each two neighbours; single ones to be found by one alone."""
    if every or len(run) == 1:
        yield from run
    for one, other in pairwise(run):
        yield one + other
