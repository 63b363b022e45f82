"""Rooms: where events are told, and who stands where."""

from uuid import UUID

from services.gateway.domain.principal import Scope

# A tenant's own room, where all of it is told, or that of one of its instances.
Room = tuple[UUID, UUID | None]


def rooms_of(scope: Scope) -> frozenset[Room]:
    """Where whoever has this scope stands: so that nothing else is ever told to them."""
    if scope.instances is None:
        return frozenset({(scope.tenant_id, None)})
    return frozenset((scope.tenant_id, instance) for instance in scope.instances)


def rooms_of_event(tenant_id: UUID, instance_id: UUID | None) -> tuple[Room, ...]:
    """Where an event is told; nobody stands in two of these."""
    if instance_id is None:
        return ((tenant_id, None),)
    return ((tenant_id, None), (tenant_id, instance_id))
