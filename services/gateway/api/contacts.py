"""Whether numbers are on WhatsApp."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from aiohttp import web

from services.gateway.api.askable import Askable, require_ready
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.schemas.asked import CheckedView
from services.gateway.api.schemas.outbound import NumbersToCheck
from services.gateway.api.seen import sight
from services.gateway.api.sending import Sending
from services.gateway.domain.masking import Sight
from services.gateway.domain.recipients import PERSON, NotAnAddress, address_of
from services.gateway.store.instances import Sender
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.questions import CheckedNumber, CheckedNumbers, CheckNumbers
from shared.web.body import BodyLimits, read_model
from shared.web.envelope import respond

# What one question may hold.
AT_ONCE: Final = 50


class Contacts:
    """``/api/contacts/check``."""

    def __init__(
        self, *, askable: Askable, sending: Sending, limits: BodyLimits, clock: Clock
    ) -> None:
        self._clock = clock
        self._askable = askable
        self._sending = sending
        self._limits = limits

    async def check(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NumbersToCheck, self._limits)
        sender = await self._sending.sender(request[PRINCIPAL], body)
        numbers, wrong = _read(body.numbers)
        known: dict[str, CheckedNumber] = {}
        if numbers:
            require_ready(sender, Capability.NUMBER_CHECK)
            known = await self._ask(request, sender, list(dict.fromkeys(numbers.values())))
        views = [_view(text, numbers, wrong, known) for text in body.numbers]
        if (how := sight(request)).masked:
            # What they have said themselves stays; under which id WhatsApp knows it does not.
            views = [_hidden(view, how) for view in views]
        return respond(views)

    async def _ask(
        self, request: web.Request, sender: Sender, numbers: Sequence[str]
    ) -> dict[str, CheckedNumber]:
        """One question after another: an instance takes few at a time, and WhatsApp counts them.

        All of them have the time of one. What was found out by then is remembered by the session
        service, so whoever asks again gets further.
        """
        known: dict[str, CheckedNumber] = {}
        until = self._clock.monotonic() + self._askable.deadline.total_seconds()
        for batch in _batches(numbers):
            left = timedelta(seconds=max(0.0, until - self._clock.monotonic()))
            question = CheckNumbers(numbers=tuple(batch))
            answer = await self._askable.answer(
                request, sender, question, CheckedNumbers, within=left
            )
            known.update({one.number: one for one in answer.numbers})
        return known


def _read(texts: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The digits of what is a number, and what is wrong with the rest."""
    numbers: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for text in texts:
        try:
            chat = address_of(text).chat
        except NotAnAddress as error:
            wrong[text] = str(error)
            continue
        user, _, server = chat.partition("@")
        if server == PERSON:
            numbers[text] = user
        else:
            wrong[text] = "is not a number but a WhatsApp id; numbers can be checked"
    return numbers, wrong


def _batches(numbers: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(numbers), AT_ONCE):
        yield numbers[start : start + AT_ONCE]


def _hidden(view: CheckedView, how: Sight) -> CheckedView:
    return view.model_copy(update={"jid": None if view.jid is None else how.text(view.jid)})


def _view(
    text: str,
    numbers: Mapping[str, str],
    wrong: Mapping[str, str],
    known: Mapping[str, CheckedNumber],
) -> CheckedView:
    if text in wrong:
        return CheckedView(
            input=text, valid=False, on_whats_app=False, jid=None, reason=wrong[text]
        )
    found = known.get(numbers[text])
    there = found is not None and found.on_whatsapp
    return CheckedView(
        input=text,
        valid=True,
        on_whats_app=there,
        jid=found.address if found is not None and there else None,
        reason=None if there else "is not on WhatsApp",
    )
