"""Health and metrics over HTTP: the same routes on every service."""

import asyncio

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared.health import Health, Report


def add_routes(app: web.Application, *, health: Health, registry: CollectorRegistry) -> None:
    """Serve ``/health``, ``/health/live``, ``/health/ready`` and ``/metrics``."""

    async def live(_request: web.Request) -> web.Response:
        return _answer(Report("up", {}), health)

    async def ready(_request: web.Request) -> web.Response:
        return _answer(await health.ready(), health)

    async def metrics(_request: web.Request) -> web.Response:
        # Rendering walks every series; in a thread it does not hold up requests.
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/health", ready)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", metrics)


def application(*, health: Health, registry: CollectorRegistry) -> web.Application:
    """An application with nothing but these routes, for services without an API."""
    app = web.Application()
    add_routes(app, health=health, registry=registry)
    return app


def _answer(report: Report, health: Health) -> web.Response:
    body = {
        "status": report.status,
        "uptime": round(health.uptime.total_seconds(), 3),
        "checks": dict(report.checks),
    }
    return web.Response(
        status=200 if report.status == "up" else 503,
        body=orjson.dumps(body),
        content_type="application/json",
    )
