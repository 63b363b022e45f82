"""Unlinking a device whose session is not open, as well as that can be done."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from services.sessions.engines.port import Opening
from services.sessions.engines.whatsmeow.relay import Relay
from services.sessions.engines.whatsmeow.session import Parts
from services.sessions.engines.whatsmeow.wire import Frame
from shared.errors import PlatformError, Rejected
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

# Somebody is waiting. If it takes longer, the phone goes on listing the device for some weeks.
PATIENCE: Final = 15.0


async def unlink(opening: Opening, *, parts: Parts | None) -> None:
    """Log in once more, only to log out: by the way that the session would have taken, in turn.

    Raises ``Transient`` if the database is away.
    """
    if parts is None:
        return
    device = await parts.devices.of(opening.instance_id)
    if device is None or not await parts.devices.has_keys(device):
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await _unlink(opening, device, parts)
    except (PlatformError, TimeoutError):
        log.warning("device_not_unlinked", instance_id=str(opening.instance_id))


async def _unlink(opening: Opening, device: str, parts: Parts) -> None:
    way = await parts.proxies.used_by(opening)
    if not await parts.proxies.reach(way):
        raise Rejected("WhatsApp cannot be reached from here.")
    await parts.login()
    news: asyncio.Queue[Frame] = asyncio.Queue()
    run = str(new_id())
    async with AsyncExitStack() as stack:
        relay = None if way is None else await stack.enter_async_context(Relay.along(way))
        worker = await parts.workers.place(run, news.put_nowait, apart=run)
        stack.callback(parts.workers.release, worker, run)
        await worker.call(
            "open",
            run,
            instance=str(opening.instance_id),
            device=device,
            proxy=None if relay is None else relay.url,
            name=parts.device_name,
        )
        while (what := (await news.get()).get("what")) != "connected":
            if what in {"died", "ended", "device_removed", "failure"}:
                raise Rejected("The device cannot log in.")
        await worker.call("log_out", run)
