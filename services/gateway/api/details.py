"""More about an instance: whether WhatsApp answers, and everything that is set."""

from uuid import UUID

from aiohttp import web
from pydantic import Field

from services.gateway.api.askable import Askable
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.schemas.instances import GuardView
from services.gateway.domain.engines import masked
from services.gateway.domain.guard import Guard
from services.gateway.store.instances import Instance
from shared.contracts.capabilities import Capability
from shared.contracts.questions import Profile, TellProfile
from shared.db.database import Database
from shared.errors import NotFound, PlatformError
from shared.web.envelope import respond
from shared.web.schemas import ApiView, Instant


class ConnectionTest(ApiView):
    """Whether WhatsApp answers for an instance; if not, `error` says why and what to do."""

    success: bool
    business_name: str | None = Field(default=None, examples=["Example Ltd"])
    error: str | None = Field(default=None, examples=["The instance is not connected."])


class ConfigView(ApiView):
    """Everything that is set for an instance. Of secrets it shows that they are set, no more."""

    id: UUID
    name: str
    engine: str = Field(examples=["sandbox"])
    phone_number: str | None = Field(examples=["+4915112345678"])
    connected: bool
    settings: dict[str, object]
    guard: GuardView
    templates: list[str] = Field(description="The names of its message templates.")
    updated_at: Instant

    @classmethod
    def of(cls, instance: Instance) -> "ConfigView":
        return cls(
            id=instance.id,
            name=instance.name,
            engine=instance.engine,
            phone_number=instance.number,
            connected=instance.connected,
            settings=masked(instance.engine, instance.settings),
            guard=GuardView.of(Guard.model_validate(instance.guard)),
            templates=[],
            updated_at=instance.updated_at,
        )


class Details:
    """``/api/instances/{id}/test-connection`` and ``/config``."""

    def __init__(self, *, database: Database, askable: Askable) -> None:
        self._database = database
        self._askable = askable

    async def test(self, request: web.Request) -> web.StreamResponse:
        """Ask WhatsApp something harmless; whatever goes wrong is the answer and no error."""
        try:
            profile = await self._askable.ask(request, Capability.PROFILE, TellProfile(), Profile)
        except NotFound:
            raise
        except PlatformError as error:
            return respond(ConnectionTest(success=False, error=error.message))
        return respond(ConnectionTest(success=True, business_name=profile.identity.push_name))

    async def config(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(ConfigView.of(await instance_in_path(tx, request)))
