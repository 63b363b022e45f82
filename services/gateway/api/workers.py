"""Workers: how the processes of all services are doing, and what operators tell them."""

from aiohttp import web
from pydantic import Field

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL
from services.gateway.domain.permissions import Role
from services.gateway.domain.principal import tenant_of_concern
from services.gateway.domain.workers import Action, Known, targets
from services.gateway.store import workers
from services.gateway.store.workers import Queue, Worker
from shared.db.database import Database
from shared.log import get_logger
from shared.web.body import BodyLimits, read_model
from shared.web.envelope import respond, respond_whole
from shared.web.schemas import ApiModel, ApiView, Instant

log = get_logger()


class WorkerOrder(ApiModel):
    """What workers are to do. `worker` is one of the list, or a service; without it all."""

    action: Action
    worker: str | None = Field(
        default=None, min_length=1, max_length=300, examples=["dispatcher@host-1", "dispatcher"]
    )


class WorkerView(ApiView):
    """A process; or, for an organization, all of a service's processes together.

    `queueSize` is of the whole service, whose processes share one queue, and counted up to 10000.
    `completed` and `failed` are since the process has started, or since failures were cleared.
    """

    name: str = Field(examples=["dispatcher@host-1"])
    service: str = Field(examples=["dispatcher"])
    state: str = Field(examples=["running", "paused", "draining", "lost"])
    started: Instant | None
    last_heartbeat: Instant | None
    queue_size: int | None = Field(examples=[0])
    processing: int
    completed: int | None
    failed: int | None
    throughput: float | None = Field(
        description="Completed in a minute, over the last one.", examples=[120.0]
    )
    memory: int | None = Field(description="Bytes that the process holds.")

    @classmethod
    def of(cls, worker: Worker, queue: Queue | None) -> "WorkerView":
        return cls(
            name=worker.name,
            service=worker.service,
            state=worker.state,
            started=worker.started_at,
            last_heartbeat=worker.beat_at,
            queue_size=None if queue is None else queue.waiting,
            processing=worker.processing,
            completed=worker.completed,
            failed=worker.failed,
            throughput=round(worker.throughput, 1),
            memory=worker.memory,
        )

    @classmethod
    def of_service(cls, service: str, state: str, queue: Queue) -> "WorkerView":
        return cls(
            name=service,
            service=service,
            state=state,
            started=None,
            last_heartbeat=None,
            queue_size=queue.waiting,
            processing=queue.processing,
            completed=None,
            failed=queue.failed,
            throughput=None,
            memory=None,
        )


class Ordered(ApiView):
    """What was ordered, and whom it is for; each follows within a few seconds."""

    action: Action
    workers: list[str] = Field(examples=[["dispatcher@host-1"]])


class Workers:
    """``/api/workers``. Operators see processes, others what of theirs waits and is under way."""

    def __init__(self, *, database: Database, limits: BodyLimits) -> None:
        self._database = database
        self._limits = limits

    async def list(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        tenant_id = tenant_of_concern(principal)
        async with self._database.tx() as tx:
            found = await workers.workers(tx)
            queues = await workers.queues(tx, tenant_id=tenant_id)
        if principal.role is Role.OPERATOR:
            return respond_whole([WorkerView.of(one, queues.get(one.service)) for one in found])
        return respond_whole(
            [
                WorkerView.of_service(service, _state(found, service), queue)
                for service, queue in queues.items()
            ]
        )

    async def order(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, WorkerOrder, self._limits)
        async with self._database.tx() as tx:
            known = [
                Known(one.name, one.service, one.pausable, one.restartable)
                for one in await workers.workers(tx)
            ]
            meant = targets(body.action, body.worker, known)
            match body.action:
                case Action.PAUSE | Action.RESUME:
                    await workers.pause(tx, meant, paused=body.action is Action.PAUSE)
                case Action.RESTART:
                    await workers.restart(tx, meant)
                case Action.CLEAR_FAILED:
                    await workers.clear_failed(tx, meant)
            await note(tx, request, "worker", body.worker or "all", after=body)
        names = sorted(
            {
                one.name
                for one in known
                for target in meant
                if one.service == target.service and target.worker in {"", one.name}
            }
        )
        log.warning("workers_ordered", action=body.action, workers=",".join(names))
        return respond(Ordered(action=body.action, workers=names), status=202)


def _state(found: list[Worker], service: str) -> str:
    """How a service is doing as a whole: as well as the best of its processes."""
    states = {one.state for one in found if one.service == service}
    return next((one for one in ("running", "paused", "draining") if one in states), "lost")
