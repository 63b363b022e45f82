"""Events of an instance, or of none, as an outbox tells them."""

from uuid import UUID

from shared.broker.port import Broker
from shared.contracts.envelope import Emitted
from shared.contracts.events import InstanceConnected
from shared.ids import new_id
from shared.messaging.outbox import event, outgoing
from tests.support.builders import NOON


def an_event(tenant: UUID, instance: UUID | None) -> Emitted:
    """Something that happened."""
    return Emitted(
        id=new_id(),
        event=InstanceConnected(),
        tenant_id=tenant,
        instance_id=instance,
        time=NOON,
        subject="x",
        partition_key="x",
    )


async def publish(broker: Broker, *emitted: Emitted) -> None:
    """Tell of events; the broker in memory returns once the log has them."""
    await broker.publish(outgoing([event(one) for one in emitted]))
