"""A local WhatsApp for tests: the server as a process, phones to pair with, contacts to talk to.

``tests/whatsapp/README.md`` says what the server does; here is how a test takes part. Everything
that is waited for is waited for where it happens, and every wait has an end.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp

from tests.support.customer import Customer
from tests.support.eventually import eventually
from tests.support.whatsapp_contact import PATIENCE, Contact, Reach
from tests.whatsapp import trust

ROOT = Path(__file__).parents[2]
# For a device to be linked: a worker starts, and makes some eight hundred keys.
PAIRING = timedelta(seconds=60)


@dataclass(frozen=True)
class Ready:
    """What the server says once it listens."""

    proxy: int
    admin: int
    tls: int
    ca: str
    noise_root: str
    websocket: str


class TooLate(AssertionError):
    """What was to be done cannot be done any more, such as scanning a code that nobody shows."""


class WhatsApp:
    """A running server."""

    def __init__(self, ready: Ready, folder: Path, http: aiohttp.ClientSession, log: Path) -> None:
        self.ready = ready
        self.reach = Reach(
            websocket=ready.websocket,
            media_host=f"127.0.0.1:{ready.tls}",
            noise_root=ready.noise_root,
            authority=Path(ready.ca),
        )
        self._folder = folder
        self._http = http
        self._log = log

    @classmethod
    @asynccontextmanager
    async def running(
        cls, folder: Path, *options: str, detached: bool = False
    ) -> AsyncIterator[Self]:
        """A server of the test's own; ``--trace`` among the options logs every stanza.

        One that is ``detached`` does not hear of a Ctrl+C, and ends with the context alone.
        """
        log = folder / "whatsapp.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.whatsapp", "--dir", str(folder / "server")),
                *options,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=detached,
            )
        try:
            ready = await _ready(process, log)
            timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
            async with aiohttp.ClientSession(timeout=timeout) as http:
                yield cls(ready, folder, http, log)
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(PATIENCE):
                ended = await process.wait()
        assert ended == 0, log.read_text()[-4000:]

    async def add_phone(self, number: str, **more: str) -> dict[str, Any]:
        """A phone with an account; the one there is if the number is taken."""
        return dict(await self._call("POST", "/phones", {"phone": number, **more}))

    async def phone(self, number: str) -> dict[str, Any]:
        """An account with its devices."""
        return dict(await self._call("GET", f"/phones/{number.lstrip('+')}"))

    async def scan(self, number: str, qr: str) -> int:
        """Scan a QR code with a phone; returns the number of the device that is linked by it."""
        await self.add_phone(number)
        body = {"qr": qr}
        return int((await self._call("POST", f"/phones/{number.lstrip('+')}/scan", body))["device"])

    async def enter(self, number: str, code: str) -> None:
        """Type a pairing code on a phone."""
        await self._call("POST", f"/phones/{number.lstrip('+')}/code", {"code": code})

    async def unlink(self, number: str, device: int) -> None:
        """Unlink a device on its phone."""
        await self._call("DELETE", f"/phones/{number.lstrip('+')}/devices/{device}")

    async def messages(self, number: str) -> list[dict[str, Any]]:
        """What the account's devices have put on the wire, each message once, in order."""
        return list(await self._call("GET", f"/phones/{number.lstrip('+')}/messages"))

    async def connections(self) -> list[dict[str, Any]]:
        """Every login there was, and how it ended."""
        return list(await self._call("GET", "/connections"))

    async def groups(self) -> list[dict[str, Any]]:
        """Every group."""
        return list(await self._call("GET", "/groups"))

    async def unknown(self) -> list[str]:
        """Stanzas that the server could not make sense of."""
        return [one["stanza"] for one in await self._call("GET", "/unknown")]

    async def fault(self, kind: str, **given: object) -> None:
        """Let something go wrong, from now on or once; ``tests/whatsapp/faults.py`` lists what."""
        await self._call("POST", "/faults", {"kind": kind, **given})

    async def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        await self._call("DELETE", "/faults")

    async def last(self) -> int:
        """The number of the latest happening, to wait for what comes after."""
        return int((await self._happenings(1 << 60, 0, {}))["last"])

    async def happenings(self, what: str, **facts: object) -> list[dict[str, Any]]:
        """All that has happened of a kind."""
        return list((await self._happenings(0, 0, {"what": what, **facts}))["happenings"])

    async def happening(
        self, what: str, *, after: int = 0, within: float = PATIENCE, **facts: object
    ) -> dict[str, Any]:
        """The first of a kind after a number, which may be still to come."""
        found = await self._happenings(after, within, {"what": what, **facts})
        assert found["happenings"], f"no {what} {facts or ''} within {within:g} s; see {self._log}"
        return dict(found["happenings"][0])

    async def _happenings(
        self, after: int, wait: float, facts: Mapping[str, object]
    ) -> dict[str, Any]:
        query = {"after": str(after), "wait": f"{wait:g}"}
        query |= {name: str(value) for name, value in facts.items()}
        return dict(await self._call("GET", "/happenings", query=query))

    @asynccontextmanager
    async def contact(
        self, name: str, number: str, *, by: Literal["qr", "code"] = "qr"
    ) -> AsyncIterator[Contact]:
        """A contact with a phone of that number, paired and connected."""
        await self.add_phone(number, pushName=name.capitalize())
        code_for = number if by == "code" else None
        async with Contact.running(name, self.reach, self._folder, code_for=code_for) as contact:
            if by == "code":
                await self.enter(number, (await contact.next("code"))["code"])
            else:
                await self.scan(number, (await contact.next("qr"))["code"])
            yield await contact.connected()

    @asynccontextmanager
    async def returning(self, name: str) -> AsyncIterator[Contact]:
        """A contact that was paired before, in a new process of the same device."""
        async with Contact.running(name, self.reach, self._folder) as contact:
            yield await contact.connected()

    async def _call(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> Any:
        url = f"http://127.0.0.1:{self.ready.admin}{path}"
        async with self._http.request(method, url, json=body, params=query) as response:
            told = await response.text()
            if response.status == 409:
                raise TooLate(told)
            assert response.status < 300, f"{method} {path} answered {response.status}: {told}"
            return json.loads(told) if told else None


async def _ready(process: asyncio.subprocess.Process, log: Path) -> Ready:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = await process.stdout.readline()
    assert line, f"the local WhatsApp server has not started; see {log}"
    told = json.loads(line)
    return Ready(
        proxy=told["proxy"],
        admin=told["admin"],
        tls=told["tls"],
        ca=told["ca"],
        noise_root=told["noiseRootHex"],
        websocket=told["ws"],
    )


async def linked(
    customer: Customer, whatsapp: WhatsApp, number: str, *, by: Literal["qr", "code"] = "qr"
) -> dict[str, Any]:
    """An instance of the customer's that is a linked device of a phone; ``key`` may use it.

    It has no limits: no number is at risk here.
    """
    made = (await customer.post("/api/instances", {"name": "Linked", "engine": "whatsmeow"})).data
    at = f"/api/instances/{made['id']}"
    unlimited = {"perMinute": 0, "perHour": 0, "perDay": 0}
    assert (await customer.call("PUT", f"{at}/guard", json=unlimited)).status == 200
    key = await customer.post(f"{at}/keys", {"name": "test", "rateLimit": 1_000_000})
    assert (await customer.post(f"{at}/connect")).status == 202
    await whatsapp.add_phone(number)
    if by == "qr":
        await whatsapp.scan(number, await shown_qr(customer, made["id"]))
    else:
        await whatsapp.enter(number, await asked_code(customer, made["id"], number))
    status = await ready(customer, made["id"])
    return {**made, "key": key.data["key"], "phoneNumber": status["phoneNumber"]}


async def shown_qr(customer: Customer, instance: str) -> str:
    """The QR code that the API shows for an instance."""

    async def shown() -> Any:
        answer = await customer.get(f"/api/instances/{instance}/qr")
        assert answer.status == 200, answer.body
        return answer.data["code"]

    return str(await eventually(shown, within=PAIRING))


async def asked_code(customer: Customer, instance: str, number: str) -> str:
    """A pairing code that the API gives for a number."""

    async def given() -> Any:
        answer = await customer.post(
            f"/api/instances/{instance}/pairing-code", {"phoneNumber": f"+{number.lstrip('+')}"}
        )
        assert answer.status == 200, answer.body
        return answer.data["code"]

    return str(await eventually(given, within=PAIRING))


async def ready(customer: Customer, instance: str) -> dict[str, Any]:
    """An instance's status, once it can send and receive."""

    async def connected() -> Any:
        status = (await customer.get(f"/api/instances/{instance}/status")).data
        assert status["status"] == "ready", status
        return status

    return dict(await eventually(connected, within=PAIRING))


def waypost_environment(whatsapp: WhatsApp) -> dict[str, str]:
    """What to put into the environment of a Waypost, so that its linked devices come here.

    Its worker processes inherit it. The proxy leads whoever asks for WhatsApp to the server; the
    rest makes neonize trust it.
    """
    proxy = f"http://127.0.0.1:{whatsapp.ready.proxy}"
    return {
        **trust.environment(
            noise_root_hex=whatsapp.ready.noise_root,
            authority=whatsapp.ready.ca,
            inherited={},
        ),
        "WAYPOST_SESSIONS_PROXIES": proxy,
    }
