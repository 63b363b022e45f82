"""What the sandbox answers to questions."""

from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from services.sessions.domain.addresses import PERSON, digits
from services.sessions.engines.port import Refused, SessionDown
from services.sessions.engines.sandbox import groups
from services.sessions.engines.sandbox.groups import Group, Groups
from services.sessions.engines.sandbox.numbers import First, behaviour
from services.sessions.engines.sandbox.pairing import Phone
from shared.clock import Clock
from shared.contracts.content import Identity
from shared.contracts.questions import (
    Answer,
    ChangedMember,
    ChangedMembers,
    ChangeMembers,
    CheckedNumber,
    CheckedNumbers,
    CheckNumbers,
    CreateGroup,
    Done,
    InviteLink,
    LeaveGroup,
    ListGroups,
    PairByCode,
    PairingCode,
    Profile,
    Question,
    TellGroup,
    TellInviteLink,
    TellProfile,
)
from shared.contracts.questions import Groups as ToldGroups
from shared.errors import Conflict

# As WhatsApp's codes: nothing in it can be taken for something else.
_LETTERS: Final = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
_CODE: Final = 8


class Answers:
    """Answers for one account after the other; only the groups are kept anywhere."""

    def __init__(self, *, groups: Groups, clock: Clock) -> None:
        self._groups = groups
        self._clock = clock

    async def to(self, phone: Phone, question: Question) -> Answer:
        """The answer that a phone gets. Raises ``SessionDown`` unless it is online."""
        if isinstance(question, PairByCode):
            return await self._code(phone, question)
        if not phone.online:
            raise SessionDown("The session is not connected.")
        match question:
            case CheckNumbers():
                return CheckedNumbers(numbers=tuple(_checked(n) for n in question.numbers))
            case TellProfile():
                number = phone.number
                identity = Identity(phone=f"+{number}", chat_id=number + PERSON)
                return Profile(identity=identity, about="In the sandbox")
            case ListGroups():
                found = await self._groups.of(phone.opening.tenant_id, phone.number)
                told = [group.told().model_copy(update={"members": ()}) for group in found]
                return ToldGroups(groups=tuple(told))
            case _:
                return await self._group(phone, question)

    async def _group(
        self,
        phone: Phone,
        question: TellGroup | CreateGroup | ChangeMembers | TellInviteLink | LeaveGroup,
    ) -> Answer:
        tenant_id, number, lease = phone.opening.tenant_id, phone.number, phone.opening.lease
        match question:
            case TellGroup():
                return (await self._groups.one(tenant_id, question.group, number=number)).told()
            case CreateGroup():
                group = groups.founded(
                    question.name, number, question.members, now=self._clock.now()
                )
                await self._groups.found(tenant_id, group, lease=lease)
                return group.told()
            case ChangeMembers():
                outcomes: list[ChangedMember] = []

                def decide(group: Group) -> Group:
                    after, became = groups.changed(group, question, by=number)
                    outcomes.extend(became)
                    return after

                await self._groups.change(
                    tenant_id, question.group, decide, number=number, lease=lease
                )
                return ChangedMembers(members=tuple(outcomes))
            case TellInviteLink():
                if question.renew:
                    group = await self._groups.change(
                        tenant_id, question.group, groups.renewed, number=number, lease=lease
                    )
                else:
                    group = await self._groups.one(tenant_id, question.group, number=number)
                return InviteLink(url=f"https://chat.whatsapp.com/{group.invite}")
            case LeaveGroup():
                await self._groups.change(
                    tenant_id,
                    question.group,
                    lambda group: groups.left(group, number),
                    number=number,
                    lease=lease,
                )
                return Done()

    async def _code(self, phone: Phone, question: PairByCode) -> PairingCode:
        """A code, which is entered in the way that the QR code is scanned."""
        await phone.decided.wait()
        if phone.codes_end is None:
            raise Conflict("A phone is linked to the instance already; log it out to pair anew.")
        number = digits(question.phone_number)
        if number is None:
            raise Refused("A code is for a telephone number; write it like +12025550142.")
        phone.number = number
        phone.codes += 1
        code = _code(phone.instance_id, phone.codes, phone.codes_end)
        return PairingCode(code=code, expires_at=phone.codes_end)


def _checked(number: str) -> CheckedNumber:
    if behaviour(digits(number)).first is First.NOT_ON_WHATSAPP:
        return CheckedNumber(number=number, on_whatsapp=False)
    return CheckedNumber(number=number, on_whatsapp=True, address=f"{digits(number)}{PERSON}")


def _code(instance_id: UUID, number: int, ends: datetime) -> str:
    digest = sha256(f"{instance_id} {number} {ends.isoformat()}".encode()).digest()
    letters = "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_CODE])
    return f"{letters[:4]}-{letters[4:]}"
