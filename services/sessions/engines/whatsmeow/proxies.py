"""Which proxy a session goes through: its own, or one of a pool that it then keeps.

WhatsApp looks at where a device comes from, so an instance stays with its proxy until connecting by
it fails; then it gets another.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from services.sessions.engines.port import Opening
from services.sessions.engines.whatsmeow import tunnels
from services.sessions.engines.whatsmeow.tunnels import Way
from services.sessions.store import fence as fences
from services.sessions.store.fence import Fence
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import Fenced, Rejected
from shared.log import get_logger

log = get_logger()

KINDS: Final = frozenset({"http", "https", "socks5"})
CHECK_EVERY: Final = timedelta(seconds=30)
WHATSAPP: Final = ("web.whatsapp.com", 443)


def checked(url: str) -> str:
    """A proxy's URL. Raises ``Rejected`` if it is of no kind that can be used."""
    parts = urlsplit(url)
    if parts.scheme not in KINDS or not parts.hostname:
        raise Rejected("A proxy is an http, https or socks5 URL with a host.")
    return url


def name(url: str) -> str:
    """How a proxy is named where it can be seen: without user and password."""
    way = Way(url=url)
    host, port = way.place
    return f"{way.scheme}://{host}:{port}"


class Proxies:
    """The pool. ``urls`` may be empty: then sessions without a proxy of their own have none."""

    def __init__(
        self,
        *,
        urls: Sequence[str],
        environment: Mapping[str, str],
        permits: Callable[[str], bool],
        database: Database,
        fence: Fence,
        clock: Clock,
    ) -> None:
        self._urls = {name(url): checked(url) for url in urls}
        # Without any, Go goes by its environment.
        general = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
        self._directly = WHATSAPP if general is None else Way(url=general).place
        self._permits = permits
        self._healthy = dict.fromkeys(self._urls, True)
        self._database = database
        self._fence = fence
        self._clock = clock

    async def of(self, opening: Opening) -> Way | None:
        """The way out for a session. Raises ``Rejected``, ``Fenced`` and ``Transient``."""
        if opening.proxy is not None:
            return self._own(opening.proxy)
        if not self._urls:
            return None
        kept = await self._kept(opening.instance_id)
        return kept or Way(url=self._urls[await self._give(opening, instead_of=None)])

    async def used_by(self, opening: Opening) -> Way | None:
        """The same, but that none is given from the pool to who has none."""
        if opening.proxy is not None:
            return self._own(opening.proxy)
        return await self._kept(opening.instance_id)

    async def reach(self, way: Way | None) -> bool:
        """Whether WhatsApp can be reached: by a proxy all the way, or else the first step of it."""
        if way is None:
            return await tunnels.reached(*self._directly)
        return await way.leads_to(*WHATSAPP)

    async def failed(self, opening: Opening, way: Way) -> None:
        """Connecting by a proxy of the pool has failed: the session gets another next time."""
        which = name(way.url)
        if opening.proxy is not None or which not in self._urls:
            return
        self._healthy[which] = False
        given = await self._give(opening, instead_of=which)
        log.info("proxy_rotated", instance_id=str(opening.instance_id), moved=given != which)

    async def run(self) -> None:
        """Look from time to time which proxies are there, until cancelled."""
        while self._urls:
            await self.check()
            await self._clock.sleep(CHECK_EVERY)

    async def check(self) -> None:
        """Look which proxies can be reached."""
        for which, url in self._urls.items():
            healthy = await Way(url=url).reached()
            if healthy is not self._healthy[which]:
                log.warning("proxy_changed", healthy=healthy)
            self._healthy[which] = healthy

    def _own(self, url: str) -> Way:
        """A tenant's, which must not be a place inside, whatever its name leads to."""
        return Way(url=checked(url), permits=self._permits)

    async def _kept(self, instance_id: UUID) -> Way | None:
        if not self._urls:
            return None
        async with self._database.hot() as connection:
            which = await connection.fetchval(
                "SELECT proxy FROM sessions.proxies WHERE instance_id = $1", instance_id
            )
        url = self._urls.get(which)
        return None if url is None else Way(url=url)

    async def _give(self, opening: Opening, *, instead_of: str | None) -> str:
        """Give a session the healthy proxy that fewest have, or any if none is healthy."""
        others = [which for which in self._urls if which != instead_of] or list(self._urls)
        choice = [which for which in others if self._healthy[which]] or others
        now: datetime = self._clock.now()
        async with self._fence.tx() as connection:
            if not await fences.hold(connection, [opening.lease]):
                raise Fenced("Another process owns this connection now.")
            which = await connection.fetchval(
                """
                SELECT u.proxy FROM unnest($1::text[]) WITH ORDINALITY AS u (proxy, place)
                LEFT JOIN sessions.proxies p ON p.proxy = u.proxy
                GROUP BY u.proxy, u.place ORDER BY count(p.instance_id), u.place LIMIT 1
                """,
                choice,
            )
            await connection.execute(
                """
                INSERT INTO sessions.proxies AS p (
                    instance_id, tenant_id, proxy, failures, assigned_at
                ) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (instance_id) DO UPDATE SET
                    proxy = excluded.proxy, failures = p.failures + excluded.failures,
                    assigned_at = excluded.assigned_at
                """,
                opening.instance_id,
                opening.tenant_id,
                which,
                0 if instead_of is None else 1,
                now,
            )
        return str(which)
