"""Instances, their connections, limits and keys."""

from datetime import date
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from services.gateway.api.schemas.fields import Name, PhoneNumber, TimeZone
from services.gateway.domain.engines import shown
from services.gateway.domain.guard import Guard
from services.gateway.domain.permissions import KeyPermissions
from services.gateway.domain.proxies import checked, masked
from services.gateway.store.instances import Instance
from services.gateway.store.keys import InstanceKey
from shared.contracts.events import InstanceStatusName
from shared.contracts.guard import Pauses, QuietHours, WarmUp
from shared.web.schemas import ApiModel, ApiView, Instant

EngineName = Annotated[str, StringConstraints(min_length=1, max_length=40)]

# How long a key lives at most.
KEY_DAYS_AT_MOST: Final = 3650

_LIMITS: Final = {"per_minute", "per_hour", "per_day"}
# What may be taken away by null.
_WISHES: Final = {"quiet_hours", "warm_up", "pauses", "proxy", "device_name"}


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be printable characters")
    return value


def _near(day: date) -> date:
    # At the ends of the calendar no day comes before or after.
    if not 2000 <= day.year < 3000:
        raise ValueError("is in another millennium")
    return day


def _proxy(value: SecretStr) -> SecretStr:
    return SecretStr(checked(value.get_secret_value()))


ProxyUrl = Annotated[
    SecretStr,
    AfterValidator(_proxy),
    WithJsonSchema(
        {
            "type": "string",
            "writeOnly": True,
            "description": "`http://`, `https://` or `socks5://`, with host and port.",
            "examples": ["socks5://user:password@proxy.example.com:1080"],
        }
    ),
]
"""The URL of a proxy, which may hold a password."""


class NewInstance(ApiModel):
    """An instance that is to be made."""

    name: Name = Field(examples=["Support"])
    engine: EngineName = Field(
        description="How it reaches WhatsApp.", examples=["sandbox", "whatsmeow", "cloud_api"]
    )
    phone_number: PhoneNumber | None = Field(default=None, description="Its own number, if known.")
    settings: dict[str, object] | None = Field(
        default=None,
        description="What its engine can be told: `unconfirmedAfter`; the sandbox also"
        " `autoScan`, `receipts`; the Cloud API `phoneNumberId`, `businessAccountId` and, never to"
        " be shown again, `accessToken`, `appSecret`, `verifyToken`.",
        examples=[{"autoScan": True}],
    )


class InstanceChange(ApiModel):
    """What is to change; what is left out stays. Settings are replaced as a whole, but for secrets
    that are left out: those stay too.
    """

    name: Name | None = Field(default=None, examples=["Support"])
    phone_number: PhoneNumber | None = None
    settings: dict[str, object] | None = Field(default=None, examples=[{"autoScan": False}])


class InstanceView(ApiView):
    """An instance. ``connected`` is what its owner wants, ``status`` what is so."""

    id: UUID
    name: str = Field(examples=["Support"])
    engine: str = Field(examples=["sandbox"])
    phone_number: str | None = Field(examples=["+4915112345678"])
    settings: dict[str, object]
    status: str = Field(examples=["ready"])
    connected: bool
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, instance: Instance) -> "InstanceView":
        return cls(
            id=instance.id,
            name=instance.name,
            engine=instance.engine,
            phone_number=instance.number,
            settings=shown(instance.engine, instance.settings),
            status=instance.status,
            connected=instance.connected,
            created_at=instance.created_at,
            updated_at=instance.updated_at,
        )


class StatusView(ApiView):
    """What is so with an instance's connection."""

    id: UUID
    name: str
    status: InstanceStatusName | str = Field(examples=["ready"])
    phone_number: str | None = Field(examples=["+4915112345678"])
    device_info: dict[str, object] | None
    since: Instant
    last_error: str | None

    @classmethod
    def of(cls, instance: Instance) -> "StatusView":
        return cls(
            id=instance.id,
            name=instance.name,
            status=instance.status,
            phone_number=instance.number,
            device_info=instance.device_info,
            since=instance.since or instance.created_at,
            last_error=instance.last_error,
        )


class Asked(ApiView):
    """What was asked of an instance; it is being done. ``status`` is from before."""

    id: UUID
    status: str
    connected: bool


class Qr(ApiView):
    """What the QR code says, until it is void."""

    code: str
    expires_at: Instant


