"""Accounts: register, log in, stay logged in, log out."""

from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import Auditing, note, violation_of
from services.gateway.api.callers import SUSPENDED
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.logins import Logins, login_of
from services.gateway.api.once import Once
from services.gateway.api.password_checks import PasswordChecks, require_good
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.accounts import (
    Credentials,
    LoggedOut,
    Login,
    Me,
    OrganizationView,
    PasswordChange,
    PasswordChanged,
    Refresh,
    Registered,
    Registration,
    UserView,
)
from services.gateway.domain.auditing import STRANGER, Actor, ActorKind, Security
from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal
from services.gateway.store import accounts, audit
from services.gateway.store.accounts import Organization, User
from shared.clock import Clock
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Conflict, Forbidden, Unauthenticated
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.security.passwords import Passwords
from shared.security.tokens import digest_of
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.envelope import respond

log = get_logger()

_REFRESH_REFUSED = "This refresh token is not valid any more; log in again."


class Accounts:
    """The routes under ``/api/auth``."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        logins: Logins,
        passwords: Passwords,
        checks: PasswordChecks,
        revocations: Revocations,
        auditing: Auditing,
        relay: Relay,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._logins = logins
        self._passwords = passwords
        self._checks = checks
        self._revocations = revocations
        self._auditing = auditing
        self._relay = relay
        self._limits = limits
        self._clock = clock

    async def register(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, Registration, self._limits)
        require_good(body.password, field="password", email=body.email)
        # Before the transaction: it takes long, and a connection must not wait for it.
        password_hash = await self._passwords.hash(body.password)

        async def work(tx: AsyncConnection) -> Registered:
            now = self._clock.now()
            organization = Organization(
                new_id(), body.organization_name or body.name, "UTC", "basic", now
            )
            user = User(
                id=new_id(),
                tenant_id=organization.id,
                email=body.email,
                name=body.name,
                role=Role.ADMIN,
                active=True,
                created_at=now,
                password_hash=password_hash,
                joined_at=now,
            )
            await accounts.add_organization(tx, organization)
            if not await accounts.add_user(tx, user):
                raise Conflict(
                    "This e-mail address has an account already; log in, or accept the invitation"
                    " that was sent to it."
                )
            tokens = await self._logins.issue(tx, user)
            await note(
                tx,
                request,
                "user",
                user.id,
                after=OrganizationView.of(organization),
                tenant_id=organization.id,
                actor=_as_user(user),
            )
            log.info("account_registered", user_id=str(user.id), tenant_id=str(organization.id))
            return Registered(
                **login_of(tokens, user).model_dump(by_alias=False),
                organization=OrganizationView.of(organization),
            )

        return await self._once.run(request, body, work)

    async def login(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, Credentials, self._limits)
        async with self._checks.turn(request, body.email):
            async with self._database.tx() as tx:
                found = await accounts.user_by_email(tx, body.email)
            user = await self._checks.check(request, body.email, password=body.password, user=found)
        async with self._database.tx() as tx:
            # What was true a moment ago, while the password was checked, may be over: a login that
            # began now would outlive the end of all the others.
            now_so = await accounts.user(tx, user.id, lock=True)
            if now_so is None or not now_so.active or now_so.password_hash != user.password_hash:
                raise Unauthenticated("The account has just been changed; log in again.")
            await _require_in_service(tx, user.tenant_id)
            tokens = await self._logins.issue(tx, now_so)
            await note(tx, request, "user", user.id, tenant_id=user.tenant_id, actor=_as_user(user))
        log.info("login_succeeded", user_id=str(user.id), tenant_id=str(user.tenant_id))
        return respond(login_of(tokens, now_so))

    async def refresh(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, Refresh, self._limits)
        async with self._database.tx() as tx:
            login = await self._next(tx, request, digest_of(body.refresh_token))
        # Raised only here, so that the revocation of a family whose token was used twice stays.
        if isinstance(login, UUID):
            self._relay.wake()
            await self._revocations.tell(logins=[login])
            raise Unauthenticated(
                "This refresh token was used before, so the login was ended; log in again."
            )
        if login is None:
            raise Unauthenticated(_REFRESH_REFUSED)
        return respond(login)

    async def logout(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        user_id, session_id = _user_and_session(principal)
        async with self._database.tx() as tx:
            await accounts.revoke_family(tx, session_id, user_id=user_id, now=self._clock.now())
            await note(tx, request, "user", principal.user_id)
        await self._revocations.tell(logins=[session_id])
        log.info("logout_succeeded", user_id=str(principal.user_id))
        return respond(LoggedOut())

    async def change_password(self, request: web.Request) -> web.StreamResponse:
        user_id, session_id = _user_and_session(request[PRINCIPAL])
        body = await read_model(request, PasswordChange, self._limits)
        async with self._database.tx() as tx:
            user = await accounts.user(tx, user_id)
        if user is None:
            raise Unauthenticated("This login has ended; log in again.")
        async with self._checks.turn(request, user.email):
            try:
                user = await self._checks.check(
                    request, user.email, password=body.current_password, user=user
                )
            except Unauthenticated:
                raise invalid({"currentPassword": "is not the current password"}) from None
        require_good(body.new_password, field="newPassword", email=user.email)
        password_hash = await self._passwords.hash(body.new_password)
        async with self._database.tx() as tx:
            # As at a login: what was reset, ended or deactivated meanwhile stays so.
            now_so = await accounts.user(tx, user_id, lock=True)
            if (
                now_so is None
                or not now_so.active
                or not await accounts.stands(tx, session_id)
                or not await accounts.set_password(
                    tx, user_id, password_hash, instead_of=user.password_hash
                )
            ):
                raise Unauthenticated("The account has just been changed; log in again.")
            ended = await accounts.revoke_other_families(
                tx, user_id, keep=session_id, now=self._clock.now()
            )
            await note(tx, request, "user", user_id, after={"otherLoginsEnded": len(ended)})
        await self._revocations.tell(logins=ended)
        log.info("password_changed", user_id=str(user_id), other_logins_ended=len(ended))
        return respond(PasswordChanged(other_logins_ended=len(ended)))

    async def me(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        if principal.user_id is None:
            raise Unauthenticated("This needs an access token; log in first.")
        async with self._database.tx() as tx:
            user = await accounts.user(tx, principal.user_id)
            organization = await accounts.organization(tx, principal.tenant_id)
        if user is None or organization is None:
            raise Unauthenticated("This login has ended; log in again.")
        return respond(
            Me(
                user=UserView.of(user),
                organization=OrganizationView.of(organization),
                permissions=sorted(principal.permissions),
            )
        )

    async def _next(
        self, tx: AsyncConnection, request: web.Request, digest: bytes
    ) -> Login | UUID | None:
        """The next login of a family; its id if it had to be ended, nothing if it has ended."""
        now = self._clock.now()
        token = await accounts.refresh_token(tx, digest)
        if token is None or token.revoked_at is not None:
            return None
        if token.spent_at is not None:
            await accounts.revoke_family(tx, token.family_id, user_id=token.user_id, now=now)
            await self._tell_of_reuse(tx, request, token.user_id)
            return token.family_id
        user = await accounts.user(tx, token.user_id)
        if token.expires_at <= now or user is None or not user.active:
            return None
        await _require_in_service(tx, user.tenant_id)
        await accounts.spend_refresh_token(tx, token.id, now=now)
        return login_of(await self._logins.issue(tx, user, family=token.family_id), user)

    async def _tell_of_reuse(
        self, tx: AsyncConnection, request: web.Request, user_id: UUID
    ) -> None:
        log.warning("refresh_token_reused", user_id=str(user_id))
        user = await accounts.user(tx, user_id)
        entry = self._auditing.entry(
            request,
            Security.REFRESH_TOKEN_REUSED,
            "user",
            user_id,
            tenant_id=None if user is None else user.tenant_id,
            actor=STRANGER,
        )
        await audit.add(tx, entry)
        event = violation_of(entry, "refresh_token_reused")
        if event is not None:
            await outbox.add(tx, GatewayOutboxRow, [outbox.event(event)], now=entry.at)


async def _require_in_service(tx: AsyncConnection, tenant_id: UUID) -> None:
    organization = await accounts.organization(tx, tenant_id)
    if organization is None or organization.suspended_at is not None:
        raise Forbidden(SUSPENDED)


def _as_user(user: User) -> Actor:
    return Actor(ActorKind.OPERATOR if user.role == Role.OPERATOR else ActorKind.USER, user.id)


def _user_and_session(principal: Principal) -> tuple[UUID, UUID]:
    """Only logins get here, so both are there."""
    if principal.user_id is None or principal.session_id is None:
        raise Unauthenticated("This needs an access token; log in first.")
    return principal.user_id, principal.session_id
