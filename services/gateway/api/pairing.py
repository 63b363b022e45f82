"""Linking a phone by a code, and what others see of the account that is linked."""

from aiohttp import web

from services.gateway.api.askable import Askable
from services.gateway.api.auditing import note_alone
from services.gateway.api.schemas.asked import PairingCodeView, ProfileView, WantedCode
from services.gateway.api.seen import seen
from services.gateway.domain.readiness import can_be_paired, no_code
from shared.contracts.capabilities import Capability
from shared.contracts.questions import PairByCode, PairingCode, Profile, TellProfile
from shared.web.body import BodyLimits, read_model
from shared.web.envelope import respond


class Pairing:
    """``/api/instances/{id}/pairing-code`` and ``/profile``."""

    def __init__(self, *, askable: Askable, limits: BodyLimits) -> None:
        self._askable = askable
        self._limits = limits

    async def code(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, WantedCode, self._limits)
        instance = await self._askable.in_path(request, Capability.PAIRING_CODE)
        if not can_be_paired(instance.status, connected=instance.connected):
            raise no_code(instance.status, connected=instance.connected, what="pairing code")
        question = PairByCode(phone_number=body.phone_number)
        found = await self._askable.answer(request, instance, question, PairingCode)
        await note_alone(request, "instance", instance.id, after={"phoneNumber": body.phone_number})
        return respond(PairingCodeView.of(found.code, found.expires_at))

    async def profile(self, request: web.Request) -> web.StreamResponse:
        found = await self._askable.ask(request, Capability.PROFILE, TellProfile(), Profile)
        return respond(seen(request, ProfileView.of(found)))
