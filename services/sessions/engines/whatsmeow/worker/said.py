"""What a worker is told to say."""

from dataclasses import dataclass

from shared.contracts.content import Sendable


@dataclass(frozen=True, slots=True)
class Said:
    """A message to hand over: ``to`` is a canonical address, ``path`` the file of media.

    The file is on this machine and of the type ``mime_type``; both are ``None`` without media. It
    stays where it is until the message was handed over.
    """

    to: str
    content: Sendable
    path: str | None
    mime_type: str | None
