"""Swagger UI at /docs, from our own process: no CDN, and nothing that a strict CSP would forbid.

Only the static files of the ``swagger-ui-py`` package are used. It is looked up without being
imported: its own code is for serving pages with inline scripts.
"""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import orjson
from aiohttp import web

from shared.web.examples import JsonObject
from shared.web.headers import CONTENT_SECURITY_POLICY

_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}

_PAGE = b"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Waypost API</title>
    <link rel="stylesheet" href="/docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
"""

# A file and not a line in the page: ``script-src 'self'`` lets only files run.
_START = b"""window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null
});
"""

# helmet's policy without upgrade-insecure-requests: on plain HTTP (a laptop's address in the LAN)
# that would send the browser for the scripts to an HTTPS port that is not there.
_PAGE_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
_CACHED = {"Cache-Control": "public, max-age=86400"}


Describe = Callable[[], JsonObject]
"""Makes a document. Called once, in a thread, when somebody first asks for it: neither a start nor
other requests should wait for the tenth of a second that it takes."""


def add_docs(app: web.Application, openapi: Describe, *, asyncapi: Describe | None = None) -> None:
    """Serve ``/openapi.json`` and ``/docs``, and ``/asyncapi.json`` if there is one.

    Nobody has to log in for them. Raises ``RuntimeError`` if Swagger UI is missing.
    """
    static = _static_files()
    _add_document(app, "/openapi.json", openapi)
    if asyncapi is not None:
        _add_document(app, "/asyncapi.json", asyncapi)

    async def page(request: web.Request) -> web.Response:
        return web.Response(body=_PAGE, content_type="text/html", headers=_PAGE_HEADERS)

    async def start(request: web.Request) -> web.Response:
        return web.Response(body=_START, content_type="text/javascript")

    async def file(request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        kind = _FILES.get(name)
        if kind is None:
            raise web.HTTPNotFound
        return web.FileResponse(static / name, headers={**_CACHED, "Content-Type": kind})

    app.router.add_get("/docs", page)
    app.router.add_get("/docs/", page)
    app.router.add_get("/docs/start.js", start)
    app.router.add_get("/docs/{file}", file)


def _add_document(app: web.Application, path: str, describe: Describe) -> None:
    described: list[bytes] = []
    making = asyncio.Lock()

    async def show(request: web.Request) -> web.Response:
        async with making:
            if not described:
                described.append(await asyncio.to_thread(lambda: orjson.dumps(describe())))
        return web.Response(body=described[0], content_type="application/json")

    app.router.add_get(path, show)


def _static_files() -> Path:
    spec = find_spec("swagger_ui")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        static = Path(place) / "static"
        if all((static / name).is_file() for name in _FILES):
            return static
    raise RuntimeError("Swagger UI's files are missing; install the package swagger-ui-py")
