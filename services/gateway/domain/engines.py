"""The engines that an instance may have, and what can be set for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from services.gateway.domain.guard import Guard
from shared.contracts.capabilities import CLOUD_API, SANDBOX, WHATSMEOW, Capability


class EngineSettings(BaseModel):
    """What can be set for an instance. A field of type ``SecretStr`` is never shown again."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    unconfirmed_after: float | None = Field(
        default=None,
        ge=0.05,
        le=86_400,
        description="Seconds until a message that was never acknowledged fails; 600 if left out.",
    )


class SandboxSettings(EngineSettings):
    """A WhatsApp without phones."""

    auto_scan: bool = Field(
        default=True,
        description="Whether the QR code is scanned by itself, a second after it is shown.",
    )
    receipts: bool = Field(
        default=True,
        description="Whether ordinary contacts say that they got and read a message.",
    )
    auto_read: bool = Field(
        default=True,
        description="Whether the instance reads at once what another sandbox instance writes to"
        " it; without, it is read when it is marked as read.",
    )


class LinkedDeviceSettings(EngineSettings):
    """A device linked to a phone. How it connects, and what the phone calls it, is its guard's."""


def _digits(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be the id's digits alone, as Meta shows it")
    return text


MetaId = Annotated[str, AfterValidator(_digits)]


class CloudApiSettings(EngineSettings):
    """A number at Meta, spoken for by a token. What is left out of the secrets stays as it is."""

    phone_number_id: MetaId = Field(
        min_length=5, max_length=20, description="Meta's id of the number; not the number itself."
    )
    business_account_id: MetaId = Field(
        min_length=5, max_length=20, description="Meta's id of the WhatsApp Business Account."
    )
    access_token: SecretStr = Field(
        min_length=1, max_length=4096, description="Of a system user; write-only."
    )
    app_secret: SecretStr = Field(
        min_length=1, max_length=256, description="Signs what Meta POSTs; write-only."
    )
    verify_token: SecretStr | None = Field(
        default=None,
        min_length=8,
        max_length=256,
        description="What Meta shows when the URL is entered there; write-only.",
    )


# Under this a setting is stored by which an instance is found that has this verify token: nobody
# can read the token out of it.
VERIFY_DIGEST: Final = "verifyTokenDigest"
VERIFY_TOKEN: Final = "verifyToken"  # noqa: S105 - a name, no secret

# Stands where a secret is set.
MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to reach WhatsApp: what can be set, the limits that a new instance starts with, what it
    can do, and whether its messages count against the plan.
    """

    name: str
    settings: type[EngineSettings]
    guard: Guard
    capabilities: frozenset[Capability]
    metered: bool = True


ENGINES: Final[Mapping[str, Engine]] = {
    engine.name: engine
    for engine in (
        # Nobody's number is at risk in the sandbox, so nothing is limited there; and whoever tries
        # things out with it must not use up their month.
        Engine(
            "sandbox",
            SandboxSettings,
            Guard(per_minute=0, per_hour=0, per_day=0),
            SANDBOX,
            metered=False,
        ),
        Engine("whatsmeow", LinkedDeviceSettings, Guard(), WHATSMEOW),
        # Meta holds back by itself what would be too much.
        Engine(
            "cloud_api",
            CloudApiSettings,
            Guard(per_minute=0, per_hour=0, per_day=0),
            CLOUD_API,
        ),
    )
}


def capabilities(engine: str) -> frozenset[Capability]:
    """What the engine can do; nothing if nobody knows it."""
    known = ENGINES.get(engine)
    return frozenset() if known is None else known.capabilities


def metered(engine: str) -> bool:
    """Whether what this engine sends counts against the plan."""
    known = ENGINES.get(engine)
    return known is None or known.metered


def stored(settings: EngineSettings) -> dict[str, object]:
    """The settings as they are kept, secrets included."""
    return {
        field.alias or name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, field in type(settings).model_fields.items()
        if (value := getattr(settings, name)) is not None
    }


def shown(engine: str, settings: Mapping[str, object]) -> dict[str, object]:
    """The settings as they may be shown: without secrets."""
    known = ENGINES.get(engine)
    if known is None:
        return {}
    seen = names(known.settings) - secret_names(known.settings)
    return {name: value for name, value in settings.items() if name in seen}


def masked(engine: str, settings: Mapping[str, object]) -> dict[str, object]:
    """The settings with a mask for each secret that is set."""
    known = ENGINES.get(engine)
    if known is None:
        return {}
    seen, hidden = names(known.settings), secret_names(known.settings)
    return {
        name: MASK if name in hidden else value for name, value in settings.items() if name in seen
    }


def secrets_changed(
    engine: str, before: Mapping[str, object], after: Mapping[str, object]
) -> list[str]:
    """The names of secrets that are not what they were, where ``masked`` shows no difference."""
    known = ENGINES.get(engine)
    hidden = set() if known is None else secret_names(known.settings)
    return sorted(name for name in hidden if before.get(name) != after.get(name))


def names(settings: type[EngineSettings]) -> set[str]:
    """What can be set, by its public names."""
    return {field.alias or name for name, field in settings.model_fields.items()}


def secret_names(settings: type[EngineSettings]) -> set[str]:
    """What is written and never read, by its public names."""
    return {
        field.alias or name
        for name, field in settings.model_fields.items()
        if field.annotation in {SecretStr, SecretStr | None}
    }


SECRETS: Final = frozenset({VERIFY_DIGEST}).union(
    *(secret_names(engine.settings) for engine in ENGINES.values())
)
"""All that is never shown, of any engine, as it is stored."""
