"""The statistics service's tables: counters, and the inbox that makes each event count once."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import DateTime, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import Base, Big, Id, Moment, WorkerColumns

SCHEMA = {"schema": "stats"}


class DailyCounterRow(Base):
    """How often something happened on one day of the tenant's time zone."""

    __tablename__ = "daily_counters"
    __table_args__ = (SCHEMA,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    instance_id: Mapped[UUID] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[Big]


class HourlyCounterRow(Base):
    """The same by the hour, and durations: ``metric`` may be ``…_ms``, their sum, and ``…_timed``,
    of how many. ``hour`` is when it began, by the tenant's clocks.
    """

    __tablename__ = "hourly_counters"
    __table_args__ = (Index(None, "hour"), SCHEMA)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    instance_id: Mapped[UUID] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[Big]


class UnansweredRow(Base):
    """A chat whose contact has written and got no answer yet; ``id`` is made of the chat."""

    __tablename__ = "unanswered"
    __table_args__ = (Index(None, "since"), SCHEMA)

    id: Mapped[Id]
    since: Mapped[Moment]


class StatsInboxRow(Base):
    """An event that has been counted; kept longer than any event can still be repeated."""

    __tablename__ = "inbox"
    __table_args__ = (Index(None, "seen_at"), SCHEMA)

    event_id: Mapped[Id]
    seen_at: Mapped[Moment]


class StatsWorkerRow(WorkerColumns, Base):
    """A process of this service."""

    __tablename__ = "workers"
    __table_args__ = (SCHEMA,)
