"""Answers as their callers may see them."""

from collections.abc import Sequence

from aiohttp import web
from pydantic import BaseModel

from services.gateway.api.gate import PRINCIPAL
from services.gateway.domain.masking import Sight, sight_of


def sight(request: web.Request) -> Sight:
    """How the caller sees."""
    return sight_of(request[PRINCIPAL])


def seen(request: web.Request, view: BaseModel) -> object:
    """A view for the caller: whole, or without what is hidden from them.

    For whatever shows numbers, or what is said, that the caller has not just said themselves.
    """
    return _shown(sight(request), view)


def all_seen(request: web.Request, views: Sequence[BaseModel]) -> Sequence[object]:
    """The same of each."""
    how = sight(request)
    return [_shown(how, view) for view in views]


def _shown(how: Sight, view: BaseModel) -> object:
    if how.whole:
        return view
    return how.data(view.model_dump(mode="json", by_alias=True))
