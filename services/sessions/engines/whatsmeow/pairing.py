"""Linking a new device: codes are shown until a phone has scanned one, or one was typed in."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from services.sessions.engines.port import Disconnected, Failed, Opening, Paired, Qr, SessionDown
from services.sessions.engines.whatsmeow.devices import Devices, patiently
from services.sessions.engines.whatsmeow.endings import Over, Trouble
from services.sessions.engines.whatsmeow.offering import Offering
from services.sessions.engines.whatsmeow.wire import Frame
from services.sessions.engines.whatsmeow.workers import Died, Worker
from shared.clock import Clock
from shared.contracts.questions import PairByCode, PairingCode

# How long the first code may take, in seconds.
BEGINNING: Final = 45.0
# WhatsApp's own rhythm: six codes, the first valid for longer than the others.
FIRST_CODE: Final = timedelta(seconds=60)
NEXT_CODE: Final = timedelta(seconds=20)
CODES: Final = FIRST_CODE + 5 * NEXT_CODE
# A timeout before this was not for want of a scan, but for want of a connection.
NOT_YET: Final = timedelta(seconds=15)
PAIRING_TIMEOUT: Final = "pairing_timeout"
# What another attempt would not change.
GIVEN_UP: Final = frozenset({"client_outdated", "passkey_required"})


class Pairing:
    """One attempt, in one run of a session. ``name`` is how the phone will list the device."""

    def __init__(
        self, opening: Opening, *, name: str, devices: Devices, offering: Offering, clock: Clock
    ) -> None:
        self._opening = opening
        self._name = name
        self._devices = devices
        self._offering = offering
        self._clock = clock
        self._coded_at: datetime | None = None

    async def run(self, news: Callable[[], Awaitable[Frame]]) -> None:
        """Show codes until a phone has linked the device, by what is heard of it.

        Raises ``Over`` if the session ends with it, ``Trouble`` if it is to be begun anew, and
        ``Fenced``.
        """
        codes = 0
        shown_at = self._clock.now()
        while True:
            try:
                async with asyncio.timeout(BEGINNING if codes == 0 else CODES.total_seconds()):
                    frame = await news()
            except TimeoutError:
                raise Trouble("no_answer") from None
            match frame["what"]:
                case "code":
                    codes += 1
                    shown_at = self._clock.now()
                    self._show(frame["text"], at=shown_at, first=codes == 1)
                case "login":
                    self._judge(frame["word"], since=self._clock.now() - shown_at)
                case "paired":
                    await self._remember(frame)
                    return
                case "not_paired":
                    raise Trouble("pairing_failed")
                case _:
                    pass

    async def by_code(self, question: PairByCode, worker: Worker, run: str) -> PairingCode:
        """A code that is typed into a phone. Raises as ``Engine.ask`` does."""
        try:
            answer = await worker.call(
                "pair_by_code", run, number=question.phone_number.lstrip("+")
            )
        except Died as error:
            raise SessionDown("The worker has ended.") from error
        begun = self._coded_at or self._clock.now()
        return PairingCode(code=answer["code"], expires_at=begun + CODES)

    def _show(self, code: str, *, at: datetime, first: bool) -> None:
        self._coded_at = self._coded_at or at
        valid = FIRST_CODE if first else NEXT_CODE
        self._offering.put(
            Qr(
                instance_id=self._opening.instance_id,
                at=at,
                code=code,
                expires_at=at + valid,
            )
        )

    def _judge(self, word: str, *, since: timedelta) -> None:
        """What pairing has come to."""
        reason = why_pairing_ended(word, since=since)
        if reason is None:
            return
        id_, now = self._opening.instance_id, self._clock.now()
        if reason == PAIRING_TIMEOUT:
            raise Over(Disconnected(instance_id=id_, at=now, reason=reason, will_retry=False))
        if reason in GIVEN_UP:
            raise Over(Failed(instance_id=id_, at=now, reason=reason))
        raise Trouble(reason)

    async def _remember(self, frame: Frame) -> None:
        """The device is linked: keep its address before anybody is told."""
        device: str = frame["device"]
        now = self._clock.now()
        await patiently(self._clock, lambda: self._devices.save(self._opening, device, at=now))
        info = {"platform": frame["platform"], "name": self._name}
        if frame["business_name"]:
            info["businessName"] = frame["business_name"]
        self._offering.put(
            Paired(
                instance_id=self._opening.instance_id,
                at=now,
                phone_number=f"+{frame['number']}",
                device_info=info,
            )
        )


def why_pairing_ended(word: str, *, since: timedelta) -> str | None:
    """What neonize's last word about a pairing means; ``None``: it went well.

    ``since`` is how long ago the last code was shown: neonize calls it a timeout too if the
    connection broke.
    """
    if word == "success":
        return None
    if word == "timeout":
        return PAIRING_TIMEOUT if since > NOT_YET else "connection_lost"
    if word == "err-client-outdated":
        return "client_outdated"
    # neonize has no way to give WhatsApp the passkey that it asks for.
    return "passkey_required" if word.startswith("passkey") else "pairing_failed"
