"""The admin API: how a test plays the phones, breaks things, and learns what was said.

JSON over HTTP on a loopback port of its own. Errors are ``{"error": "…"}``: 404 for who or what is
not there, 409 for what cannot be done now, 422 for what makes no sense.

| request | answer |
| --- | --- |
| ``POST /phones {phone, lid?, pushName?}`` | the account; a number that there is stays as it is |
| ``GET /phones``, ``GET /phones/{phone}`` | accounts with their devices |
| ``POST /phones/{phone}/scan {qr}`` | 202 ``{device}``; the happening ``paired`` follows |
| ``POST /phones/{phone}/code {code}`` | 202; ``paired`` or ``pairing_failed`` follows |
| ``DELETE /phones/{phone}/devices/{device}`` | 204; the phone unlinks the device |
| ``GET /phones/{phone}/messages`` | what its devices have put on the wire |
| ``POST /phones/{phone}/receipts {to, ids, type}`` | 202; a report by a phone without a client |
| ``GET /connections`` | every login there was, and how it ended |
| ``POST /groups {by, subject, members, byLid?}``, ``GET /groups`` | a group; groups |
| ``GET /unknown`` | stanzas that nobody here knows; none, if all is well |
| ``GET /happenings?after=N&wait=S`` | what has happened since; waits for it if nothing has |
| ``POST /faults {kind, phone?, count?, …}``, ``GET``, ``DELETE`` | inject, list, clear |
| ``POST /reset`` | 204; nothing and nobody is left, happenings go on counting |

``GET /happenings`` takes further parameters, each a fact that must hold (``what``, ``phone``, …).
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from tests.whatsapp import faults, group_queries, notices, pairing, receipts
from tests.whatsapp.accounts import Phone
from tests.whatsapp.groups import Group
from tests.whatsapp.jid import LIDS, PHONES, Jid
from tests.whatsapp.world import World

WAIT_AT_MOST = 60.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(world: World) -> web.Application:
    """The API over a world."""
    api = Admin(world)
    made = web.Application(middlewares=[_errors])
    made.add_routes(
        [
            web.post("/phones", api.add_phone),
            web.get("/phones", api.list_phones),
            web.get("/phones/{phone}", api.show_phone),
            web.post("/phones/{phone}/scan", api.scan),
            web.post("/phones/{phone}/code", api.enter_code),
            web.delete("/phones/{phone}/devices/{device}", api.unlink),
            web.get("/phones/{phone}/messages", api.list_messages),
            web.post("/phones/{phone}/receipts", api.report),
            web.get("/connections", api.list_connections),
            web.post("/groups", api.add_group),
            web.get("/groups", api.list_groups),
            web.get("/unknown", api.list_unknown),
            web.get("/happenings", api.list_happenings),
            web.post("/faults", api.add_fault),
            web.get("/faults", api.list_faults),
            web.delete("/faults", api.clear_faults),
            web.post("/reset", api.reset),
        ]
    )
    return made


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except KeyError as error:
        return web.json_response({"error": f"missing: {error}"}, status=422)
    except LookupError as error:
        return web.json_response({"error": str(error)}, status=409)
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=422)


class Admin:
    """One method for each route."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def add_phone(self, request: web.Request) -> web.Response:
        body = await request.json()
        lid = str(body.get("lid") or "").removesuffix("@lid")
        phone = self._world.add_phone(str(body["phone"]).lstrip("+"), lid)
        phone.push_name = body.get("pushName", phone.push_name)
        return web.json_response(_shown(phone), status=201)

    async def list_phones(self, _: web.Request) -> web.Response:
        return web.json_response([_shown(phone) for phone in self._world.phones.values()])

    async def show_phone(self, request: web.Request) -> web.Response:
        return web.json_response(_shown(self._phone(request)))

    async def scan(self, request: web.Request) -> web.Response:
        body = await request.json()
        device = pairing.scan(self._world, self._phone(request), str(body["qr"]))
        return web.json_response({"device": device}, status=202)

    async def enter_code(self, request: web.Request) -> web.Response:
        body = await request.json()
        pairing.enter_code(self._world, self._phone(request), str(body["code"]))
        return web.json_response({}, status=202)

    async def unlink(self, request: web.Request) -> web.Response:
        phone = self._phone(request)
        device = phone.devices.get(int(request.match_info["device"]))
        if device is None or device.number == 0:
            raise web.HTTPNotFound
        self._world.unlink(device, by="phone")
        notices.devices_changed(self._world, phone)
        return web.Response(status=204)

    async def list_messages(self, request: web.Request) -> web.Response:
        phone = self._phone(request)
        return web.json_response(
            [
                {**asdict(sent), "from": phone.number, "toPhone": self._number(sent.to)}
                for sent in phone.sent.values()
            ]
        )

    async def report(self, request: web.Request) -> web.Response:
        body = await request.json()
        author = self._world.phones.get(str(body["to"]).lstrip("+"))
        if author is None:
            raise web.HTTPNotFound
        kind = str(body.get("type", ""))
        receipts.report(
            self._world,
            self._phone(request),
            [str(message_id) for message_id in body["ids"]],
            to=author.at(LIDS),
            kind="" if kind == "delivered" else kind,
            author=author,
        )
        return web.json_response({}, status=202)

    async def list_connections(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(visit) for visit in self._world.visits.values()])

    async def add_group(self, request: web.Request) -> web.Response:
        body = await request.json()
        by, *others = [
            self._world.add_phone(str(number).lstrip("+"))
            for number in [body["by"], *body["members"]]
        ]
        group = group_queries.create(
            self._world,
            by,
            str(body["subject"]),
            [phone.number for phone in others],
            by_lid=bool(body.get("byLid", True)),
        )
        return web.json_response(_shown_group(group), status=201)

    async def list_groups(self, _: web.Request) -> web.Response:
        return web.json_response([_shown_group(group) for group in self._world.groups.values()])

    async def list_unknown(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(unknown) for unknown in self._world.unknown])

    async def list_happenings(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        after, wait = int(asked.pop("after", "0")), float(asked.pop("wait", "0"))
        found = await self._world.happenings.after(after, wait=min(wait, WAIT_AT_MOST), **asked)
        return web.json_response({"happenings": found, "last": self._world.happenings.last})

    async def add_fault(self, request: web.Request) -> web.Response:
        fault = faults.parsed(await request.json())
        self._world.strike(fault)
        if fault.kind == "device_removed":
            for number, phone in self._world.phones.items():
                if fault.phone in {None, number}:
                    notices.devices_changed(self._world, phone)
        return web.json_response(asdict(fault), status=201)

    async def list_faults(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(fault) for fault in self._world.faults.standing])

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._world.faults.clear()
        return web.Response(status=204)

    async def reset(self, _: web.Request) -> web.Response:
        self._world.reset()
        return web.Response(status=204)

    def _number(self, address: str) -> str | None:
        """The number of the account at an address; none if that is a group."""
        phone = self._world.phone_of(Jid.parse(address))
        return phone.number if phone else None

    def _phone(self, request: web.Request) -> Phone:
        phone = self._world.phones.get(request.match_info["phone"].lstrip("+"))
        if phone is None:
            raise web.HTTPNotFound
        return phone


def _shown(phone: Phone) -> dict[str, Any]:
    return {
        "phone": phone.number,
        "lid": phone.lid,
        "jid": str(phone.at(PHONES)),
        "lidJid": str(phone.at(LIDS)),
        "pushName": phone.push_name,
        "about": phone.about,
        "picture": phone.picture,
        "available": bool(phone.available_on),
        "devices": [
            {
                "device": device.number,
                "name": device.name,
                "connected": device.connection is not None,
                "active": device.active,
                "waiting": len(device.mailbox),
                "prekeys": len(device.keys.one_time) if device.keys else 0,
            }
            for device in phone.linked
        ],
    }


def _shown_group(group: Group) -> dict[str, Any]:
    return {
        "group": str(group.jid),
        "subject": group.subject,
        "description": group.description,
        "byLid": group.by_lid,
        "announcement": group.announcement,
        "locked": group.locked,
        "invite": group.invite,
        "members": group.members,
    }
