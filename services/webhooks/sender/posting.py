"""One POST: signed, guarded, bounded, and whatever comes of it turned into an ``Answer``."""

from datetime import timedelta
from typing import Final

import aiohttp

from services.webhooks.domain.delivery import Answer, Delivery, Verdict, verdict_on
from services.webhooks.domain.endpoint import Endpoint
from services.webhooks.domain.schedule import retry_after
from shared.clock import Clock
from shared.log import get_logger
from shared.security.egress import EgressClient, read_at_most, was_refused
from shared.security.sealing import KeyRing, Place, Unsealable, is_sealed
from shared.security.signatures import SECRETS, signed_headers

log = get_logger()

# What is read of an answer, so that a gigabyte of it costs no more than a page, and what is kept.
READ: Final = 16 * 1024
KEPT: Final = 1024


class Poster:
    """Posts deliveries. Never raises for anything that the other side does."""

    def __init__(self, *, client: EgressClient, ring: KeyRing, clock: Clock, version: str) -> None:
        self._client = client
        self._ring = ring
        self._clock = clock
        self._user_agent = f"Waypost-Webhooks/{version}"

    async def post(self, endpoint: Endpoint, delivery: Delivery) -> Answer:
        """Post a delivery once."""
        at = self._clock.now()
        started = self._clock.monotonic()
        status = error = hint = excerpt = None
        try:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": self._user_agent,
                "X-Webhook-Event": delivery.event_type,
                **signed_headers(
                    delivery.body,
                    message_id=str(delivery.event_id),
                    at=at,
                    secrets=[self._secret(endpoint)],
                ),
            }
            if delivery.instance_id is not None:
                headers["X-Webhook-Instance"] = str(delivery.instance_id)
            async with self._client.request(
                "POST", endpoint.url, body=delivery.body, headers=headers
            ) as response:
                status = response.status
                verdict = verdict_on(status)
                hint = response.headers.get("Retry-After")
                excerpt = await _excerpt(response)
        except Exception as failure:  # the edge: a stranger's server may cause anything
            verdict, error = _verdict_on(failure)
            if error in {"internal", "secret"}:  # ours to mend, not theirs
                log.exception(
                    "webhook_post_failed_by_us", endpoint_id=str(endpoint.id), error=error
                )
        return Answer(
            verdict=verdict,
            at=at,
            duration=timedelta(seconds=self._clock.monotonic() - started),
            status=status,
            error=error,
            excerpt=excerpt,
            retry_after=retry_after(hint, now=at) if verdict is Verdict.THROTTLED else None,
        )

    def _secret(self, endpoint: Endpoint) -> str:
        """The secret in the clear, for no longer than it takes to sign."""
        if not is_sealed(endpoint.secret):
            return endpoint.secret.decode()
        place = Place(endpoint.tenant_id, SECRETS, str(endpoint.id))
        return self._ring.open(endpoint.secret, place).decode()


async def _excerpt(response: aiohttp.ClientResponse) -> str | None:
    """The beginning of the answer. The status is read: what is wrong with the rest is theirs."""
    try:
        read = await read_at_most(response, READ)
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()
        return None
    if not read:
        return None
    # PostgreSQL's text holds every character but this one.
    return read[:KEPT].decode(errors="replace").replace("\0", "\ufffd")


def _verdict_on(failure: Exception) -> tuple[Verdict, str]:
    """What a failed POST means, and a stable word for it."""
    if was_refused(failure):
        return Verdict.MISCONFIGURED, "refused"
    for kinds, verdict, word in _FAILURES:
        if isinstance(failure, kinds):
            return verdict, word
    return Verdict.FAILED, "internal"


# In this order, since most of them are kinds of others further down.
_FAILURES: Final[tuple[tuple[tuple[type[Exception], ...], Verdict, str], ...]] = (
    # A key is missing in ENCRYPTION_KEYS.
    ((Unsealable,), Verdict.UNREACHABLE, "secret"),
    ((TimeoutError,), Verdict.UNREACHABLE, "timeout"),
    ((aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch), Verdict.MISCONFIGURED, "tls"),
    ((aiohttp.ClientConnectorDNSError,), Verdict.UNREACHABLE, "dns"),
    ((aiohttp.ClientConnectorError,), Verdict.UNREACHABLE, "connect"),
    ((aiohttp.ClientConnectionError, OSError), Verdict.UNREACHABLE, "connection_lost"),
    ((aiohttp.InvalidURL, ValueError), Verdict.MISCONFIGURED, "invalid"),
    ((aiohttp.ClientError,), Verdict.FAILED, "protocol"),
)
