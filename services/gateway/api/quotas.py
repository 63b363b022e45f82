"""The messages that a plan allows in a month: counted with their acceptance, refused beyond it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from services.gateway.domain.plans import FREE, PLANS, Month, month_at, no_more_messages, warn_from
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import usage
from services.gateway.store.acceptance import NewMessage
from services.gateway.store.instances import Sender
from shared.clock import Clock
from shared.db.database import Database

# For how many seconds the last count is taken for the current one. Every commit brings the next,
# with what other replicas have accepted; so this is for tenants who send little.
_CURRENT: Final = 5.0

_CAPACITY: Final = 50_000


@dataclass(slots=True)
class _Usage:
    """What a tenant has used, as of ``read_at``; and the messages that are on their way here."""

    month: Month
    warn_at: int
    accepted: int
    read_at: float
    warned: bool = False
    under_way: set[str] = field(default_factory=set)


class Quotas:
    """Knows what each tenant has used of this month, without a query for each message.

    Never more than the plan allows is accepted by one replica. Several may together exceed it by
    what they commit at the same moment. ``near`` is called when a tenant should be warned.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        metrics: GatewayMetrics,
        near: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._near = near
        self._usages: dict[UUID, _Usage] = {}

    async def month(self, sender: Sender, kind: str) -> date | None:
        """The month that one more message counts against; none if it is free.

        Raises ``QuotaExceeded`` if there is no room for it. Whoever got the month awaits nothing
        before ``Acceptance.accept``: until then the message takes up no room.
        """
        if kind in FREE or not sender.metered:
            return None
        known = self._current(sender) or await self._read(sender)
        used = known.accepted + len(known.under_way)
        plan = PLANS[sender.plan]
        if used >= plan.messages:
            self._metrics.quota_refused.inc()
            raise no_more_messages(plan, used=known.accepted, resets_at=known.month.ends)
        return known.month.first

    def month_at_once(self, sender: Sender) -> date | None:
        """The same for who cannot wait; none also if it is not known, or if there is no room."""
        known = self._current(sender)
        if known is None:
            return None
        room = known.accepted + len(known.under_way) < PLANS[sender.plan].messages
        return known.month.first if room else None

    def begin(self, message: NewMessage) -> Callable[[object], None]:
        """A message is on its way; what is returned is to be called once that has ended."""
        known = self._usages.get(message.tenant_id)
        under_way = set[str]() if known is None else known.under_way
        under_way.add(message.id)
        return lambda _: under_way.discard(message.id)

    def committed(
        self, messages: Sequence[NewMessage], used: Mapping[tuple[UUID, date], int]
    ) -> None:
        """A commit has ended, after which tenants have used so much of a month."""
        for message in messages:
            known = self._usages.get(message.tenant_id)
            if known is not None:
                known.under_way.discard(message.id)
        for (tenant_id, month), accepted in used.items():
            known = self._usages.get(tenant_id)
            if known is None or known.month.first != month:
                continue
            known.accepted, known.read_at = accepted, self._clock.monotonic()
            if accepted >= known.warn_at and not known.warned:
                known.warned = True
                self._near()

    def _current(self, sender: Sender) -> _Usage | None:
        known = self._usages.get(sender.tenant_id)
        if known is None or self._clock.monotonic() - known.read_at > _CURRENT:
            return None
        return known if self._clock.now() < known.month.ends else None

    async def _read(self, sender: Sender) -> _Usage:
        month = month_at(self._clock.now(), ZoneInfo(sender.timezone))
        read_at = self._clock.monotonic()
        async with self._database.hot() as connection:
            accepted = await usage.accepted(connection, sender.tenant_id, month.first)
        known = self._usages.pop(sender.tenant_id, None)
        if known is None or known.month.first != month.first:
            while len(self._usages) >= _CAPACITY:
                del self._usages[next(iter(self._usages))]
            known = _Usage(month, warn_from(PLANS[sender.plan]), accepted, read_at)
        elif known.read_at <= read_at:
            known.accepted, known.read_at = accepted, read_at
        self._usages[sender.tenant_id] = known
        return known
