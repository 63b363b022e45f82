"""Routes as data: what is served and what is documented come from the same declaration."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from typing_extensions import TypeForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What an answer holds that is not in our envelope, and what it looks like."""

    description: str
    schema: Mapping[str, object] = field(default_factory=lambda: {"type": "string"})
    example: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Also:
    """One more answer, under a status that the declaration does not lead to, such as 206 or 304.

    ``problem`` is the code of the error that it holds, if it holds one.
    """

    status: int
    description: str
    headers: tuple[str, ...] = ()
    raw: Mapping[str, str | Raw] = field(default_factory=dict)
    problem: str | None = None


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
    ``errors`` are the codes that do not follow from the rest of the declaration, ``also`` what it
    answers besides, and ``headers`` what its success has more. ``makes`` is the path of what it
    made, where that is not below its own. A ``bare`` route stands before all that the gateway
    does: it knows neither errors nor limits but those that it declares.
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
    raw: Mapping[str, str | Raw] = field(default_factory=dict)
    also: tuple[Also, ...] = ()
    headers: tuple[str, ...] = ()
    makes: str | None = None
    bare: bool = False
    aliases: tuple[str, ...] = ()

    def paths(self) -> Iterator[str]:
        """Every path that it is served under, its own first."""
        yield self.path
        yield from self.aliases


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve ``routes``; what answers GET answers HEAD too.

    A path without placeholders takes nothing but what is declared for it: ``PUT
    /api/messages/text`` must not be read as the change of a message whose id is ``text``.
    """
    fixed: dict[str, web.Resource] = {}
    for route in routes:
        for path in route.paths():
            resource = fixed.get(path)
            if resource is None:
                resource = app.router.add_resource(path)
                if "{" not in path:
                    fixed[path] = resource
            resource.add_route(route.method, route.handler)
            if route.method == "GET":
                resource.add_route("HEAD", route.handler)
    for resource in fixed.values():
        resource.add_route("*", _refusal({route.method for route in resource}))


def _refusal(allowed: set[str]) -> Handler:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, allowed)

    return refuse
