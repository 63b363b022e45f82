"""Instances that a request wants to ask something: found, able and ready, or refused at once."""

from datetime import timedelta
from typing import TypeVar

from aiohttp import web

from services.gateway.api.asking import Asking
from services.gateway.api.lookup import instance_in_path
from services.gateway.domain.capabilities import require
from services.gateway.domain.engines import capabilities
from services.gateway.domain.readiness import not_ready
from services.gateway.store.instances import Instance, Sender
from shared.contracts.capabilities import Capability
from shared.contracts.questions import Answer, Question
from shared.db.database import Database
from shared.web.edge import REQUEST_ID

AnswerT = TypeVar("AnswerT", bound=Answer)


class Askable:
    """Asks the instance that a request means."""

    def __init__(self, *, database: Database, asking: Asking) -> None:
        self._database = database
        self._asking = asking
        self.deadline = asking.deadline

    async def in_path(self, request: web.Request, capability: Capability) -> Instance:
        """The instance that the path names, or that of the calling key, if its engine can."""
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
        require(instance.engine, capabilities(instance.engine), capability)
        return instance

    async def ask(
        self,
        request: web.Request,
        capability: Capability,
        question: Question,
        wanted: type[AnswerT],
    ) -> AnswerT:
        """The answer of the instance in the path, which must be ready. Raises as ``Asking.ask``."""
        instance = await self.in_path(request, capability)
        if instance.status != "ready" or not instance.connected:
            raise not_ready(instance.status)
        return await self.answer(request, instance, question, wanted)

    async def answer(
        self,
        request: web.Request,
        instance: Instance | Sender,
        question: Question,
        wanted: type[AnswerT],
        *,
        within: timedelta | None = None,
    ) -> AnswerT:
        """The answer of an instance, whatever its state."""
        return await self._asking.ask(
            question,
            wanted,
            instance_id=instance.id,
            shard=instance.shard,
            request_id=request[REQUEST_ID],
            within=within,
        )


def require_ready(sender: Sender, capability: Capability) -> None:
    """Raise unless the instance's engine can, and it is ready to."""
    require(sender.engine, capabilities(sender.engine), capability)
    if sender.status != "ready" or not sender.connected:
        raise not_ready(sender.status)
