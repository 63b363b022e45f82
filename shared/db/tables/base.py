"""What all tables share: column types by meaning, and constraint names that migrations find."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Id = Annotated[UUID, mapped_column(Uuid, primary_key=True)]
Ref = Annotated[UUID, mapped_column(Uuid)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Word = Annotated[str, mapped_column(Text)]
Small = Annotated[int, mapped_column(SmallInteger)]
Big = Annotated[int, mapped_column(BigInteger)]
Sequence = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
Json = Annotated[dict[str, object], mapped_column(JSONB)]


class Base(DeclarativeBase):
    """All tables. Never used for an ORM session: statements run on connections."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class WorkerColumns:
    """A process that lives, or did a while ago: its heartbeat, and what it has done.

    ``throughput`` is what it has completed a minute, lately; ``memory`` is in bytes. Times are the
    database's.
    """

    id: Mapped[Id]
    name: Mapped[Word]
    state: Mapped[Word]
    processing: Mapped[int]
    completed: Mapped[Big]
    failed: Mapped[Big]
    throughput: Mapped[float]
    memory: Mapped[Big]
    pausable: Mapped[bool]
    restartable: Mapped[bool]
    started_at: Mapped[Moment]
    beat_at: Mapped[Moment]


class OutboxColumns:
    """A message that is committed with its cause and leaves once the broker has confirmed it.

    ``kind`` is ``event``, ``command``, or ``batch`` for events that go to one queue alone;
    ``name`` is the event's name or the command's type; ``routing_key`` is where a command goes, or
    the key that subscribers bind to.
    """

    seq: Mapped[Sequence]
    id: Mapped[Ref]
    kind: Mapped[Word]
    name: Mapped[Word]
    routing_key: Mapped[Word]
    body: Mapped[bytes]
    created_at: Mapped[Moment]
