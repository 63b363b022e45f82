"""One instance's session: whether its number can be used, and what was last heard in which chat."""

import asyncio
from collections import OrderedDict
from typing import Final
from uuid import UUID

from services.sessions.engines.cloud_api.account import Account
from services.sessions.engines.port import MessageReceived, Opening

# Chats whose last message is remembered, for each session.
_CHATS: Final = 2000


class Session:
    """What the engine keeps of an instance while it is open.

    ``task`` brings it up, and later ends it. It may send when it is ``online``, and hears what
    waits for it when that is ``told``. ``quiet_until`` is by the monotonic clock: what was not
    committed is not offered again before.
    """

    def __init__(self, opening: Opening, account: Account) -> None:
        self.opening = opening
        self.account = account
        self.online = False
        self.told = False
        self.ending = False
        self.number: str | None = None
        self.quiet_until = 0.0
        self.task: asyncio.Task[None] | None = None
        self._last: OrderedDict[str, str] = OrderedDict()

    @property
    def instance_id(self) -> UUID:
        """Whose it is."""
        return self.opening.instance_id

    def heard(self, message: MessageReceived) -> None:
        """Somebody has written: what is shown to them now is shown as an answer to that."""
        self._last[message.chat] = message.engine_message_id
        self._last.move_to_end(message.chat)
        while len(self._last) > _CHATS:
            self._last.popitem(last=False)

    def last_in(self, chat: str) -> str | None:
        """The last message that was heard in a chat."""
        return self._last.get(chat)
