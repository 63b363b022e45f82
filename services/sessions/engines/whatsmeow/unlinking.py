"""Unlinking a device whose session is not open, as well as that can be done."""

import asyncio
from typing import Final
from uuid import UUID

from services.sessions.engines.whatsmeow.session import Parts
from services.sessions.engines.whatsmeow.wire import Frame
from shared.errors import PlatformError, Rejected
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

# Somebody is waiting. If it takes longer, the phone goes on listing the device for some weeks.
PATIENCE: Final = 15.0


async def unlink(instance_id: UUID, *, parts: Parts | None) -> None:
    """Log in once more, only to log out. Raises ``Transient`` if the database is away."""
    if parts is None:
        return
    device = await parts.devices.of(instance_id)
    if device is None or not await parts.devices.has_keys(device):
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await _unlink(instance_id, device, parts)
    except (PlatformError, TimeoutError):
        log.warning("device_not_unlinked", instance_id=str(instance_id))


async def _unlink(instance_id: UUID, device: str, parts: Parts) -> None:
    news: asyncio.Queue[Frame] = asyncio.Queue()
    run = str(new_id())
    proxy = await parts.proxies.kept(instance_id)
    worker = await parts.workers.place(run, news.put_nowait, alone=True)
    try:
        await worker.call(
            "open",
            run,
            instance=str(instance_id),
            device=device,
            proxy=proxy,
            name=parts.device_name,
        )
        while (what := (await news.get()).get("what")) != "connected":
            if what in {"died", "ended", "device_removed", "failure"}:
                raise Rejected("The device cannot log in.")
        await worker.call("log_out", run)
    finally:
        parts.workers.release(worker, run)
