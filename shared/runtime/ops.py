"""Health and metrics over HTTP: the same routes on every service."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared.health import Health, Report
from shared.web.routes import Also, Raw, Route, add_routes

_HEALTH: Final = Raw(
    description="`up` or `down`, and of each part that it needs whether it is there.",
    schema={
        "type": "object",
        "required": ["status", "uptime", "checks"],
        "properties": {
            "status": {"type": "string"},
            "uptime": {"type": "number", "description": "In seconds."},
            "checks": {"type": "object"},
        },
    },
    example={"status": "up", "uptime": 3600.5, "checks": {}},
)


def routes(*, health: Health, registry: CollectorRegistry) -> Sequence[Route]:
    """``/health``, ``/health/live``, ``/health/ready`` and ``/metrics``."""

    async def live(_request: web.Request) -> web.Response:
        return _answer(Report("up", {}), health)

    async def ready(_request: web.Request) -> web.Response:
        return _answer(await health.ready(), health)

    async def metrics(_request: web.Request) -> web.Response:
        # Rendering walks every series; in a thread it does not hold up requests.
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    alive = Route(
        method="GET",
        path="/health/live",
        handler=live,
        summary="Whether the process lives",
        description="In no envelope; for whatever restarts it.",
        tag="Operation",
        permission=None,
        bare=True,
        raw={"application/json": _HEALTH},
    )
    return (
        alive,
        replace(
            alive,
            path="/health/ready",
            handler=ready,
            summary="Whether it can do its work",
            description="In no envelope; for whatever sends it requests.",
            also=(Also(status=503, description="It cannot", raw={"application/json": _HEALTH}),),
            aliases=("/health",),
        ),
        replace(
            alive,
            path="/metrics",
            handler=metrics,
            summary="What it counts",
            description="In Prometheus' text form. Not for the world: keep it inside your network.",
            raw={"text/plain": "Prometheus' text form."},
        ),
    )


def application(*, health: Health, registry: CollectorRegistry) -> web.Application:
    """An application with nothing but these routes, for services without an API."""
    app = web.Application()
    add_routes(app, routes(health=health, registry=registry))
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
