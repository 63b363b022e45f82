"""A customer of a running Waypost: calls its API and receives its webhooks."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.support.eventually import eventually


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def data(self) -> Any:
        """The data of a success."""
        assert self.status < 300, self.body
        return self.body["data"]

    @property
    def code(self) -> str:
        """The code of an error."""
        assert self.body["success"] is False, self.body
        return str(self.body["error"]["code"])


class Customer:
    """Calls the API with one credential."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._http = http
        self._url = url
        self.headers = dict(headers or {})

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, *, content_storage: str = "encrypted") -> AsyncIterator[Self]:
        """A newly registered customer, who keeps what is said unless told otherwise."""
        timeout = aiohttp.ClientTimeout(total=40)
        connector = aiohttp.TCPConnector(limit=200)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            customer = cls(http, url)
            account = await customer.post(
                "/api/auth/register",
                {
                    "email": f"{secrets.token_hex(8)}@example.com",
                    "password": "an example passphrase",
                    "name": "Customer",
                },
            )
            customer.headers = {"Authorization": f"Bearer {account.data['token']}"}
            kept = {"contentStorage": content_storage}
            assert (await customer.call("PUT", "/api/organization", json=kept)).status == 200
            yield customer

    def with_key(self, key: str) -> "Customer":
        """The same customer, acting as one instance."""
        return Customer(self._http, self._url, {"X-API-Key": key})

    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """One request, whatever it answers."""
        async with self._http.request(
            method, self._url + path, headers={**self.headers, **(headers or {})}, **more
        ) as response:
            raw = await response.read()
            if response.content_type == "application/json":
                return Answer(response.status, json.loads(raw), response.headers)
            return Answer(response.status, raw, response.headers)

    async def get(self, path: str, **more: Any) -> Answer:
        """GET."""
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: object = None, **more: Any) -> Answer:
        """POST of JSON."""
        return await self.call("POST", path, json=body, **more)

    async def instance(
        self, *, settings: object = None, phone: str | None = None
    ) -> dict[str, Any]:
        """A connected sandbox instance; its ``key`` and ``phoneNumber`` are filled in."""
        made = await self.post(
            "/api/instances",
            {
                "name": "Example",
                "engine": "sandbox",
                **({"settings": settings} if settings else {}),
                **({"phoneNumber": phone} if phone else {}),
            },
        )
        id_ = made.data["id"]
        (await self.post(f"/api/instances/{id_}/connect")).data  # noqa: B018 - asserts success
        key = await self.post(
            f"/api/instances/{id_}/keys", {"name": "test", "rateLimit": 1_000_000}
        )

        async def ready() -> Any:
            status = (await self.get(f"/api/instances/{id_}/status")).data
            assert status["status"] == "ready", status
            return status

        status = await eventually(ready, within=timedelta(seconds=30))
        return {**made.data, "key": key.data["key"], "phoneNumber": status["phoneNumber"]}

    async def webhook(self, instance: str, url: str, *events: str) -> dict[str, Any]:
        """The instance's webhook, for these events or all."""
        made = await self.post(
            f"/api/instances/{instance}/webhook", {"url": url, "events": list(events) or ["*"]}
        )
        return dict(made.data)

    async def text(self, to: str, message: str, **more: Any) -> Answer:
        """Send a text; for a customer with an instance key."""
        return await self.post("/api/messages/text", {"to": to, "message": message}, **more)


@dataclass
class Sink:
    """A customer's server. ``status`` is what it answers, and may be changed at any time."""

    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator[Self]:
        """Listen on loopback."""
        sink = cls()
        app = web.Application()
        app.router.add_post("/{name}", sink.receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
        try:
            yield sink
        finally:
            await runner.cleanup()

    async def receive(self, request: web.Request) -> web.Response:
        """Keep one delivery."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.raw.append(await request.read())
        self.got.append((headers, json.loads(self.raw[-1])))
        return web.Response(status=self.status)

    def events(self, message: str | None = None) -> list[str]:
        """The names of the events that came, of one message or of all, in order of arrival."""
        return [
            payload["event"]
            for _, payload in self.got
            if message is None or payload["data"].get("messageId") == message
        ]


async def together(*awaitables: Any, at_once: int = 50) -> list[Any]:
    """All results, with at most so many under way at the same time."""
    gate = asyncio.Semaphore(at_once)

    async def one(awaitable: Any) -> Any:
        async with gate:
            return await awaitable

    return list(await asyncio.gather(*(one(awaitable) for awaitable in awaitables)))
