"""The gateway's parts."""

import sys
from datetime import timedelta

from aiohttp import web

from services.gateway.api import asyncapi
from services.gateway.api.accounts import Accounts
from services.gateway.api.analytics import Analytics
from services.gateway.api.askable import Askable
from services.gateway.api.asking import Asking
from services.gateway.api.attaching import Attaching
from services.gateway.api.audit_logs import AuditLogs
from services.gateway.api.auditing import Auditing
from services.gateway.api.callbacks import Callbacks
from services.gateway.api.callers import Callers
from services.gateway.api.changing import Changing
from services.gateway.api.chats import Chats
from services.gateway.api.connections import Connections
from services.gateway.api.contacts import Contacts
from services.gateway.api.content import Contents
from services.gateway.api.dead_letters import DeadLetters
from services.gateway.api.details import Details
from services.gateway.api.events import Events
from services.gateway.api.express import ROUTE as TEXTS
from services.gateway.api.express import ExpressText
from services.gateway.api.feed import Feed
from services.gateway.api.gate import Gate
from services.gateway.api.groups import Groups
from services.gateway.api.guard import Guards
from services.gateway.api.health import Conditions
from services.gateway.api.instances import Instances
from services.gateway.api.keys import Keys
from services.gateway.api.live.server import PATH as LIVE_PATH
from services.gateway.api.live.server import Live, LiveLimits
from services.gateway.api.locks import Locks
from services.gateway.api.logins import Logins
from services.gateway.api.lookup import Senders
from services.gateway.api.media import Media
from services.gateway.api.membership import Membership
from services.gateway.api.messages import Messages
from services.gateway.api.once import Once
from services.gateway.api.organization import Organizations
from services.gateway.api.pairing import Pairing
from services.gateway.api.password_checks import PasswordChecks
from services.gateway.api.phone_mappings import PhoneMappings
from services.gateway.api.platform import Administration
from services.gateway.api.quotas import Quotas
from services.gateway.api.revocation import Revocations
from services.gateway.api.routes import Handlers, table
from services.gateway.api.routes.messages import MessageHandlers
from services.gateway.api.sandbox import Sandbox
from services.gateway.api.secret_settings import InstanceSecrets
from services.gateway.api.sending import Acceptance, Sending
from services.gateway.api.stats import Stats
from services.gateway.api.tail import Tail
from services.gateway.api.team import Team
from services.gateway.api.uploads import Uploads
from services.gateway.api.user_keys import UserKeys
from services.gateway.api.version import VERSION, Versions
from services.gateway.api.webhook import PrimaryWebhook
from services.gateway.api.workers import Workers
from services.gateway.consumers import Consumers, KeepDeadLetters
from services.gateway.loops.broadcasts import TellEveryone
from services.gateway.loops.dead_letters import WatchDeadLetters
from services.gateway.loops.erasing import EraseMedia
from services.gateway.loops.forgetting import Forget
from services.gateway.loops.freshness import KeepFresh
from services.gateway.loops.news import DispatchNews
from services.gateway.loops.notes import NoteKeyUse, NoteSightings
from services.gateway.loops.quotas import WarnOfQuotas
from services.gateway.metrics import GatewayMetrics
from services.gateway.settings import GatewaySettings
from services.gateway.store.keys import KeyUses
from services.gateway.store.sightings import Sightings
from shared.broker.port import Subscription
from shared.broker.topology import TOPOLOGY
from shared.clock import Clock
from shared.media.store import MediaStore
from shared.messaging import consumer
from shared.messaging.outbox import Relay
from shared.metrics import counted
from shared.runtime import ops
from shared.runtime.service import Listener, Loop, Platform, Service, Workload
from shared.security.passwords import Passwords
from shared.security.tokens import AccessTokens
from shared.web.answers import Answers
from shared.web.body import BodyLimits
from shared.web.connections import ConnectionLimits
from shared.web.docs import add_docs
from shared.web.edge import QUIET, Edge
from shared.web.limits import Limit, RateLimiter
from shared.web.openapi import document
from shared.web.request_log import JsonRequestLog, RequestLog
from shared.web.routes import add_routes

TITLE = "Waypost"
DESCRIPTION = """\
One HTTP API to talk on WhatsApp, whatever carries the words.

JSON in camelCase; times in UTC. A success is `{"success": true, "data": …}`, a list adds
`pagination`; an error is `{"success": false, "error": {"code", "message", "data"?, "requestId"}}`:
decide by its `code`. An unknown field is refused. What answers `GET` answers `HEAD`; `OPTIONS` is
answered 204 and any other method 405, each with `Allow`. What is no HTTP request is answered 400
`BAD_REQUEST`, an `Expect` that nobody knows 417.

Every `POST` that makes something takes an `Idempotency-Key`. Limits are told by `RateLimit-*`; 429
and 503 say with `Retry-After` when to come back.

The events of `GET /api/events` also come live by Socket.IO, at `/socket.io`, for the same
credentials.
"""


