"""Which of several forms a caller likes best (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The offered type that ``accept`` wants most; the first if it wants none of them.

    The more specific of two ranges decides, and of equals the one that is offered first.
    """
    ranges = dict(_range(part) for part in accept.split(",") if part.strip())
    best = max(offered, key=lambda kind: (_quality(ranges, kind), -offered.index(kind)))
    return best if _quality(ranges, best) > 0 else offered[0]


def _quality(ranges: dict[str, float], kind: str) -> float:
    family = kind.partition("/")[0]
    for name in (kind, f"{family}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 0.0
    return name, 1.0
