"""Routes as data: what is served and what is documented come from the same declaration."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from typing_extensions import TypeForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing that callers can do.

    ``permission`` is what the caller needs: a named permission, or ``authenticated`` if any
    credential will do; ``None`` is for anybody. It is documented from here, and for the gateway's
    own middleware to read; nothing in ``shared.web`` checks it.
    ``response`` is the type of ``data``, or of one item if the route is ``paginated``. ``raw`` maps
    further media types that it can answer with to what they hold; without a ``response`` they
    are all it answers with. ``form`` describes the same request as ``request``, as multipart.
    ``audited`` is the action that the audit log calls it, for a route that changes something.
    ``errors`` are the codes that do not follow from the rest of the declaration.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    permission: str | None
    description: str = ""
    request: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    response: TypeForm[object] | None = None
    status: int = 200
    paginated: bool = False
    idempotent: bool = False
    limited: bool = False
    audited: str | None = None
    errors: tuple[str, ...] = ()
    raw: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def paths(self) -> Iterator[str]:
        """Every path that it is served under, its own first."""
        yield self.path
        yield from self.aliases


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve ``routes``; what answers GET answers HEAD too."""
    for route in routes:
        for path in route.paths():
            if route.method == "GET":
                app.router.add_get(path, route.handler)
            else:
                app.router.add_route(route.method, path, route.handler)
