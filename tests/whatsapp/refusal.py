"""A query that is refused: answered ``iq type=error`` with a code that clients know."""

from tests.whatsapp.stanza import Stanza


class Denied(Exception):
    """No, and why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text

    def stanza(self) -> Stanza:
        return Stanza("error", {"code": self.code, "text": self.text})
