"""The team: who is in an organization, as what, and which instances they see."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.fields import Deleted, Nothing
from services.gateway.api.schemas.team import (
    AssignmentView,
    InvitationView,
    InvitedMember,
    MemberChange,
    MembersQuery,
    MemberView,
    NewMember,
)
from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.domain.team import MANAGERS, gives, last_of, manager_seen_by
from services.gateway.store import accounts, instances, team
from services.gateway.store.accounts import User
from services.gateway.store.team import Member, Wanted
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Conflict, Forbidden, NotFound, Rejected
from shared.ids import new_id
from shared.log import get_logger
from shared.security.tokens import KeyKind, issue_key
from shared.web.body import BodyLimits, invalid, read_model, read_query
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset

log = get_logger()

_POSITIONS: Keyset[UUID] = Keyset("members", TypeAdapter(UUID))
_ONESELF: Final = "This is yourself: deactivate yourself with POST /api/auth/deactivate."


class Team:
    """``/api/team/members``."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        revocations: Revocations,
        limits: BodyLimits,
        invitation_lifetime: timedelta,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._revocations = revocations
        self._limits = limits
        self._lifetime = invitation_lifetime
        self._clock = clock

    async def invite(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewMember, self._limits)

        async def work(tx: AsyncConnection) -> InvitedMember:
            await _take_turn(tx, principal)
            _require_gives(principal, body.role)
            user = User(
                id=new_id(),
                tenant_id=principal.tenant_id,
                email=body.email,
                name=body.name,
                role=body.role,
                active=True,
                created_at=self._clock.now(),
                password_hash=None,
                manager_id=await _manager(tx, principal, body.manager_id),
            )
            if not await accounts.add_user(tx, user):
                raise Conflict(
                    "This e-mail address has an account already; invite another address of theirs."
                )
            for instance_id in dict.fromkeys(body.instances):
                if await instances.find(tx, scope_of(principal), instance_id) is None:
                    raise invalid({"instances": f"has an unknown one: {instance_id}"})
                await team.assign(
                    tx, user.id, instance_id, by=principal.user_id, now=user.created_at
                )
            invitation = await self._invitation(tx, user.id)
            member = await _found(tx, principal, user.id)
            await note(tx, request, "member", user.id, after=MemberView.of(member))
            log.info("member_invited", member_id=str(user.id), role=user.role)
            return InvitedMember(
                **MemberView.of(member).model_dump(by_alias=False), invitation=invitation
            )

        return await self._once.run(request, body, work, principal=principal)

    async def page(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        query = read_query(request, MembersQuery)
        wanted = Wanted(manager=manager_seen_by(principal), role=query.role, active=query.active)
        async with self._database.tx() as tx:
            rows = await team.page(
                tx,
                principal.tenant_id,
                wanted,
                after=_POSITIONS.decode(query.cursor) if query.cursor else None,
                limit=query.limit + 1,
            )
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page([MemberView.of(row) for row in shown], pagination)

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(MemberView.of(await _member_in_path(tx, request)))

    async def change(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, MemberChange, self._limits)
        async with self._database.tx() as tx:
            await _take_turn(tx, principal)
            member = await _member_in_path(tx, request)
            changes = await _changes(tx, principal, member, body)
            await _require_another(tx, principal.tenant_id, member, changes)
            await team.change(tx, member.id, changes)
            if changes.get("active") is False:
                await self._end(tx, member)
            changed = await _member_in_path(tx, request)
            before, after = MemberView.of(member), MemberView.of(changed)
            await note(tx, request, "member", member.id, before=before, after=after)
        if changes.keys() & {"role", "active"}:
            await self._revocations.tell(users=[member.id])
        log.info("member_changed", member_id=str(member.id), changed=sorted(changes))
        return respond(after)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        async with self._database.tx() as tx:
            await _take_turn(tx, principal)
            member = await _member_in_path(tx, request)
            if member.id == principal.user_id:
                raise Conflict(_ONESELF)
            _require_gives(principal, Role(member.role))
            if not member.joined:
                await team.forget(tx, member.id)
            else:
                await _require_another(tx, principal.tenant_id, member, {"active": False})
                await team.change(tx, member.id, {"active": False})
                await self._end(tx, member)
            await note(tx, request, "member", member.id, before=MemberView.of(member))
        await self._revocations.tell(users=[member.id])
        log.info("member_removed", member_id=str(member.id))
        return respond(Deleted(id=member.id))

    async def reset_password(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]

        async def work(tx: AsyncConnection) -> InvitationView:
            await _take_turn(tx, principal)
            member = await _member_in_path(tx, request)
            if member.id == principal.user_id:
                raise Conflict("This is yourself; use POST /api/auth/change-password.")
            if not member.active:
                raise Conflict("They are deactivated; activate them first: PUT with active: true.")
            await team.end_logins(tx, member.id, now=self._clock.now())
            await team.forget_password(tx, member.id)
            await note(tx, request, "member", member.id)
            return await self._invitation(tx, member.id)

        answer = await self._once.run(request, Nothing(), work, principal=principal, status=200)
        await self._revocations.tell(users=[id_in_path(request, "userId")])
        log.info("member_password_reset", member_id=request.match_info["userId"])
        return answer

    async def assign(self, request: web.Request) -> web.StreamResponse:
        return await self._assign(request, assigned=True)

    async def unassign(self, request: web.Request) -> web.StreamResponse:
        return await self._assign(request, assigned=False)

    async def _assign(self, request: web.Request, *, assigned: bool) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        instance_id = id_in_path(request, "instanceId")
        async with self._database.tx() as tx:
            member = await _member_in_path(tx, request)
            if await instances.find(tx, scope_of(principal), instance_id) is None:
                raise NotFound("There is no such instance; GET /api/instances lists yours.")
            if not assigned:
                await team.unassign(tx, member.id, instance_id)
            else:
                await team.assign(
                    tx, member.id, instance_id, by=principal.user_id, now=self._clock.now()
                )
            await note(tx, request, "member", member.id, after={"instanceId": str(instance_id)})
        await self._revocations.tell(users=[member.id])
        log.info(
            "instance_assigned" if assigned else "instance_unassigned",
            member_id=str(member.id),
            instance_id=str(instance_id),
        )
        return respond(
            AssignmentView(user_id=member.id, instance_id=instance_id, assigned=assigned)
        )

    async def _invitation(self, tx: AsyncConnection, user_id: UUID) -> InvitationView:
        now = self._clock.now()
        issued = issue_key(KeyKind.INVITATION)
        expires_at = now + self._lifetime
        await team.invite(tx, user_id, digest=issued.digest, now=now, expires_at=expires_at)
        return InvitationView(token=issued.text, expires_at=expires_at)

    async def _end(self, tx: AsyncConnection, member: Member) -> None:
        """End everything that somebody gets in by."""
        now = self._clock.now()
        await team.end_logins(tx, member.id, now=now)
        await team.end_keys(tx, member.id, now=now)


async def _take_turn(tx: AsyncConnection, principal: Principal) -> None:
    """Have one change after another be made to a team, each by somebody who still may.

    Two administrators who take each other's role away at once would leave nobody.
    """
    await accounts.organization(tx, principal.tenant_id, lock=True)
    assert principal.user_id is not None  # noqa: S101 - only people get here
    actor = await accounts.user(tx, principal.user_id)
    if actor is None or not actor.active or actor.role != principal.role:
        raise Forbidden("Your own role has just been changed; look again at what you may do.")


async def _member_in_path(tx: AsyncConnection, request: web.Request) -> Member:
    return await _found(tx, request[PRINCIPAL], id_in_path(request, "userId"))


async def _found(tx: AsyncConnection, principal: Principal, user_id: UUID) -> Member:
    manager = manager_seen_by(principal)
    found = await team.find(tx, principal.tenant_id, user_id, manager=manager)
    if found is None:
        raise NotFound("There is no such member; GET /api/team/members lists yours.")
    return found


def _require_gives(principal: Principal, role: Role) -> None:
    given = gives(principal.role)
    if role not in given:
        names = ", ".join(sorted(given))
        raise Forbidden(f"With your role you manage: {names}; ask an administrator.")


async def _manager(
    tx: AsyncConnection, principal: Principal, manager_id: UUID | None
) -> UUID | None:
    """By whom somebody is to be managed: managers manage their people themselves."""
    if principal.role is Role.MANAGER:
        if manager_id not in {None, principal.user_id}:
            raise Forbidden("Only administrators name another manager.")
        return principal.user_id
    if manager_id is None:
        return None
    found = await team.find(tx, principal.tenant_id, manager_id)
    if found is None or not found.active or found.role not in MANAGERS:
        raise invalid({"managerId": "is not a manager or administrator of your organization"})
    return manager_id


async def _changes(
    tx: AsyncConnection, principal: Principal, member: Member, body: MemberChange
) -> dict[str, object]:
    """What becomes another than it was; raises what the principal may not change."""
    oneself = member.id == principal.user_id
    if not oneself:
        _require_gives(principal, Role(member.role))
    changes: dict[str, object] = {}
    if body.name is not None and body.name != member.name:
        changes["name"] = body.name
    if body.role is not None and body.role != member.role:
        if oneself:
            raise Conflict("Nobody changes their own role; ask another administrator.")
        _require_gives(principal, body.role)
        changes["role"] = body.role
    if "manager_id" in body.model_fields_set and body.manager_id != member.manager_id:
        if oneself or body.manager_id == member.id:
            raise _own_manager()
        changes["manager_id"] = await _manager(tx, principal, body.manager_id)
    if body.active is not None and body.active != member.active:
        if oneself:
            raise Conflict(_ONESELF)
        changes["active"] = body.active
    return changes


def _own_manager() -> Rejected:
    return invalid({"managerId": "is their own, or would be: ask another administrator"})


async def _require_another(
    tx: AsyncConnection, tenant_id: UUID, member: Member, changes: dict[str, object]
) -> None:
    """Raise ``Conflict`` if the organization would be left without an administrator."""
    last = last_of(tenant_id)
    if member.role != last or not member.active:
        return
    stays = changes.get("role", last) == last and changes.get("active", True) is True
    if not stays and not await team.others(tx, tenant_id, last, than=member.id):
        raise Conflict(f"This is the last {last}; make somebody else {last} first.")
