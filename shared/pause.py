"""Whether a process may take work: an operator decides, and its heartbeat brings the news."""


class Pause:
    """Asked before work is taken; what was taken before is finished."""

    def __init__(self) -> None:
        self._on = False

    @property
    def on(self) -> bool:
        """Whether no work may be taken now."""
        return self._on

    def hold(self) -> None:
        """Take no more work."""
        self._on = True

    def go_on(self) -> None:
        """Take work again."""
        self._on = False
