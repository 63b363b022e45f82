"""One line for each figure: what was measured, what it was, what it should be."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """A figure with its unit and, if there is one, its goal."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, object]:
        """For the file."""
        return {**asdict(self), "reached": self.reached}


def table(rows: Sequence[Row]) -> str:
    """All of them, to be read."""
    width = max(len(row.what) for row in rows)
    lines = [f"{'what':<{width}}  {'measured':>12} {'unit':<10} {'goal':>8}"]
    for row in rows:
        sign = ">=" if row.better == "higher" else "<="
        goal = "" if row.goal is None else f"{sign} {row.goal:g}"
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        lines.append(
            f"{row.what:<{width}}  {row.value:>12,.2f} {row.unit:<10} {goal:>8}  {verdict}"
        )
    return "\n".join(lines)
