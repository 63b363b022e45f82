"""What an operator may want of workers, and of which."""

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import Conflict, NotFound


class Action(StrEnum):
    """What workers can be told."""

    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    CLEAR_FAILED = "clear_failed"


@dataclass(frozen=True, slots=True)
class Known:
    """A worker, as far as orders are concerned."""

    name: str
    service: str
    pausable: bool
    restartable: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Whom an order is for: one worker of a service, or without its name all of them."""

    service: str
    worker: str = ""


def targets(action: Action, named: str | None, workers: list[Known]) -> list[Target]:
    """Whom ``action`` is for if a caller names a worker, a service, or nobody.

    Raises ``NotFound`` if there is no such worker, and ``Conflict`` if none of those meant can.
    """
    meant = [one for one in workers if named in {None, one.name, one.service}]
    if not meant:
        raise NotFound("There is no such worker; GET /api/workers lists them.")
    able = [one for one in meant if _able(action, one)]
    if not able:
        raise _unable(action)
    if named is not None and "@" in named:
        return [Target(able[0].service, named)]
    return [Target(service) for service in sorted({one.service for one in able})]


def _able(action: Action, worker: Known) -> bool:
    match action:
        case Action.PAUSE | Action.RESUME:
            return worker.pausable
        case Action.RESTART:
            return worker.restartable
        case Action.CLEAR_FAILED:
            return True


def _unable(action: Action) -> Conflict:
    if action is Action.RESTART:
        return Conflict(
            "All services run in one process here, and nobody would start it again; stop it and"
            " start it yourself."
        )
    return Conflict(
        "It does nothing that could wait: requests, and counting, go on; pause dispatcher,"
        " sessions or webhooks."
    )