TimeOfDay = Annotated[
    str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"), Field(examples=["22:00"])
]
"""A time of day, to the minute."""


class QuietHoursChange(ApiModel):
    """Between these times of day nothing goes out, whatever its priority; it goes afterwards."""

    from_: TimeOfDay = Field(alias="from", examples=["22:00"])
    to: TimeOfDay = Field(description="The next day's, if earlier.", examples=["07:00"])
    time_zone: TimeZone | None = Field(
        default=None, description="Whose times these are; the organization's unless named."
    )

    @model_validator(mode="after")
    def _some_of_the_day(self) -> Self:
        if self.from_ == self.to:
            raise ValueError("begin when they end; that would be never, or always")
        return self

    def kept(self) -> QuietHours:
        """What a guard keeps of it."""
        return QuietHours(from_=self.from_, to=self.to, time_zone=self.time_zone)


class QuietHoursView(ApiView):
    """Quiet hours. ``time_zone`` is null where it is the organization's."""

    from_: str = Field(alias="from", examples=["22:00"])
    to: str = Field(examples=["07:00"])
    time_zone: str | None = Field(examples=["Europe/Berlin"])

    @classmethod
    def of(cls, hours: QuietHours) -> "QuietHoursView":
        return cls(from_=hours.from_, to=hours.to, time_zone=hours.time_zone)


class WarmUpChange(ApiModel):
    """A new number sends little at first: the limit of a day grows to `perDay` in equal steps."""

    days: int = Field(ge=1, le=60, description="After so many days it is `perDay`.", examples=[14])
    start: Annotated[date, AfterValidator(_near)] | None = Field(
        default=None,
        description="The first day, in the organization's time zone; today unless named.",
    )
    from_: int = Field(
        alias="from",
        ge=1,
        le=1_000_000,
        description="So many on the first day, and before it.",
        examples=[20],
    )

    def kept(self, *, today: date) -> WarmUp:
        """What a guard keeps of it."""
        return WarmUp(days=self.days, start=self.start or today, from_=self.from_)


class WarmUpView(ApiView):
    """A warm-up, with the day on which it began or begins."""

    days: int = Field(examples=[14])
    start: date
    from_: int = Field(alias="from", examples=[20])

    @classmethod
    def of(cls, warm_up: WarmUp) -> "WarmUpView":
        return cls(days=warm_up.days, start=warm_up.start, from_=warm_up.from_)


class PausesChange(ApiModel):
    """After each message the next waits for a while, so that one goes at a time."""

    min: int = Field(ge=0, le=300, description="Seconds at least.", examples=[2])
    max: int = Field(ge=0, le=300, description="Seconds at most.", examples=[8])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError("have a `min` above their `max`")
        return self

    def kept(self) -> Pauses:
        """What a guard keeps of it."""
        return Pauses(min=self.min, max=self.max)


class PausesView(ApiView):
    """Pauses, in seconds."""

    min: int = Field(examples=[2])
    max: int = Field(examples=[8])

    @classmethod
    def of(cls, pauses: Pauses) -> "PausesView":
        return cls(min=pauses.min, max=pauses.max)


class GuardChange(ApiModel):
    """What is to change; what is left out stays. A limit of zero: none. All else is taken away by
    null. A proxy and a device name count from the next connect or restart on.
    """

    per_minute: int | None = Field(default=None, ge=0, le=1_000_000, examples=[20])
    per_hour: int | None = Field(default=None, ge=0, le=1_000_000, examples=[200])
    per_day: int | None = Field(default=None, ge=0, le=1_000_000, examples=[1000])
    quiet_hours: QuietHoursChange | None = None
    warm_up: WarmUpChange | None = None
    pauses: PausesChange | None = None
    typing: bool | None = Field(
        default=None,
        description="Whether a chat is shown for a moment that a text is being typed.",
        examples=[True],
    )
    proxy: ProxyUrl | None = Field(
        default=None, description="By what it connects; credentials are never shown again."
    )
    device_name: (
        Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_printable)] | None
    ) = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="What the phone calls it among its linked devices.",
        examples=["Waypost"],
    )

    def changes(self, *, today: date) -> dict[str, object]:
        """What changes, by the fields of a guard; ``today`` is the organization's."""
        limits = self.model_dump(include=_LIMITS, exclude_none=True)
        wishes = {name: getattr(self, name) for name in _WISHES & self.model_fields_set}
        if self.quiet_hours is not None:
            wishes["quiet_hours"] = self.quiet_hours.kept()
        if self.warm_up is not None:
            wishes["warm_up"] = self.warm_up.kept(today=today)
        if self.pauses is not None:
            wishes["pauses"] = self.pauses.kept()
        if "typing" in self.model_fields_set:
            wishes["typing"] = bool(self.typing)
        return limits | wishes


