"""Numbers as those see them who are not to know them whole."""

import re
from typing import Final

from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal

_NUMBER: Final = re.compile(r"(?<![\w-])(\+?)(\d{7,})(?![\w-])")
_GROUP: Final = "@g.us"
_SHORT: Final = 10


def sees_masked(principal: Principal, *, masking: bool) -> bool:
    """Whether an organization that masks hides numbers from this caller."""
    return masking and principal.role in {Role.AGENT, Role.VIEWER}


def sees_content(principal: Principal, *, masking: bool) -> bool:
    """Whether they may read what messages say: who answers people has to."""
    return not masking or principal.role is not Role.VIEWER


def masked(text: str) -> str:
    """``text`` with each number cut down to its ends, as ``+1202•••0108``.

    A group's id is nobody's number.
    """
    if text.endswith(_GROUP):
        return text
    return _NUMBER.sub(_ends, text)


def _ends(found: re.Match[str]) -> str:
    plus, digits = found.groups()
    kept = 4 if len(digits) > _SHORT else 2
    return f"{plus}{digits[:kept]}•••{digits[-kept:]}"
