"""The gateway's settings."""

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.media.settings import MediaSettings
from shared.security.settings import EgressSettings, SealingSettings


def _from(name: str, env: str) -> AliasChoices:
    return AliasChoices(name, env)


class GatewaySettings(MediaSettings, SealingSettings, EgressSettings):
    """Read from the environment once, at start."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=_from("host", "WAYPOST_HOST"),
        description="The address that the API listens on.",
    )
    port: int = Field(
        8080,
        ge=0,
        le=65535,
        validation_alias=_from("port", "WAYPOST_PORT"),
        description="The port of the API, of health and of metrics.",
    )
    jwt_secret: SecretStr = Field(
        min_length=32,
        validation_alias=_from("jwt_secret", "JWT_SECRET"),
        description="Signs access tokens. At least 32 characters.",
    )
    jwt_secret_previous: SecretStr | None = Field(
        None,
        min_length=32,
        validation_alias=_from("jwt_secret_previous", "JWT_SECRET_PREVIOUS"),
        description="The secret before the last change; what it signed is still accepted.",
    )
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=_from("redis_url", "REDIS_URL"),
        description="Redis, to count rate limits for all replicas; else each counts alone.",
    )
    access_token_minutes: int = Field(
        15,
        ge=1,
        le=24 * 60,
        validation_alias=_from("access_token_minutes", "WAYPOST_ACCESS_TOKEN_MINUTES"),
        description="Minutes until an access token expires.",
    )
    refresh_token_days: int = Field(
        7,
        ge=1,
        le=365,
        validation_alias=_from("refresh_token_days", "WAYPOST_REFRESH_TOKEN_DAYS"),
        description="Days until a refresh token that is not used expires.",
    )
    max_body: int = Field(
        1024 * 1024,
        ge=16 * 1024,
        validation_alias=_from("max_body", "WAYPOST_GATEWAY_MAX_BODY"),
        description="The largest JSON body, in bytes.",
    )
    body_seconds: float = Field(
        30,
        gt=0,
        le=600,
        validation_alias=_from("body_seconds", "WAYPOST_BODY_SECONDS"),
        description="Seconds until a JSON body has to be there whole.",
    )
    connections: int = Field(
        10_000,
        ge=1,
        validation_alias=_from("connections", "WAYPOST_CONNECTIONS"),
        description="Connections at a time, at each replica; one more is answered 503.",
    )
    idle_seconds: float = Field(
        75,
        gt=0,
        le=3600,
        validation_alias=_from("idle_seconds", "WAYPOST_IDLE_SECONDS"),
        description="Seconds that a connection may be without a request, or take for a request's"
        " head. More than a load balancer before it keeps one idle.",
    )
    unread_seconds: float = Field(
        60,
        gt=0,
        le=3600,
        validation_alias=_from("unread_seconds", "WAYPOST_UNREAD_SECONDS"),
        description="Seconds that a caller may take nothing of an answer, on Linux.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_from("cors_origins", "WAYPOST_CORS_ORIGINS"),
        description="Web pages that may call the API, as origins parted by commas; * for all.",
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        validation_alias=_from("trusted_proxies", "WAYPOST_TRUSTED_PROXIES"),
        description="How many of our proxies add to X-Forwarded-For; 0: it is not believed.",
    )
    limit_user_minute: int = Field(
        100,
        ge=1,
        validation_alias=_from("limit_user_minute", "WAYPOST_USER_REQUESTS_PER_MINUTE"),
        description="Requests a minute of one user.",
    )
    limit_analytics_minute: int = Field(
        10,
        ge=1,
        validation_alias=_from("limit_analytics_minute", "WAYPOST_ANALYTICS_REQUESTS_PER_MINUTE"),
        description="Requests a minute of one user or key for analytics, within their own limit.",
    )
    limit_admin_hour: int = Field(
        50,
        ge=1,
        validation_alias=_from("limit_admin_hour", "WAYPOST_ADMIN_REQUESTS_PER_HOUR"),
        description="Requests an hour of one operator under /api/admin, within their own limit.",
    )
    limit_address_minute: int = Field(
        300,
        ge=1,
        validation_alias=_from("limit_address_minute", "WAYPOST_ADDRESS_REQUESTS_PER_MINUTE"),
        description="Requests a minute of one address that show no valid credential.",
    )
    limit_callbacks_minute: int = Field(
        6000,
        ge=1,
        validation_alias=_from("limit_callbacks_minute", "WAYPOST_CALLBACKS_PER_MINUTE"),
        description="Callbacks of WhatsApp a minute from one address. What is not signed counts as"
        " a request without a credential besides.",
    )
    callback_max_body: int = Field(
        4 * 1024 * 1024,
        ge=64 * 1024,
        validation_alias=_from("callback_max_body", "WAYPOST_CALLBACK_MAX_BODY"),
        description="The largest callback, in bytes; Meta's have at most 3 MB.",
    )
    verify_token: SecretStr | None = Field(
        None,
        min_length=8,
        validation_alias=_from("verify_token", "WAYPOST_WHATSAPP_VERIFY_TOKEN"),
        description="Secret. A verify token for Meta beside those of instances.",
    )
    login_attempts: int = Field(
        5,
        ge=1,
        validation_alias=_from("login_attempts", "WAYPOST_LOGIN_ATTEMPTS"),
        description="Failed logins per address and account until both have to wait.",
    )
    login_attempts_account: int = Field(
        50,
        ge=1,
        validation_alias=_from("login_attempts_account", "WAYPOST_LOGIN_ATTEMPTS_ACCOUNT"),
        description="Failed logins per account, from all addresses, until only addresses from which"
        " its user has logged in before may try.",
    )
    login_attempts_address: int = Field(
        100,
        ge=1,
        validation_alias=_from("login_attempts_address", "WAYPOST_LOGIN_ATTEMPTS_ADDRESS"),
        description="Failed logins per address, for whatever accounts, until only users who have"
        " logged in from there before may try.",
    )
    login_window_minutes: int = Field(
        15,
        ge=1,
        validation_alias=_from("login_window_minutes", "WAYPOST_LOGIN_WINDOW_MINUTES"),
        description="Minutes in which failed logins count.",
    )
    password_memory_kib: int = Field(
        64 * 1024,
        ge=1024,
        validation_alias=_from("password_memory_kib", "WAYPOST_PASSWORD_MEMORY_KIB"),
        description="Memory that hashing one password takes, in KiB (argon2id).",
    )
    keys_per_instance: int = Field(
        10,
        ge=1,
        validation_alias=_from("keys_per_instance", "WAYPOST_KEYS_PER_INSTANCE"),
        description="Keys that one instance may have at a time.",
    )
    keys_per_user: int = Field(
        10,
        ge=1,
        validation_alias=_from("keys_per_user", "WAYPOST_KEYS_PER_USER"),
        description="Keys that one user may have at a time.",
    )
    invitation_hours: int = Field(
        72,
        ge=1,
        le=24 * 90,
        validation_alias=_from("invitation_hours", "WAYPOST_INVITATION_HOURS"),
        description="Hours in which an invitation, or the reset of a password, can be used.",
    )
    webhook_test_seconds: float = Field(
        20,
        gt=0,
        le=60,
        validation_alias=_from("webhook_test_seconds", "WAYPOST_WEBHOOK_TEST_SECONDS"),
        description="Seconds to wait for what a test of a webhook finds.",
    )
    ask_seconds: float = Field(
        15,
        gt=0,
        le=60,
        validation_alias=_from("ask_seconds", "WAYPOST_ASK_SECONDS"),
        description="Seconds to wait for an instance's answer, about a number or a group.",
    )
    asks_at_once: int = Field(
        1000,
        ge=1,
        validation_alias=_from("asks_at_once", "WAYPOST_ASKS_AT_ONCE"),
        description="Requests that may wait for instances' answers at a time.",
    )
    event_retention_days: int = Field(
        7,
        ge=1,
        validation_alias=_from("event_retention_days", "WAYPOST_EVENT_RETENTION_DAYS"),
        description="Days that the event log keeps events.",
    )
    audit_retention_days: int = Field(
        365,
        ge=30,
        le=3650,
        validation_alias=_from("audit_retention_days", "WAYPOST_AUDIT_RETENTION_DAYS"),
        description="Days that the audit log keeps entries.",
    )
    event_waiters: int = Field(
        1000,
        ge=1,
        validation_alias=_from("event_waiters", "WAYPOST_EVENT_WAITERS"),
        description="Requests that may wait for events at a time, at each replica.",
    )
    event_waiters_tenant: int = Field(
        100,
        ge=1,
        validation_alias=_from("event_waiters_tenant", "WAYPOST_EVENT_WAITERS_TENANT"),
        description="Those of one organization among them.",
    )
    live_clients: int = Field(
        2000,
        ge=1,
        validation_alias=_from("live_clients", "WAYPOST_LIVE_CLIENTS"),
        description="Live (Socket.IO) connections at a time, at each replica.",
    )
    live_clients_tenant: int = Field(
        100,
        ge=1,
        validation_alias=_from("live_clients_tenant", "WAYPOST_LIVE_CLIENTS_TENANT"),
        description="Those of one organization among them.",
    )
    live_connects_minute: int = Field(
        60,
        ge=1,
        validation_alias=_from("live_connects_minute", "WAYPOST_LIVE_CONNECTS_PER_MINUTE"),
        description="Live connections that one address may open in a minute.",
    )
    live_backlog_events: int = Field(
        1000,
        ge=1,
        validation_alias=_from("live_backlog_events", "WAYPOST_LIVE_BACKLOG_EVENTS"),
        description="Events that may wait for a live client until it is dropped as too slow.",
    )
    live_backlog_bytes: int = Field(
        2 * 1024**2,
        ge=64 * 1024,
        validation_alias=_from("live_backlog_bytes", "WAYPOST_LIVE_BACKLOG_BYTES"),
        description="Bytes that may wait for a live client, likewise.",
    )
    media_quota: int = Field(
        5 * 1024**3,
        ge=0,
        validation_alias=_from("media_quota", "WAYPOST_MEDIA_QUOTA"),
        description="Bytes that the uploads of one organization may take.",
    )
    media_arriving: int = Field(
        160 * 1024**2,
        ge=1024**2,
        validation_alias=_from("media_arriving", "WAYPOST_MEDIA_ARRIVING"),
        description="Bytes of files that may be arriving at once, in the folder for temporary"
        " files, of which one organization takes three quarters at most; what would pass it is"
        " told to try again.",
    )
    linger: float = Field(
        0.05,
        ge=0,
        le=5,
        validation_alias=_from("linger", "WAYPOST_EVENT_LINGER"),
        description="Seconds to gather events for one commit of the event log.",
    )
    commit: str = Field(
        "unknown",
        validation_alias=_from("commit", "WAYPOST_COMMIT"),
        description="The commit that this build was made from, for GET /api/version.",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return tuple(_parts(value)) if isinstance(value, str) else value

    @property
    def secrets(self) -> list[str]:
        """The secrets, newest first."""
        known = (self.jwt_secret, self.jwt_secret_previous)
        return [secret.get_secret_value() for secret in known if secret is not None]


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
