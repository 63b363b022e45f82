"""Becoming a member by an invitation, and ceasing to be one by oneself."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.callers import SUSPENDED
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.logins import Logins, login_of
from services.gateway.api.password_checks import PasswordChecks, require_good
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.accounts import Login, UserView
from services.gateway.api.schemas.team import Acceptance, Deactivated, OwnDeactivation
from services.gateway.domain.auditing import Actor, ActorKind
from services.gateway.domain.team import last_of
from services.gateway.store import accounts, team
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Conflict, Forbidden, Unauthenticated
from shared.log import get_logger
from shared.security.passwords import Passwords
from shared.security.tokens import KeyKind, digest_of, kind_of
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.envelope import respond

log = get_logger()


class Membership:
    """``/api/auth/accept-invitation`` and ``/api/auth/deactivate``."""

    def __init__(
        self,
        *,
        database: Database,
        logins: Logins,
        passwords: Passwords,
        checks: PasswordChecks,
        revocations: Revocations,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._logins = logins
        self._passwords = passwords
        self._checks = checks
        self._revocations = revocations
        self._limits = limits
        self._clock = clock

    async def accept(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, Acceptance, self._limits)
        if kind_of(body.token) is not KeyKind.INVITATION:
            raise _refused()
        digest = digest_of(body.token)
        # First, because hashing a password is dear, and strangers must not have it for nothing.
        async with self._database.tx() as tx:
            email = await team.address_of_invited(tx, digest, now=self._clock.now())
        if email is None:
            raise _refused()
        require_good(body.password, field="password", email=email)
        password_hash = await self._passwords.hash(body.password)
        async with self._database.tx() as tx:
            return respond(await self._accept(tx, request, body, digest, password_hash))

    async def _accept(
        self,
        tx: AsyncConnection,
        request: web.Request,
        body: Acceptance,
        digest: bytes,
        password_hash: str,
    ) -> Login:
        now = self._clock.now()
        user_id = await team.invited(tx, digest, now=now)
        if user_id is None:
            raise _refused()
        user = await accounts.user(tx, user_id, lock=True)
        if user is None or not user.active:
            raise _refused()
        organization = await accounts.organization(tx, user.tenant_id)
        if organization is None or organization.suspended_at is not None:
            raise Forbidden(SUSPENDED)
        require_good(body.password, field="password", email=user.email)
        changes: dict[str, object] = {"password_hash": password_hash}
        if user.joined_at is None:
            changes["joined_at"] = now
        if body.name is not None:
            changes["name"] = body.name
        await team.change(tx, user_id, changes)
        joined = await accounts.user(tx, user_id)
        assert joined is not None  # noqa: S101 - it is locked by this transaction
        await note(
            tx,
            request,
            "user",
            user_id,
            tenant_id=user.tenant_id,
            actor=Actor(ActorKind.USER, user_id),
        )
        log.info("invitation_accepted", user_id=str(user_id), tenant_id=str(user.tenant_id))
        return login_of(await self._logins.issue(tx, joined), joined)

    async def deactivate(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, OwnDeactivation, self._limits)
        assert principal.user_id is not None  # noqa: S101 - only a login gets here
        async with self._database.tx() as tx:
            user = await accounts.user(tx, principal.user_id)
        if user is None:
            raise Unauthenticated("This login has ended; log in again.")
        async with self._checks.turn(request, user.email):
            try:
                await self._checks.check(
                    request, user.email, password=body.current_password, user=user
                )
            except Unauthenticated:
                raise invalid({"currentPassword": "is not the current password"}) from None
        async with self._database.tx() as tx:
            await accounts.organization(tx, user.tenant_id, lock=True)
            last = last_of(user.tenant_id)
            if user.role == last and not await team.others(tx, user.tenant_id, last, than=user.id):
                raise Conflict(f"You are the last {last}; make somebody else {last} first.")
            now = self._clock.now()
            await team.change(tx, user.id, {"active": False})
            await team.end_logins(tx, user.id, now=now)
            await team.end_keys(tx, user.id, now=now)
            await note(tx, request, "user", user.id)
        await self._revocations.tell(users=[user.id])
        log.info("member_left", user_id=str(user.id))
        return respond(Deactivated(user=UserView.of(user)))


def _refused() -> Unauthenticated:
    return Unauthenticated(
        "This invitation is not valid any more; ask whoever invited you for a new one."
    )
