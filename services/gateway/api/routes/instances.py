"""Instances, their connections, limits and keys."""

from collections.abc import Sequence
from dataclasses import replace

from services.gateway.api.connections import PNG, SVG, Connections
from services.gateway.api.guard import Guards
from services.gateway.api.instances import Instances
from services.gateway.api.keys import Keys
from services.gateway.api.pairing import Pairing
from services.gateway.api.routes.groups import ASKED
from services.gateway.api.schemas.asked import PairingCodeView, ProfileView, WantedCode
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.instances import (
    Asked,
    CreatedKey,
    GuardChange,
    GuardDetails,
    GuardView,
    InstanceChange,
    InstanceView,
    KeyChange,
    KeyUsage,
    KeyView,
    NewInstance,
    NewKey,
    Qr,
    StatusView,
)
from services.gateway.domain.access import Needs
from shared.web.pagination import PageQuery
from shared.web.routes import Route

_TAG = "Instances"
_KEYS = "Instance keys"
_ALL = "/api/instances"
_ONE = "/api/instances/{id}"


def routes(
    instances: Instances, connections: Connections, pairing: Pairing, guards: Guards, keys: Keys
) -> Sequence[Route]:
    """What there is under ``/api/instances``, and the same under ``/api/clients``."""
    named = (
        *_instances(instances),
        *_connections(connections),
        *_pairing(pairing),
        *_guards(guards),
        *_keys(keys),
    )
    return (*(also_as_client(route) for route in named), _info(instances))


def also_as_client(route: Route) -> Route:
    """The same under ``/api/clients``."""
    paths = tuple(path.replace("/api/instances", "/api/clients", 1) for path in route.paths())
    return replace(route, aliases=(*route.aliases, *paths))


def _instances(instances: Instances) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=_ALL,
            handler=instances.create,
            audited="instance.created",
            summary="Make an instance",
            description="It is not connected yet. The plan says how many there may be.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            request=NewInstance,
            response=InstanceView,
            status=201,
            idempotent=True,
            limited=True,
            errors=("QUOTA_EXCEEDED",),
        ),
        Route(
            method="GET",
            path=_ALL,
            handler=instances.page,
            summary="List instances, newest first",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            query=PageQuery,
            response=InstanceView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path=_ONE,
            handler=instances.get,
            summary="One instance",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            response=InstanceView,
            limited=True,
        ),
        Route(
            method="PUT",
            path=_ONE,
            handler=instances.change,
            audited="instance.changed",
            summary="Change an instance",
            description="Settings and number count from the next connect or restart on.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            request=InstanceChange,
            response=InstanceView,
            limited=True,
        ),
        Route(
            method="DELETE",
            path=_ONE,
            handler=instances.delete,
            audited="instance.deleted",
            summary="Delete an instance",
            description="It is disconnected, and its keys stop working. Its messages stay.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            response=Deleted,
            limited=True,
        ),
    )


def _info(instances: Instances) -> Route:
    return Route(
        method="GET",
        path="/api/instance/info",
        handler=instances.get,
        summary="The instance of the calling instance key",
        tag=_TAG,
        permission=Needs.OWN_INFO,
        response=InstanceView,
        limited=True,
    )


def _connections(connections: Connections) -> Sequence[Route]:
    asked = Route(
        method="POST",
        path=f"{_ONE}/connect",
        handler=connections.connect,
        audited="instance.connect_requested",
        summary="Connect an instance",
        description="Answers at once; the session service does it. Follow `status`, or the event "
        "`instance.status`. Connecting one that is ready changes nothing, and is answered alike.",
        tag=_TAG,
        permission=Needs.MANAGE_CLIENTS,
        response=Asked,
        status=202,
        limited=True,
        aliases=(f"{_ONE}/init",),
    )
    return (
        asked,
        replace(
            asked,
            path=f"{_ONE}/disconnect",
            handler=connections.disconnect,
            audited="instance.disconnect_requested",
            summary="Disconnect an instance",
            description="It stays paired. Messages for it are refused until it is connected again.",
            aliases=(),
        ),
        replace(
            asked,
            path=f"{_ONE}/restart",
            handler=connections.restart,
            audited="instance.restart_requested",
            summary="Connect an instance anew",
            description="Drops the connection if there is one. It stays paired.",
            aliases=(),
        ),
        replace(
            asked,
            path=f"{_ONE}/logout",
            handler=connections.logout,
            audited="instance.logout_requested",
            summary="Unlink an instance from its phone",
            description="It must be paired again to be used.",
            aliases=(),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/status",
            handler=connections.status,
            summary="What is so with an instance's connection",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            response=StatusView,
            limited=True,
        ),
        Route(
            method="GET",
            path=f"{_ONE}/qr",
            handler=connections.qr,
            summary="The QR code that waits to be scanned",
            description="As JSON, or as a picture if `Accept` asks for one.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            response=Qr,
            limited=True,
            errors=("CONFLICT", "VALIDATION_FAILED"),
            raw={PNG: "The code as a picture.", SVG: "The code as a drawing."},
        ),
    )