def build(settings: GatewaySettings, platform: Platform) -> Service:
    """Put the gateway together."""
    database, clock = platform.database, platform.clock
    limits = BodyLimits(
        largest=settings.max_body, deadline=timedelta(seconds=settings.body_seconds)
    )
    metrics = GatewayMetrics(platform.registry)
    ring = settings.key_ring
    relay = Relay(
        database=database,
        broker=platform.broker,
        schema="gateway",
        clock=clock,
        metrics=metrics,
        ring=ring,
    )
    redis_url = settings.redis_url
    limiter = RateLimiter(
        clock=clock, redis_url=None if redis_url is None else redis_url.get_secret_value()
    )
    tokens = AccessTokens(
        secrets=settings.secrets, lifetime=timedelta(minutes=settings.access_token_minutes)
    )
    passwords = Passwords(memory_kib=settings.password_memory_kib)
    uses = KeyUses(database, clock=clock)
    sightings = Sightings(database=database, clock=clock, told=relay.wake)
    auditing = Auditing(
        database=database,
        sightings=sightings,
        trusted_proxies=settings.trusted_proxies,
        clock=clock,
    )
    callers = Callers(database=database, tokens=tokens, uses=uses, auditing=auditing, clock=clock)
    senders = Senders(database=database, clock=clock)
    revocations = Revocations(broker=platform.broker, callers=callers, senders=senders)
    gate = Gate(
        callers=callers,
        limiter=limiter,
        auditing=auditing,
        uses=uses,
        per_user=settings.limit_user_minute,
        per_address=settings.limit_address_minute,
        analytics_per_minute=settings.limit_analytics_minute,
        admin_per_hour=settings.limit_admin_hour,
        callbacks_per_minute=settings.limit_callbacks_minute,
        trusted_proxies=settings.trusted_proxies,
    )
    once = Once(database=database, ring=ring, clock=clock)
    news = DispatchNews(broker=platform.broker, clock=clock)
    warnings = WarnOfQuotas(database=database, relay=relay, clock=clock, metrics=metrics)
    quotas = Quotas(database=database, clock=clock, metrics=metrics, near=warnings.near)
    acceptance = Acceptance(
        database=database, ring=ring, quotas=quotas, tell=news.tell, metrics=metrics
    )
    store = MediaStore.of(settings)
    uploads = Uploads(
        database=database,
        store=store,
        settings=settings,
        quota=settings.media_quota,
        arriving=settings.media_arriving,
        metrics=metrics,
        clock=clock,
    )
    tail = Tail(database=database, ring=ring, broker=platform.broker, clock=clock, metrics=metrics)
    feed = Feed(
        tail=tail,
        metrics=metrics,
        most=settings.event_waiters,
        most_per_tenant=settings.event_waiters_tenant,
    )
    live = Live(
        database=database,
        ring=ring,
        tail=tail,
        callers=callers,
        tokens=tokens,
        gate=gate,
        limiter=limiter,
        limits=LiveLimits(
            clients=settings.live_clients,
            clients_per_tenant=settings.live_clients_tenant,
            backlog_events=settings.live_backlog_events,
            backlog_bytes=settings.live_backlog_bytes,
            connects_per_minute=settings.live_connects_minute,
        ),
        metrics=metrics,
        clock=clock,
        cors_origins=settings.cors_origins,
    )
    asking = Asking(
        broker=platform.broker,
        clock=clock,
        metrics=metrics,
        deadline=timedelta(seconds=settings.ask_seconds),
        most=settings.asks_at_once,
    )
    askable = Askable(database=database, asking=asking)
    contents = Contents(database=database)
    sending = Sending(
        acceptance=acceptance,
        quotas=quotas,
        senders=senders,
        contents=contents,
        once=once,
        limits=limits,
        clock=clock,
    )
    answers = Answers(clock.monotonic)
    logins = Logins(
        tokens=tokens,
        refresh_lifetime=timedelta(days=settings.refresh_token_days),
        clock=clock,
    )
    checks = PasswordChecks(
        database=database,
        passwords=passwords,
        limiter=limiter,
        auditing=auditing,
        limit=Limit(settings.login_attempts, timedelta(minutes=settings.login_window_minutes)),
        account_limit=Limit(
            settings.login_attempts_account, timedelta(minutes=settings.login_window_minutes)
        ),
        address_limit=Limit(
            settings.login_attempts_address, timedelta(minutes=settings.login_window_minutes)
        ),
        clock=clock,
        trusted_proxies=settings.trusted_proxies,
    )
    everyone = TellEveryone(database=database, relay=relay, clock=clock, metrics=metrics)
    handlers = Handlers(
        accounts=Accounts(
            database=database,
            once=once,
            logins=logins,
            passwords=passwords,
            checks=checks,
            revocations=revocations,
            auditing=auditing,
            relay=relay,
            limits=limits,
            clock=clock,
        ),
        membership=Membership(
            database=database,
            logins=logins,
            passwords=passwords,
            checks=checks,
            revocations=revocations,
            limits=limits,
            clock=clock,
        ),
        organizations=Organizations(
            database=database, revocations=revocations, limits=limits, clock=clock
        ),
        team=Team(
            database=database,
            once=once,
            revocations=revocations,
            limits=limits,
            invitation_lifetime=timedelta(hours=settings.invitation_hours),
            clock=clock,
        ),
        user_keys=UserKeys(
            database=database,
            once=once,
            revocations=revocations,
            limits=limits,
            most=settings.keys_per_user,
            clock=clock,
        ),
        administration=Administration(
            database=database,
            once=once,
            revocations=revocations,
            announced=everyone.announced,
            limits=limits,
            clock=clock,
        ),
        instances=Instances(
            database=database,
            secrets=InstanceSecrets(ring=ring),
            once=once,
            revocations=revocations,
            relay=relay,
            limits=limits,
            clock=clock,
        ),
        connections=Connections(
            database=database, revocations=revocations, relay=relay, clock=clock
        ),
        pairing=Pairing(askable=askable, limits=limits),
        guards=Guards(
            database=database,
            ring=ring,
            policy=settings.policy,
            limits=limits,
            clock=clock,
        ),
        keys=Keys(
            database=database,
            once=once,
            revocations=revocations,
            limits=limits,
            most=settings.keys_per_instance,
            uses=uses,
            limiter=limiter,
            clock=clock,
        ),
        groups=Groups(askable=askable, once=once, limits=limits),
        messages=MessageHandlers(
            sending=sending,
            attaching=Attaching(
                sending=sending,
                contents=contents,
                uploads=uploads,
                policy=settings.policy,
            ),
            changing=Changing(
                database=database, senders=senders, sending=sending, limits=limits, clock=clock
            ),
            messages=Messages(database=database, ring=ring),
            chats=Chats(
                database=database, sending=sending, relay=relay, limits=limits, clock=clock
            ),
            contacts=Contacts(askable=askable, sending=sending, limits=limits, clock=clock),
        ),
        media=Media(
            database=database,
            store=store,
            uploads=uploads,
            once=once,
            quota=settings.media_quota,
            clock=clock,
        ),
        webhook=PrimaryWebhook(
            database=database,
            once=once,
            relay=relay,
            ring=ring,
            policy=settings.policy,
            test_deadline=timedelta(seconds=settings.webhook_test_seconds),
            limits=limits,
            clock=clock,
        ),
        callbacks=Callbacks(
            database=database,
            ring=ring,
            gate=gate,
            auditing=auditing,
            relay=relay,
            limits=BodyLimits(largest=settings.callback_max_body, deadline=limits.deadline),
            verify_token=settings.verify_token,
            metrics=metrics,
            clock=clock,
        ),
        stats=Stats(database=database, clock=clock),
        events=Events(database=database, ring=ring, feed=feed, callers=callers, clock=clock),
        sandbox=Sandbox(
            database=database, once=once, relay=relay, ring=ring, limits=limits, clock=clock
        ),
        dead_letters=DeadLetters(database=database, relay=relay, ring=ring, clock=clock),
        locks=Locks(database=database),
        audit_logs=AuditLogs(database=database),
        workers=Workers(database=database, limits=limits),
        analytics=Analytics(database=database, clock=clock),
        details=Details(database=database, askable=askable),
        phone_mappings=PhoneMappings(
            database=database, once=once, relay=relay, limits=limits, clock=clock
        ),
        conditions=Conditions(
            database=database,
            broker=platform.broker,
            limiter=limiter,
            answers=answers,
            health=platform.health,
            clock=clock,
        ),
        versions=Versions(commit=settings.commit),
    )
    consumers = Consumers(database=database, ring=ring, metrics=metrics, logged=tail.grown)
    buried = consumer.dead_letters(
        KeepDeadLetters(database=database, ring=ring, clock=clock).keep,
        broker=platform.broker,
        metrics=metrics,
    )
    app = web.Application()
    edge = Edge(
        service="gateway",
        clock=clock,
        registry=platform.registry,
        cors_origins=settings.cors_origins,
        quiet=QUIET | {LIVE_PATH},
        request_log=_request_log(settings, clock),
        answers=answers,
    )
    edge.install(app)
    texts = ExpressText(
        routes=gate.guard(table(handlers)),
        callers=callers,
        senders=senders,
        gate=gate,
        limiter=limiter,
        sending=sending,
        uses=uses,
        acceptance=acceptance,
        quotas=quotas,
        limits=limits,
        clock=clock,
        edge=edge,
    )
    routes = [*texts.routes, *ops.routes(health=platform.health, registry=platform.registry)]
    add_routes(app, routes)
    live.add_routes(app)
    add_docs(
        app,
        lambda: document(routes, title=TITLE, version=VERSION, description=DESCRIPTION),
        asyncapi=lambda: asyncapi.document(title=TITLE, version=VERSION),
    )

    _end_waiting(app, feed, live, asking)
    platform.health.add("outbox", relay.check, required=False)
    platform.health.add("media", store.check, required=False)
    return Service(
        name="gateway",
        health=platform.health,
        workload=Workload(
            processing=lambda: 0,
            completed=lambda: counted(metrics.accepted),
            failed=lambda: counted(metrics.handled, among={"dead"}),
            pausable=False,
        ),
        resources=[
            limiter,
            sightings.lasting(),
            uses.lasting(),
            acceptance.commits.running(),
            asking.listening(),
            revocations.listening(),
            tail.listening(),
            live.running(),
        ],
        loops=[
            Loop(name="outbox", run=relay.run),
            Loop(name="dispatch_news", run=news.run),
            Loop(name="tail", run=tail.run),
            Loop(name="broadcasts", run=everyone.run),
            Loop(name="live", run=live.watch),
            Loop(
                name="keep_fresh",
                run=KeepFresh([callers.refresh, senders.refresh], clock=clock, metrics=metrics).run,
            ),
            Loop(name="warn_of_quotas", run=warnings.run),
            Loop(name="key_use", run=NoteKeyUse(uses=uses, clock=clock, metrics=metrics).run),
            Loop(
                name="sightings",
                run=NoteSightings(sightings=sightings, clock=clock, metrics=metrics).run,
            ),
            Loop(
                name="dead_letters",
                run=WatchDeadLetters(database=database, clock=clock, metrics=metrics).run,
            ),
            Loop(
                name="erase_media",
                run=EraseMedia(
                    database=database,
                    store=store,
                    clock=clock,
                    metrics=metrics,
                    received_kept=timedelta(days=settings.event_retention_days),
                ).run,
            ),
            Loop(
                name="forget",
                run=Forget(
                    database=database,
                    clock=clock,
                    metrics=metrics,
                    events_kept=timedelta(days=settings.event_retention_days),
                    audit_kept=timedelta(days=settings.audit_retention_days),
                ).run,
            ),
        ],
        subscriptions=[
            Subscription(
                queue="gateway.events",
                receive=consumer.carried_events(consumers.events, metrics=metrics),
                batch=100,
                linger=timedelta(seconds=settings.linger),
            ),
            *(
                Subscription(queue=queue.dead, receive=buried, batch=20)
                for queue in TOPOLOGY.queues
            ),
        ],
        listener=Listener(
            app=app,
            host=settings.host,
            port=settings.port,
            limits=ConnectionLimits(
                most=settings.connections,
                idle=timedelta(seconds=settings.idle_seconds),
                unread=timedelta(seconds=settings.unread_seconds),
            ),
            express={TEXTS: texts.express},
        ),
    )


def _end_waiting(app: web.Application, feed: Feed, live: Live, asking: Asking) -> None:
    """Let nobody wait for a process that is about to stop."""

    async def end(_app: web.Application) -> None:
        feed.close()
        await live.close()
        asking.close()

    app.on_shutdown.append(end)


def _request_log(settings: GatewaySettings, clock: Clock) -> RequestLog | None:
    """The short way to the log, where lines are JSON and wanted; else the usual one."""
    json = settings.log_style == "json" or (
        settings.log_style == "auto" and not sys.stdout.isatty()
    )
    if not json or settings.log_level not in {"DEBUG", "INFO"}:
        return None
    return JsonRequestLog(sys.stdout.buffer, clock)
