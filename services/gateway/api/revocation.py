"""What has changed and must not be remembered any longer, told to every replica of the gateway.

Each replica remembers for some seconds whose a credential is and whether an instance takes
messages (``Recent``). Whoever changes one of these calls ``Revocations.tell``, after the commit:
here it counts at once, and in the other replicas as soon as the broker has carried the news, which
nobody keeps. Where it is not heard, what was remembered becomes too old by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, Self
from uuid import UUID

from pydantic import ValidationError

from services.gateway.api.callers import Callers
from services.gateway.api.lookup import Senders
from shared.broker.port import Broker, Incoming, Outgoing
from shared.broker.topology import NEWS
from shared.contracts.commands import LookAgain
from shared.errors import Transient, Unroutable
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

KEY: Final = "gateway"
"""Under which every replica listens at the exchange ``waypost.news``."""

# Seconds that a request waits for the broker to take the news; its change is committed already.
_PATIENCE: Final = 1.0
# Ids of one sort in a message: an instance with thousands of keys must not make a huge one.
_AT_ONCE: Final = 1_000


class Revocations:
    """Makes a change of a credential or an instance count in every replica."""

    def __init__(self, *, broker: Broker, callers: Callers, senders: Senders) -> None:
        self._broker = broker
        self._callers = callers
        self._senders = senders

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Hear what other replicas tell for as long as the context is open."""
        async with self._broker.listen(NEWS, KEY, self._hear):
            yield self

    async def tell(
        self,
        *,
        keys: Iterable[bytes] = (),
        logins: Iterable[UUID] = (),
        users: Iterable[UUID] = (),
        instances: Iterable[UUID] = (),
    ) -> None:
        """Say what a committed transaction has changed; never raises, for it is committed.

        ``keys`` by digest, be they revoked or only changed; ``logins`` that have ended, by session
        id; ``users`` whose role has changed or who may not enter any more, with all their logins
        and keys; ``instances`` of which what accepting a message must know has changed.
        """
        news = list(_news(keys, logins, users, instances))
        for one in news:
            self._look_again(one)
        if not news:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._broker.publish([_outgoing(one) for one in news])
        except (TimeoutError, Transient, Unroutable) as error:
            log.warning("revocation_not_told", reason=str(error) or type(error).__name__)

    def _hear(self, message: Incoming) -> None:
        """News has come, perhaps our own. Coming twice, it costs a read and changes nothing."""
        if message.type != LookAgain.TYPE:
            return
        try:
            self._look_again(LookAgain.model_validate_json(message.body))
        except ValidationError:
            log.exception("revocation_unreadable", type=message.type)

    def _look_again(self, news: LookAgain) -> None:
        for digest in news.digests:
            self._callers.forget_key(bytes.fromhex(digest))
        for session_id in news.logins:
            self._callers.forget_login(session_id)
        for user_id in news.users:
            self._callers.forget_user(user_id)
        for instance_id in news.instances:
            self._senders.forget(instance_id)


def _news(
    keys: Iterable[bytes],
    logins: Iterable[UUID],
    users: Iterable[UUID],
    instances: Iterable[UUID],
) -> Iterator[LookAgain]:
    """Few ids are one message, many are several."""
    digests = (key.hex() for key in keys)
    logins, users, instances = iter(logins), iter(users), iter(instances)
    while True:
        news = LookAgain(
            digests=tuple(islice(digests, _AT_ONCE)),
            logins=tuple(islice(logins, _AT_ONCE)),
            users=tuple(islice(users, _AT_ONCE)),
            instances=tuple(islice(instances, _AT_ONCE)),
        )
        if news == LookAgain():
            return
        yield news


def _outgoing(news: LookAgain) -> Outgoing:
    return Outgoing(
        exchange=NEWS,
        routing_key=KEY,
        body=news.model_dump_json().encode(),
        message_id=str(new_id()),
        type=LookAgain.TYPE,
        mandatory=False,
    )
