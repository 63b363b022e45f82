"""The primary webhook of an instance."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from services.gateway.domain.event_names import checked
from services.gateway.store.webhooks import Webhook
from shared.web.schemas import ApiModel, ApiView, Instant

EventNames = Annotated[
    list[str],
    Field(
        min_length=1,
        max_length=50,
        description="Names of events, families such as `message.*`, or `*` for all.",
        examples=[["message.*"]],
    ),
    AfterValidator(checked),
]
Url = Annotated[str, Field(min_length=1, max_length=2048, examples=["https://example.com/hook"])]


class NewWebhook(ApiModel):
    """A webhook that is to be made."""

    url: Url
    events: EventNames = Field(default=["*"])
    active: bool = True


class WebhookChange(ApiModel):
    """What is to change; what is left out stays."""

    url: Url | None = None
    events: EventNames | None = None
    active: bool | None = None


class WebhookView(ApiView):
    """A webhook. `active` is false too if it was disabled because it kept failing; setting it to
    true again gives it a new chance.
    """

    id: UUID
    instance_id: UUID | None
    url: str = Field(examples=["https://example.com/hook"])
    events: list[str] = Field(examples=[["message.*"]])
    active: bool
    disabled_reason: str | None
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookView":
        disabled = webhook.disabled_at is not None and webhook.disabled_at >= webhook.updated_at
        return cls(
            id=webhook.id,
            instance_id=webhook.instance_id,
            url=webhook.url,
            events=webhook.events,
            active=webhook.active and not disabled,
            disabled_reason=webhook.disabled_reason if disabled else None,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
        )


class CreatedWebhook(ApiView):
    """A new webhook: the only time that `secret` is seen."""

    id: UUID
    url: str = Field(examples=["https://example.com/hook"])
    events: list[str] = Field(examples=[["message.*"]])
    active: bool
    secret: str = Field(repr=False, examples=["whsec_…"])


class TestResult(ApiView):
    """What the endpoint answered to an event `test`; `responseTime` is in milliseconds."""

    success: bool
    status_code: int | None
    response_time: int | None
    error: str | None = Field(default=None, exclude_if=lambda found: found is None)