class WindowView(ApiView):
    """One limit. ``remaining`` is null where there is no limit."""

    used: int
    limit: int
    remaining: int | None


class GuardUsage(ApiView):
    """What of the limits is used, and when the next message may go out. The limit of a day is what
    a warm-up leaves of it today.
    """

    per_minute: WindowView
    per_hour: WindowView
    per_day: WindowView
    next_slot_at: Instant


class GuardView(ApiView):
    """An instance's limits, and how it connects. Of a proxy, the credentials are not shown."""

    per_minute: int
    per_hour: int
    per_day: int
    quiet_hours: QuietHoursView | None
    warm_up: WarmUpView | None
    pauses: PausesView | None
    typing: bool
    proxy: str | None = Field(examples=["socks5://***@proxy.example.com:1080"])
    device_name: str | None = Field(examples=["Waypost"])

    @classmethod
    def of(cls, guard: Guard) -> "GuardView":
        return cls(
            per_minute=guard.per_minute,
            per_hour=guard.per_hour,
            per_day=guard.per_day,
            quiet_hours=QuietHoursView.of(guard.quiet_hours) if guard.quiet_hours else None,
            warm_up=WarmUpView.of(guard.warm_up) if guard.warm_up else None,
            pauses=PausesView.of(guard.pauses) if guard.pauses else None,
            typing=guard.typing,
            # Sealed or not, only what may be seen of it is shown.
            proxy=guard.proxy_shown or (None if guard.proxy is None else masked(guard.proxy)),
            device_name=guard.device_name,
        )


class GuardDetails(GuardView):
    """An instance's limits, and what of them is used."""

    usage: GuardUsage


RateLimit = Annotated[
    int, Field(ge=1, le=10_000_000, description="Requests an hour, in a sliding window.")
]


class NewKey(ApiModel):
    """A key that is to be made."""

    name: Name = Field(examples=["Shop"])
    permissions: KeyPermissions = KeyPermissions()
    rate_limit: RateLimit = 1000
    expires_in_days: int | None = Field(
        default=None, ge=1, le=KEY_DAYS_AT_MOST, description="365 unless `expiresAt` says when."
    )
    expires_at: Instant | None = Field(default=None, description="Instead of `expiresInDays`.")

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_in_days is not None and self.expires_at is not None:
            raise ValueError("has `expiresInDays` and `expiresAt`; send one of them")
        return self


class KeyChange(ApiModel):
    """What is to change; what is left out stays. Permissions are replaced as a whole."""

    name: Name | None = Field(default=None, examples=["Shop"])
    permissions: KeyPermissions | None = None
    rate_limit: RateLimit | None = None
    expires_at: Instant | None = None


class KeyUsage(ApiView):
    """How a key was used since it was made; a few seconds behind.

    Failed are those that were answered with an error, refusals for its limit included.
    `remainingQuota` is what its limit leaves at this moment.
    """

    total_requests: int
    successful_requests: int
    failed_requests: int
    rate_limit: int
    remaining_quota: int
    last_used: Instant | None
    created_at: Instant


class KeyView(ApiView):
    """A key, without the key itself; ``hint`` is how to recognise it."""

    id: UUID
    name: str = Field(examples=["Shop"])
    hint: str = Field(examples=["api_…x7Qa"])
    permissions: KeyPermissions
    rate_limit: int
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None

    @classmethod
    def of(cls, key: InstanceKey) -> "KeyView":
        return cls(
            id=key.id,
            name=key.name,
            hint=key.hint,
            permissions=KeyPermissions.model_validate(key.permissions),
            rate_limit=key.rate_limit,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
        )


class CreatedKey(ApiView):
    """A new key: the only time that ``key`` is seen."""

    id: UUID
    name: str = Field(examples=["Shop"])
    key: str = Field(repr=False, examples=["api_…"])
    permissions: KeyPermissions
    rate_limit: int
    expires_at: Instant | None
