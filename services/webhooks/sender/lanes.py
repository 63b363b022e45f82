"""Lanes: one for each endpoint that we have something for, so that none waits for another."""

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.webhooks.domain.delivery import Answer, Delivery
from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.domain.health import Health
from services.webhooks.domain.pacing import FIRST_LIMIT, limit_after, room
from shared.clock import Clock
from shared.pause import Pause

# Deliveries that one worker may hold, over all lanes: their bodies are in memory.
MOST_HELD: Final = 4000
FORGOTTEN_AFTER: Final = timedelta(minutes=10)
# How much one more answer counts against all those before it.
_WEIGHT: Final = 0.1


class Lane:
    """What this worker has for one endpoint, and how much it may post there at once.

    ``open`` mirrors the endpoint's breaker. ``backlog`` says that more may wait in the table, so
    nothing new is taken past it.
    """

    def __init__(self, endpoint: Endpoint, *, most: int) -> None:
        self.endpoint = endpoint
        self.waiting: deque[Delivery] = deque()
        self.active = 0
        self.reserved = 0
        self.limit = min(FIRST_LIMIT, most)
        self.open = False
        self.backlog = False
        self.touched = 0.0
        self._most = most
        self._latency = 0.1

    @property
    def held(self) -> int:
        """How many deliveries this worker has for the endpoint, or has reserved room for."""
        return len(self.waiting) + self.active + self.reserved

    def room(self) -> int:
        """How many more it may take."""
        return room(limit=self.limit, held=self.held, latency=self._latency)

    def learn(self, answer: Answer) -> None:
        """Let an answer decide how much is posted from now on."""
        self.limit = limit_after(answer.verdict, self.limit, most=self._most)
        self._latency += _WEIGHT * (answer.duration.total_seconds() - self._latency)


class Lanes:
    """All lanes of a worker. Room is reserved before a claim is written, never after."""

    def __init__(self, *, clock: Clock, most: int, pause: Pause) -> None:
        self._clock = clock
        self._most = most
        self._pause = pause
        self._lanes: dict[UUID, Lane] = {}
        self._returned: list[UUID] = []
        self._held = 0

    def of(self, endpoint: Endpoint) -> Lane:
        """The endpoint's lane, knowing the endpoint as it is now."""
        lane = self._lanes.get(endpoint.id)
        if lane is None:
            lane = self._lanes[endpoint.id] = Lane(endpoint, most=self._most)
        lane.endpoint = endpoint
        lane.touched = self._clock.monotonic()
        return lane

    def reserve(self, endpoint: Endpoint) -> bool:
        """Take room for a delivery about to be made; without room, it waits in the table."""
        lane = self.of(endpoint)
        fits = lane.room() > 0 and self._held < MOST_HELD
        if endpoint.open or lane.open or lane.backlog or self._pause.on or not fits:
            lane.backlog = True
            return False
        lane.reserved += 1
        self._held += 1
        return True

    def cancel(self, endpoint: Endpoint) -> None:
        """Give reserved room back: there was nothing to take after all."""
        self.of(endpoint).reserved -= 1
        self._held -= 1

    def start(self, endpoint: Endpoint, delivery: Delivery) -> Lane:
        """Put a delivery into the room that was reserved for it."""
        lane = self.of(endpoint)
        lane.reserved -= 1
        lane.waiting.append(delivery)
        return lane

    def rooms(self, endpoints: Sequence[Endpoint], *, limit: int) -> list[tuple[UUID, int]]:
        """How much to claim for each, together at most about ``limit``: everyone gets a part."""
        left = min(limit, MOST_HELD - self._held)
        each = max(1, left // max(1, len(endpoints)))
        asked = [(endpoint.id, min(each, self.of(endpoint).room())) for endpoint in endpoints]
        return [(id_, number) for id_, number in asked if number > 0][: max(0, left)]

    def take(self, endpoint: Endpoint, deliveries: Sequence[Delivery], *, asked: int) -> Lane:
        """Put claimed deliveries into their lane; as many as were asked for mean that more wait."""
        lane = self.of(endpoint)
        lane.open = endpoint.open
        lane.backlog = len(deliveries) >= asked
        lane.waiting.extend(deliveries)
        self._held += len(deliveries)
        return lane

    def next(self, lane: Lane) -> Delivery | None:
        """The next delivery to post; one whose claim has become too old is given back."""
        now = self._clock.monotonic()
        while lane.waiting:
            delivery = lane.waiting.popleft()
            if delivery.good_until > now:
                return delivery
            self._give_back(delivery)
        return None

    def finished(self) -> None:
        """One delivery less: it was posted."""
        self._held -= 1

    def heard(self, endpoint_id: UUID, health: Health) -> None:
        """An endpoint's health was written. If its breaker is open, what waits is given back."""
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            return
        lane.open = health.opened > 0
        if lane.open or health.disabled_at is not None:
            while lane.waiting:
                self._give_back(lane.waiting.popleft())

    def returned(self) -> list[UUID]:
        """The deliveries given back since this was last asked: their claims are to be released."""
        returned, self._returned = self._returned, []
        return returned

    def forget_idle(self) -> None:
        """Drop lanes that nobody has used for a while."""
        before = self._clock.monotonic() - FORGOTTEN_AFTER.total_seconds()
        for id_, lane in list(self._lanes.items()):
            if lane.held == 0 and lane.touched < before:
                del self._lanes[id_]

    def _give_back(self, delivery: Delivery) -> None:
        self._returned.append(delivery.id)
        self._held -= 1
