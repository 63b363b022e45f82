"""How long somebody would type."""

from datetime import timedelta
from typing import Final

# Faster than people are, and never so long that a message seems to hang.
A_CHARACTER: Final = timedelta(milliseconds=50)
AT_MOST: Final = timedelta(seconds=5)


def typing_time(text: str) -> timedelta:
    """For how long a chat is shown that a text is being typed."""
    return min(AT_MOST, len(text) * A_CHARACTER)