def _pairing(pairing: Pairing) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=f"{_ONE}/pairing-code",
            handler=pairing.code,
            audited="instance.pairing_code_made",
            summary="A code to type into a phone, instead of scanning the QR code",
            description="For an instance that is being connected and not paired yet. The code "
            "before is void.",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            request=WantedCode,
            response=PairingCodeView,
            limited=True,
            errors=("CONFLICT", *ASKED),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/profile",
            handler=pairing.profile,
            summary="What others see of the account",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            response=ProfileView,
            limited=True,
            errors=ASKED,
        ),
    )


def _guards(guards: Guards) -> Sequence[Route]:
    return (
        Route(
            method="GET",
            path=f"{_ONE}/guard",
            handler=guards.get,
            summary="An instance's limits, what of them is used, and how it connects",
            tag=_TAG,
            permission=Needs.SEE_CLIENTS,
            response=GuardDetails,
            limited=True,
        ),
        Route(
            method="PUT",
            path=f"{_ONE}/guard",
            handler=guards.change,
            audited="instance.guard_changed",
            summary="Change an instance's limits, its pace, its proxy or its device name",
            tag=_TAG,
            permission=Needs.MANAGE_CLIENTS,
            request=GuardChange,
            response=GuardView,
            limited=True,
        ),
    )


def _keys(keys: Keys) -> Sequence[Route]:
    return (
        Route(
            method="POST",
            path=f"{_ONE}/keys",
            handler=keys.create,
            audited="instance_key.created",
            summary="Make an instance key",
            description="The only time that the key is seen.",
            tag=_KEYS,
            permission=Needs.MAKE_KEYS,
            request=NewKey,
            response=CreatedKey,
            status=201,
            idempotent=True,
            limited=True,
            errors=("QUOTA_EXCEEDED",),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/keys",
            handler=keys.page,
            summary="List an instance's keys, newest first",
            tag=_KEYS,
            permission=Needs.MANAGE_CLIENTS,
            query=PageQuery,
            response=KeyView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path=f"{_ONE}/keys/{{keyId}}",
            handler=keys.get,
            summary="One key, without the key itself",
            tag=_KEYS,
            permission=Needs.MANAGE_CLIENTS,
            response=KeyView,
            limited=True,
        ),
        Route(
            method="PUT",
            path=f"{_ONE}/keys/{{keyId}}",
            handler=keys.change,
            audited="instance_key.changed",
            summary="Change a key's name, permissions, limit or end",
            description="It counts at every gateway within a second.",
            tag=_KEYS,
            permission=Needs.MAKE_KEYS,
            request=KeyChange,
            response=KeyView,
            limited=True,
            errors=("QUOTA_EXCEEDED",),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/keys/{{keyId}}/regenerate",
            handler=keys.regenerate,
            audited="instance_key.regenerated",
            summary="Make a key anew; the old one stops working at once",
            description="The only time that the new key is seen. Id, name, permissions, limit and"
            " usage stay, and so does its end, unless that has passed: then it lives 365 days.",
            tag=_KEYS,
            permission=Needs.MAKE_KEYS,
            response=CreatedKey,
            idempotent=True,
            limited=True,
            errors=("QUOTA_EXCEEDED",),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/keys/{{keyId}}/usage",
            handler=keys.usage,
            summary="How a key was used, and what its limit leaves",
            tag=_KEYS,
            permission=Needs.MANAGE_CLIENTS,
            response=KeyUsage,
            limited=True,
        ),
        Route(
            method="DELETE",
            path=f"{_ONE}/keys/{{keyId}}",
            handler=keys.delete,
            audited="instance_key.revoked",
            summary="Revoke a key",
            description="It stops working within a second.",
            tag=_KEYS,
            permission=Needs.MANAGE_CLIENTS,
            response=Deleted,
            limited=True,
        ),
    )
