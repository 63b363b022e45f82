"""The Cloud API's engine, against a Meta of ours."""

from datetime import timedelta
from ipaddress import ip_network

from prometheus_client import CollectorRegistry

from services.sessions.engines.cloud_api.engine import CloudApiEngine
from services.sessions.engines.cloud_api.graph import Graph
from services.sessions.metrics import SessionsMetrics
from services.sessions.store.fence import Fence
from shared.clock import SystemClock
from shared.db.database import Database
from shared.security.egress import EgressClient, EgressPolicy
from tests.support.keys import RING
from tests.support.meta import Meta


def an_engine(database: Database, meta: Meta) -> CloudApiEngine:
    """An engine that speaks to this Meta."""
    return CloudApiEngine(
        database=database,
        fence=Fence(database),
        ring=RING,
        graph=a_graph(meta.url),
        clock=SystemClock(),
        metrics=SessionsMetrics(CollectorRegistry()),
    )


def a_graph(url: str) -> Graph:
    """The way to a Meta on loopback."""
    policy = EgressPolicy(allowed_networks=(ip_network("127.0.0.0/8"),))
    return Graph(
        web=EgressClient(policy=policy),
        url=url,
        largest=1024 * 1024,
        patience=timedelta(seconds=10),
    )
