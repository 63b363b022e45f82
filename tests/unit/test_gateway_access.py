"""Who may do what."""

from dataclasses import replace

import pytest

from services.gateway.domain.access import ACCESS, Access, Needs, require
from services.gateway.domain.permissions import (
    ROLES,
    KeyPermission,
    KeyPermissions,
    Permission,
    Role,
    granted,
)
from services.gateway.domain.principal import Principal, PrincipalKind, Scope, scope_of
from services.gateway.domain.team import gives
from shared.errors import Forbidden
from shared.ids import new_id


def a_user(role: Role = Role.ADMIN) -> Principal:
    return Principal(
        kind=PrincipalKind.USER,
        tenant_id=new_id(),
        permissions=ROLES[role],
        limit_key="user:1",
        user_id=new_id(),
        role=role,
        session_id=new_id(),
    )


def a_key(*permissions: KeyPermission) -> Principal:
    return Principal(
        kind=PrincipalKind.INSTANCE_KEY,
        tenant_id=new_id(),
        permissions=frozenset(permissions),
        limit_key="key:1",
        instance_id=new_id(),
        key_id=new_id(),
        rate_limit=1000,
    )


def test_everything_that_a_route_can_need_is_defined() -> None:
    assert set(ACCESS) == set(Needs)


def test_an_admin_may_do_everything_that_is_for_users() -> None:
    for access in ACCESS.values():
        if access.users and not access.operator:
            require(a_user(), access)


def test_only_operators_operate_whatever_else_somebody_may_do() -> None:
    require(a_user(Role.OPERATOR), ACCESS[Needs.OPERATE])
    for role in set(Role) - {Role.OPERATOR}:
        with pytest.raises(Forbidden, match="operators"):
            require(a_user(role), ACCESS[Needs.OPERATE])


def test_a_user_key_makes_nothing_that_outlives_it() -> None:
    key = replace(a_user(), kind=PrincipalKind.USER_KEY, session_id=None, key_id=new_id())
    for needs in (Needs.BEING_LOGGED_IN, Needs.MANAGE_TEAM, Needs.RESET_PASSWORDS):
        require(a_user(), ACCESS[needs])
        with pytest.raises(Forbidden, match="user key"):
            require(key, ACCESS[needs])
    require(key, ACCESS[Needs.MANAGE_CLIENTS])


def test_a_manager_gives_no_role_that_manages() -> None:
    assert gives(Role.MANAGER) == {Role.AGENT, Role.VIEWER}
    assert gives(Role.OPERATOR) == {Role.OPERATOR}
    assert gives(Role.ADMIN) == set(Role) - {Role.OPERATOR}
    assert not gives(Role.AGENT) | gives(Role.VIEWER) | gives(None)


@pytest.mark.parametrize("needs", [Needs.SEND, Needs.MANAGE_CLIENTS, Needs.WEBHOOKS])
def test_a_viewer_neither_sends_nor_manages(needs: Needs) -> None:
    with pytest.raises(Forbidden, match="can_"):
        require(a_user(Role.VIEWER), ACCESS[needs])


def test_an_agent_sends_and_manages_nothing() -> None:
    require(a_user(Role.AGENT), ACCESS[Needs.SEND])
    for needs in (Needs.MANAGE_CLIENTS, Needs.ORGANIZATION, Needs.STATISTICS, Needs.WEBHOOKS):
        with pytest.raises(Forbidden):
            require(a_user(Role.AGENT), ACCESS[needs])


def test_a_manager_does_not_change_the_organization() -> None:
    require(a_user(Role.MANAGER), ACCESS[Needs.MANAGE_CLIENTS])
    with pytest.raises(Forbidden):
        require(a_user(Role.MANAGER), ACCESS[Needs.ORGANIZATION])


def test_a_key_does_what_its_map_grants_and_nothing_else() -> None:
    for needs, access in ACCESS.items():
        if access.key is None:
            with pytest.raises(Forbidden, match="access token"):
                require(a_key(*KeyPermission), access)
            continue
        require(a_key(access.key), access)
        with pytest.raises(Forbidden, match=access.key):
            require(a_key(*(set(KeyPermission) - {access.key})), access)
        assert needs


def test_what_is_for_keys_alone_is_closed_to_users() -> None:
    with pytest.raises(Forbidden, match="instance keys"):
        require(a_user(), Access(key=KeyPermission.INSTANCE_INFO, users=False))


def test_a_key_may_send_read_and_look_by_default_but_not_touch_the_webhook() -> None:
    assert granted(KeyPermissions()) == set(KeyPermission) - {
        KeyPermission.WEBHOOK_CONFIGURE,
        KeyPermission.WEBHOOK_TEST,
    }


def test_a_key_without_any_permission_is_possible() -> None:
    off = {
        group: dict.fromkeys(members, False)
        for group, members in KeyPermissions().model_dump().items()
    }
    assert granted(KeyPermissions.model_validate(off)) == frozenset()


def test_admins_and_managers_see_all_instances_and_others_what_is_assigned_to_them() -> None:
    instance = new_id()
    for role in (Role.AGENT, Role.VIEWER):
        assigned = scope_of(replace(a_user(role), assigned=frozenset({instance})))
        assert assigned.sees(instance)
        assert not assigned.sees(new_id())
    assert scope_of(a_user()).sees(instance)
    assert scope_of(a_user(Role.MANAGER)).sees(instance)
    assert not scope_of(a_user(Role.AGENT)).sees(instance)
    assert not scope_of(a_user(Role.VIEWER)).sees(instance)


def test_a_key_sees_its_own_instance_alone() -> None:
    key = a_key()
    assert key.instance_id is not None
    scope = scope_of(key)
    assert scope.sees(key.instance_id)
    assert not scope.sees(new_id())
    assert scope.only(new_id()).instances == frozenset()
    assert scope.only(None) is scope


def test_narrowing_a_scope_never_widens_it() -> None:
    one, other = new_id(), new_id()
    scope = Scope(new_id(), frozenset({one}))
    assert scope.only(one).instances == frozenset({one})
    assert scope.only(other).instances == frozenset()
    assert Scope(scope.tenant_id).only(other).instances == frozenset({other})


def test_user_permissions_have_the_names_of_the_contract() -> None:
    assert set(Permission) == {
        "can_manage_team",
        "can_view_audit_logs",
        "can_manage_organization",
        "can_manage_webhooks",
        "can_view_analytics",
        "can_send_messages",
        "can_manage_clients",
        "can_view_assigned_clients",
        "can_view_assigned_data",
    }
