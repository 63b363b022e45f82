"""Letting in again who was locked out."""

from aiohttp import web

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.schemas.accounts import Unlocked
from services.gateway.store import lockouts
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.envelope import respond


class Locks:
    """``/api/team/members/{userId}/unlock``."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def unlock(self, request: web.Request) -> web.StreamResponse:
        """Forget a member's failed logins, at every gateway; who is not locked stays so."""
        user_id = id_in_path(request, "userId")
        async with self._database.tx() as tx:
            if not await lockouts.unlock(tx, request[PRINCIPAL].tenant_id, user_id):
                raise NotFound("There is no such member; check the id.")
            await note(tx, request, "user", user_id)
        return respond(Unlocked(id=user_id))
