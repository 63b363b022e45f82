"""The sandbox's telephone numbers: how each behaves, as data."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal


class First(StrEnum):
    """What a number does with a message before it takes it, until it has done that enough."""

    TAKE = "take"
    NOT_ON_WHATSAPP = "not_on_whatsapp"
    REJECT = "reject"
    REFUSE = "refuse"
    BAN = "ban"
    LOG_OUT = "log_out"
    SLOW_DOWN = "slow_down"


class Answer(StrEnum):
    """What a number answers, if it answers."""

    SAME = "same"
    IMAGE = "image"


Status = Literal["delivered", "read"]

DELIVERED: Final = timedelta(milliseconds=150)
READ: Final = timedelta(milliseconds=400)
ANSWERED: Final = timedelta(milliseconds=450)
SLOW_DOWN: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a number behaves. Times count from when the server has the message.

    ``times`` is how often ``first`` happens to one message. ``acknowledged`` is ``None`` for a
    number whose messages vanish without a word.
    """

    first: First = First.TAKE
    times: int = 0
    acknowledged: timedelta | None = timedelta(0)
    receipts: tuple[tuple[Status, timedelta], ...] = (("delivered", DELIVERED), ("read", READ))
    answer: Answer | None = None
    ordinary: bool = False


ORDINARY: Final = Behaviour(ordinary=True)

_LATE: Final = timedelta(seconds=5)

SPECIAL: Final = {
    "12025550101": Behaviour(first=First.NOT_ON_WHATSAPP),
    "12025550102": Behaviour(first=First.REJECT),
    "12025550103": Behaviour(first=First.REFUSE, times=2),
    "12025550104": Behaviour(
        acknowledged=_LATE, receipts=(("delivered", _LATE + DELIVERED), ("read", _LATE + READ))
    ),
    "12025550105": Behaviour(acknowledged=None, receipts=()),
    "12025550106": Behaviour(receipts=(("delivered", DELIVERED),)),
    "12025550107": Behaviour(receipts=()),
    "12025550108": Behaviour(answer=Answer.SAME),
    "12025550109": Behaviour(answer=Answer.IMAGE),
    # Once for each message: whoever has paired again must be able to get rid of it.
    "12025550110": Behaviour(first=First.BAN, times=1),
    "12025550111": Behaviour(first=First.LOG_OUT, times=1),
    "12025550112": Behaviour(first=First.SLOW_DOWN, times=1),
    "12025550113": Behaviour(
        receipts=(
            ("read", DELIVERED),
            ("read", DELIVERED),
            ("delivered", READ),
            ("delivered", READ),
        )
    ),
}


def behaviour(digits: str | None) -> Behaviour:
    """How the number with these digits behaves; groups and private ids are ordinary."""
    return SPECIAL.get(digits or "", ORDINARY)
