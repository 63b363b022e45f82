"""Leases on shards: what one is, and how many a replica should have."""

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True, order=True)
class Lease:
    """The right to own a shard's connections.

    ``epoch`` grows with every owner, so whatever is written or sent under an older one can be told
    from what the present owner does, and refused.
    """

    shard: int
    epoch: int
    owner: str


def fair_share(shards: int, replicas: int) -> int:
    """How many shards one of ``replicas`` may have; together they always have room for all."""
    return ceil(shards / max(replicas, 1))


def to_claim(*, shards: int, replicas: int, held: int) -> int:
    """How many more shards a replica may claim."""
    return max(0, fair_share(shards, replicas) - held)


def surplus(*, shards: int, replicas: int, held: int) -> int:
    """How many shards a replica should give up, so that others get their share."""
    return max(0, held - fair_share(shards, replicas))
