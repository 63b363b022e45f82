"""Writes the pages that the code knows best: docs/settings.md, docs/events.md, docs/audit.md.

usage: python docs/generate.py [--check]

With --check nothing is written; the exit status is 1 if a page is not what it would be.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args
from typing import get_origin as typing_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# A script finds what lies beside it; what it describes lies one folder up.
sys.path.insert(0, str(ROOT))

from services.dispatcher.settings import DispatcherSettings  # noqa: E402 - found only now
from services.embedded import EmbeddedSettings  # noqa: E402
from services.gateway.api.auditing import UNAUDITED  # noqa: E402
from services.gateway.domain.auditing import BEYOND_ROUTES  # noqa: E402
from services.gateway.settings import GatewaySettings  # noqa: E402
from services.sessions.settings import SessionsSettings  # noqa: E402
from services.stats.settings import StatsSettings  # noqa: E402
from services.webhooks.settings import WebhooksSettings  # noqa: E402
from shared.broker import topology  # noqa: E402
from shared.contracts import content  # noqa: E402
from shared.contracts.events import EVENTS, Failure  # noqa: E402
from shared.contracts.model import Event  # noqa: E402
from shared.settings import ServiceSettings  # noqa: E402
from tests.support.routes import declared  # noqa: E402

GOLDEN = ROOT / "tests" / "contract" / "golden" / "events"
MADE = "<!-- Made by 'make docs'. Change the code, not this page. -->"

# A type as pydantic holds it: a class, or something of typing's that is none.
Annotation = Any

SETTINGS: Mapping[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "dispatcher": DispatcherSettings,
    "sessions": SessionsSettings,
    "webhooks": WebhooksSettings,
    "stats": StatsSettings,
}
SHAPES: tuple[type[BaseModel], ...] = (
    content.Identity,
    Failure,
    content.Text,
    content.Media,
    content.Location,
    content.ContactCard,
    content.Poll,
    content.PollVote,
)


HOW_SETTINGS_ARE_READ = (
    "Each service reads the environment once, at start. If anything in it is wrong, the service"
    " says all that is wrong and exits with status 2. A list is written with commas."
)
WHO_NEEDS_THEM = (
    "`make migrate` reads `DATABASE_URL` as well. `make run` needs neither of the two addresses: it"
    " brings its own database and speaks to no broker."
)
IN_ONE_PROCESS = (
    "What `make run` reads itself. The variables of the services apply to it too, except those that"
    " it decides: addresses, ports, the secret that signs tokens, the keys that seal content, the"
    " folder that media is kept in, and the networks that webhooks may lead to, which are this"
    " machine's own. The keys are in `encryption-keys`, in its folder: without that file what they"
    " have sealed is lost."
)
WHAT_AN_EVENT_IS = (
    "An event is an object in the JSON format of"
    " [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md). What"
    " all have in common stands first; each section then shows what is in `data`. A"
    " [webhook](webhooks.md) carries the same id, name and `data` in an envelope of its own;"
    " `GET /api/events` answers with events as they are here."
)
HOW_EVENTS_CHANGE = (
    "Fields are only ever added, so ignore what you do not know. Whatever else has to change gets"
    " a new version, told beside the old one."
)
ON_THE_BROKER = (
    "Whom the operator [lets in](operations.md#subscribers-on-the-broker) may take events from"
    " RabbitMQ, by a queue of their own that is bound to the topic exchange"
    f" `{topology.EVENTS}`. The routing key is `ev.<tenant>.<instance>.<name>.v1`: bind to"
    " `ev.<tenant>.#` for all of an organization, `ev.<tenant>.*.message.received.v1` for one sort."
    " `GET /asyncapi.json` describes that contract, the"
    " batches between Waypost's own services included, in"
    " [AsyncAPI 3.0](https://www.asyncapi.com/docs/reference/specification/v3.0.0); it asks for no"
    " credential."
)
AUDIT: tuple[str, ...] = (
    (
        "Whatever changes something in an organization is written down: who did it, what, to"
        " which resource, from which address, under which request id, and when. An entry is part"
        " of the transaction of its change: neither is there without the other. What an engine"
        " does, such as making a group, is written once it is known to be done; a crash in"
        " between loses that entry."
    ),
    (
        "Administrators read it at `GET /api/audit-logs`, latest first, filtered by `userId`,"
        " `action` (`instance.deleted`, or `instance.*`), `resourceType`, `resourceId`, `from`"
        " and `to`, as pages or, with `format=csv`, as a file of at most 50,000 lines. In the"
        " file, a cell that a spreadsheet would take for a formula begins with an apostrophe. An"
        " operator sees all organizations, or one by `tenantId`; what an operator does to an"
        " organization, its administrators see."
    ),
    (
        "`actor.type` is `user`, `user_key`, `instance_key`, `operator`, `system` (Waypost"
        " itself) or `stranger`. `before` and `after` hold what was changed and nothing else."
    ),
    "## What is left out of entries",
    (
        "Secrets, told by the names of fields (`password`, `token`, `apiKey` and the like) and"
        " by what they look like wherever they stand: keys, tokens, private keys, credentials"
        " and queries in URLs, long random words. Of phone numbers the last two digits stay."
        " That a secret was changed shows, as `***`. Long texts and lists are cut."
    ),
    "## How it is kept",
    (
        "The table `gateway.audit_logs` is append only: the role of the gateway may insert and"
        " select, not update or delete. Entries older than `WAYPOST_AUDIT_RETENTION_DAYS` (365;"
        " at least 30) are deleted by a function of the database, `gateway.forget_audit_logs`,"
        " which spares everything younger than 30 days whoever calls it: with the gateway's"
        " credentials one can neither rewrite what was done nor remove fresh traces. Only the"
        " role that migrates can."
    ),
)
SIGHTINGS = (
    "What changes nothing and is still worth knowing. Strangers cause these as often as they like,"
    " so they are noted after the answer and bounded: alike ones become one entry a minute whose"
    " `times` says how many there were; of different ones, each gateway keeps 60 an hour for one"
    " organization and 600 for all, and counts the rest in entries of the resource type"
    " `unlisted`. A crash loses those of the last two seconds. Three of them also emit"
    " [`security.violation`](events.md), at most once an hour for each user or key: a refresh"
    " token that was used twice, a login that was locked, a revoked key that was used. A failed"
    " login for an address without an account belongs to no organization, and what was typed is"
    " not kept: it may be a password in the wrong field."
)


def settings_page() -> str:
    """Every variable: what all services read, then what each reads beyond that."""
    parts = [
        "# Settings",
        MADE,
        HOW_SETTINGS_ARE_READ,
        "## Every service",
        _settings_table(ServiceSettings.model_fields.values()),
        WHO_NEEDS_THEM,
    ]
    for service, settings in SETTINGS.items():
        own = [
            field
            for name, field in settings.model_fields.items()
            if name not in ServiceSettings.model_fields
        ]
        parts += [f"## {service}", _settings_table(own)]
    parts += [
        "## One process",
        IN_ONE_PROCESS,
        _settings_table(EmbeddedSettings.model_fields.values()),
    ]
    return _page(parts)


def events_page() -> str:
    """Every event: when it is emitted, its fields, and how it looks."""
    examples = {name: _example_of(event) for name, event in EVENTS.items()}
    parts = [
        "# Events",
        MADE,
        WHAT_AN_EVENT_IS,
        HOW_EVENTS_CHANGE,
        ON_THE_BROKER,
        "## What all have",
        _table(("attribute", "meaning"), _ATTRIBUTES),
        _json(next(iter(examples.values()))),
    ]
    for name, event in EVENTS.items():
        data = _json(examples[name]["data"])
        parts += [f"## {name}", _prose(event), _fields_table(event), data]
    parts += ["## Shapes", "What the fields above are made of."]
    for shape in SHAPES:
        parts += [f"### {shape.__name__}", _prose(shape), _fields_table(shape)]
    return _page(parts)


def audit_page() -> str:
    """How the audit log works, and every action that it knows."""
    by_action: dict[str, list[str]] = {}
    for route in declared():
        if route.audited is not None:
            by_action.setdefault(route.audited, []).append(f"`{route.method} {route.path}`")
    actions = [(f"`{name}`", "<br>".join(routes)) for name, routes in sorted(by_action.items())]
    others = [(f"`{action!s}`", meaning) for action, meaning in sorted(BEYOND_ROUTES.items())]
    excused = [(f"`{route}`", why) for route, why in UNAUDITED.items()]
    parts = [
        "# The audit log",
        MADE,
        *AUDIT,
        "## Actions",
        _table(("action", "routes"), actions),
        "## Security events",
        SIGHTINGS,
        _table(("action", "meaning"), others),
        "## What is not in it",
        "Reading, and these:",
        _table(("route", "why"), excused),
    ]
    return _page(parts)


_ATTRIBUTES = (
    ("`specversion`", "`1.0`."),
    ("`id`", "Made from the cause: the same event told again has the same id. Drop repeats by it."),
    ("`source`", "Whose it is: `/tenants/…/instances/…`, or `/tenants/…` if no instance is meant."),
    ("`type`", "`dev.waypost.`, the name, and the version."),
    ("`subject`", "What it is about."),
    ("`time`", "When it happened, in UTC with milliseconds."),
    ("`datacontenttype`", "`application/json`."),
    ("`dataschema`", "Names the shape of `data`."),
    ("`tenantid`", "The organization."),
    ("`instanceid`", "The instance; missing for what concerns none."),
    ("`partitionkey`", "What order holds within: for messages, the chat."),
    ("`sequence`", "Sorts, as text, the events of one partition as they happened."),
    ("`traceparent`", "[Trace context](https://www.w3.org/TR/trace-context/) of the cause."),
    ("`correlationid`", "The id of the request that this follows from, else its own id."),
    ("`data`", "What happened."),
)


def _settings_table(fields: Iterable[FieldInfo]) -> str:
    rows = [
        (
            " ".join(f"`{variable}`" for variable in _variables(field)),
            _allowed(field),
            _default(field),
            field.description or "",
        )
        for field in fields
    ]
    return _table(("variable", "value", "default", "meaning"), rows)


def _variables(field: FieldInfo) -> list[str]:
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [name for name in choices if isinstance(name, str) and name.isupper()]
        case str(name):
            return [name]
        case _:
            raise ValueError("a setting names its variable")


def _allowed(field: FieldInfo) -> str:
    kind, _ = _required(field.annotation)
    bounds = _bounds(field.metadata)
    if _origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    if _origin(kind) in {tuple, frozenset}:
        return "list"
    words: Mapping[Annotation, str] = {
        bool: "`true` or `false`",
        int: "whole number",
        float: "number",
        SecretStr: "secret",
        Path: "path",
        str: "text",
    }
    return f"{words[kind]}{bounds}"


def _bounds(metadata: Sequence[object]) -> str:
    low = next((bound.ge for bound in metadata if isinstance(bound, Ge)), None)
    high = next((bound.le for bound in metadata if isinstance(bound, Le)), None)
    if low is not None and high is not None:
        return f", {low} to {high}"
    words = {
        Ge: lambda bound: f", at least {bound.ge}",
        Gt: lambda bound: f", more than {bound.gt}",
        Le: lambda bound: f", at most {bound.le}",
        Lt: lambda bound: f", less than {bound.lt}",
        MinLen: lambda bound: f", at least {bound.min_length} characters",
    }
    return "".join(words[type(bound)](bound) for bound in metadata if type(bound) in words)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), frozenset()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _fields_table(model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        kind, required = _required(field.annotation)
        rows.append((f"`{field.alias or name}`", _kind(kind), "" if required else "may be missing"))
    return _table(("field", "type", ""), rows)


def _kind(annotation: Annotation) -> str:
    """A type in the words of JSON."""
    arguments = get_args(annotation)
    match _origin(annotation):
        case None:
            return _plain(annotation)
        case origin if origin is Literal:
            return " or ".join(f'`"{choice}"`' for choice in arguments)
        case origin if origin in {Union, UnionType}:
            return " or ".join(_kind(argument) for argument in arguments)
        case origin if origin is tuple:
            return f"list of {_kind(arguments[0])}s"
        case origin if origin is dict:
            return f"object of {_kind(arguments[1])}s"
        case _:
            return _kind(arguments[0])


def _plain(kind: Annotation) -> str:
    if issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    words = {str: "string", int: "integer", float: "number", bool: "boolean", datetime: "time"}
    return words[kind]


def _required(annotation: Annotation) -> tuple[Annotation, bool]:
    """A type without ``None``, and whether there has to be a value."""
    if _origin(annotation) not in {Union, UnionType}:
        return annotation, True
    some = [argument for argument in get_args(annotation) if argument is not NoneType]
    return (some[0] if len(some) == 1 else annotation), len(some) == len(get_args(annotation))


def _example_of(event: type[Event]) -> dict[str, object]:
    """The golden example that the tests hold us to."""
    path = GOLDEN / f"{event.TYPE}.v{event.VERSION}.json"
    example: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return example


def _json(value: object) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def _prose(model: type[BaseModel]) -> str:
    text = cleandoc(model.__doc__ or "").replace("``", "`")
    for name, field in model.model_fields.items():
        text = text.replace(f"`{name}`", f"`{field.alias or name}`")
    return text


def _origin(annotation: Annotation) -> Annotation:
    """What a generic type is made from. As ``typing`` types it, comparing it is forbidden."""
    return typing_origin(annotation)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


PAGES = {
    DOCS / "settings.md": settings_page,
    DOCS / "events.md": events_page,
    DOCS / "audit.md": audit_page,
}


def main(arguments: Sequence[str]) -> int:
    """Write the pages; with ``--check`` say which are not current."""
    if list(arguments) not in ([], ["--check"]):
        raise SystemExit("usage: python docs/generate.py [--check]")
    stale = 0
    for path, make in PAGES.items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        name = path.relative_to(ROOT)
        if arguments:
            print(f"{name} is not current; run 'make docs'.")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
