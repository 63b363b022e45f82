"""Logs: facts stay, people's numbers and secrets do not, whoever logs them and wherever."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import new_id
from shared.log import MASK, mask, mask_text
from shared.security.tokens import KeyKind, issue_key

ROOT = Path(__file__).parents[2]

# Logs all that a program could, as a program does; standard output is what is looked at.
PROGRAM = """
import logging, sys
from shared import log

log.configure(level="INFO", style="json")
logger = log.get_logger()
logger.info("message_accepted", message_id="018f3b2e-7000-7000-8000-000000000001", count=3)
logger.debug("debug_is_off")
try:
    raise LookupError("nobody at +12025550199 with api_" + "k" * 43)
except LookupError:
    logger.exception("lookup_failed", to="12025550199@s.whatsapp.net")
try:
    raise ConnectionError("cannot reach postgresql://waypost:hunter2@db.example:5432/waypost")
except ConnectionError:
    logging.getLogger("asyncpg").exception("lost %s", "+12025550199")
logging.getLogger("aiohttp").info("libraries_below_warning_are_off")
logging.getLogger("odd").warning("wrong number of arguments: %s %s", "one")
logging.getLogger("odd").log(35, "a level of its own")
logger.warning("über", name="Ümläut \\n in two lines")
raise RuntimeError("stopped over +12025550199")
"""


# Things go wrong over what somebody said, in every way that ends in a log.
CRASHING = """
import asyncio, gc, threading
import aiormq, asyncpg, pydantic
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from sqlalchemy.exc import IntegrityError
from shared import log
from shared.errors import Transient

SAID = "Quetzal" + "coatl"
log.configure(level="INFO", style="json")
logger = log.get_logger()

class Told(pydantic.BaseModel):
    number: int

def row():
    error = asyncpg.CheckViolationError(f'row violates "fair": {SAID}')
    error.detail = f"Failing row contains ({SAID})."
    error.sqlstate, error.table_name, error.constraint_name = "23514", "messages", "fair"
    raise error

def statement():
    try:
        row()
    except asyncpg.PostgresError as error:
        raise IntegrityError("INSERT", {"content": SAID}, error) from error

def returned():
    no_route = Basic.Return(312, "NO_ROUTE", "waypost.commands", "nobody")
    message = DeliveredMessage(no_route, None, SAID.encode(), None)
    raise aiormq.exceptions.PublishError(message, no_route)

def noted():
    error = RuntimeError(SAID)
    error.add_note(SAID)
    raise error

def grouped():
    raise ExceptionGroup(SAID, [ValueError(SAID), KeyError(SAID)])

def ours():
    try:
        int(SAID)
    except ValueError as error:
        raise Transient("the world is wrong") from error

for crash in (row, statement, returned, noted, grouped, ours, lambda: Told(number=SAID)):
    try:
        crash()
    except Exception:
        logger.exception("crashed")

class Untidy:
    def __del__(self):
        raise LookupError(SAID)

Untidy()
thread = threading.Thread(target=noted)
thread.start()
thread.join()

async def forgotten():
    task = asyncio.create_task(asyncio.sleep(0, noted))
    task.add_done_callback(lambda _: noted())
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError(SAID))
    del future
    gc.collect()
    await task
    await asyncio.sleep(0)

asyncio.run(forgotten())
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the program above has logged; it ends over an error that nobody catches."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "12025550199" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def logged(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """The one line about ``event``."""
    (found,) = (line for line in lines if line["event"] == event)
    return found


def test_a_traceback_says_where_it_happened_and_nothing_of_what_it_happened_to() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "Quetzalcoatl" not in done.stdout
    assert done.stderr == ""
    told = [json.loads(line) for line in done.stdout.splitlines()]
    crashed = [line["exception"] for line in told if line["event"] == "crashed"]
    assert len(crashed) == 7
    row, statement, returned, noted, grouped, ours, model = crashed
    assert row.endswith("asyncpg.exceptions.CheckViolationError (23514, messages, fair)")
    assert "in row" in row
    assert row.splitlines()[-1] in statement
    assert statement.endswith("sqlalchemy.exc.IntegrityError")
    assert returned.endswith("PublishError")
    assert noted.endswith("\nRuntimeError")
    assert "ValueError" in grouped
    assert "KeyError" in grouped
    assert "This directly caused" in ours
    assert ours.endswith("shared.errors.Transient: the world is wrong")
    assert model.endswith("ValidationError")
    assert {"failed_unheard", "thread_failed", "library_logged"} <= {line["event"] for line in told}


def test_a_line_is_an_object_with_event_level_time_and_facts(lines: list[dict[str, Any]]) -> None:
    line = logged(lines, "message_accepted")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "message_accepted",
        "level": "info",
        "message_id": "018f3b2e-7000-7000-8000-000000000001",
        "count": 3,
    }


def test_an_event_of_several_lines_is_still_one_line(lines: list[dict[str, Any]]) -> None:
    assert logged(lines, "über")["name"] == "Ümläut \n in two lines"


def test_what_is_below_the_level_is_not_logged(lines: list[dict[str, Any]]) -> None:
    assert not [line for line in lines if line["event"] == "debug_is_off"]
    assert not [line for line in lines if line.get("library") == "aiohttp"]


def test_a_traceback_is_logged_and_masked(lines: list[dict[str, Any]]) -> None:
    line = logged(lines, "lookup_failed")
    assert line["exception"].endswith("\nLookupError")
    assert line["to"] == "***99@s.whatsapp.net"


def test_what_libraries_log_is_masked_as_well(lines: list[dict[str, Any]]) -> None:
    (line,) = (line for line in lines if line.get("library") == "asyncpg")
    assert line["event"] == "library_logged"
    assert line["message"] == "lost ***99"
    assert line["exception"].endswith("cannot reach postgresql://***@db.example:5432/waypost")


def test_a_library_that_logs_wrongly_does_not_break_the_program(
    lines: list[dict[str, Any]],
) -> None:
    odd = [line for line in lines if line.get("library") == "odd"]
    assert [(line["level"], line["message"]) for line in odd] == [
        ("warning", "wrong number of arguments: %s %s"),
        ("warning", "a level of its own"),
    ]


def test_what_ends_the_process_is_logged_and_masked(lines: list[dict[str, Any]]) -> None:
    line = logged(lines, "process_failed")
    assert line["level"] == "critical"
    assert line["exception"].endswith("\nRuntimeError")


@pytest.mark.parametrize(
    "text",
    [
        "+12025550199",
        "12025550199",
        "to +12025550199.",
        "12025550199@s.whatsapp.net",
        "12025550199:14@s.whatsapp.net",
        "from=12025550199,",
        "12025550199-1414141414@g.us",
        "/api/contacts?phone=%2B12025550199",
        "tel:+12025550199",
        '{"to":"+12025550199"}',
    ],
)
def test_phone_numbers_are_masked_but_for_two_digits(text: str) -> None:
    assert "2025550" not in mask_text(text)
    assert f"{MASK}99" in mask_text(text)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_our_own_keys_are_masked(kind: KeyKind) -> None:
    key = issue_key(kind).text
    assert mask_text(f"key {key}, refused") == f"key {MASK}, refused"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", MASK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", MASK),
        ("Authorization: Bearer 0123abcdef", f"Authorization: Bearer {MASK}"),
        ("{'Authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", f"{{'Authorization': 'Basic {MASK}'}}"),
        ("amqp://guest:hunter2@mq:5672/", f"amqp://{MASK}@mq:5672/"),
        ("redis://:hunter2@cache:6379", f"redis://{MASK}@cache:6379"),
    ],
)
def test_tokens_and_passwords_are_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "api_request_handled",
        "api_rate_limit_exceeded",
        "https://example.com:8443/hooks",
        "3EB0A1B2C3D4E5F60718",
        "2026-01-15T12:00:00.000Z",
        "sessions.shard.07",
        "0.0.0.0:8080",
        "took 123456 ms",
        "Basic plan",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_text(text) == text


@given(st.uuids())
def test_ids_stay(id_: object) -> None:
    assert mask_text(f"message {id_} was accepted") == f"message {id_} was accepted"


def test_an_id_that_is_nearly_all_digits_stays() -> None:
    id_ = "01234567-8901-7234-8567-890123456789"
    assert mask_text(id_) == id_


def test_fields_that_hold_secrets_are_masked_whatever_is_in_them() -> None:
    event = mask(None, "info", {"event": "x", "password": "short", "token": 5, "text": "Hello"})
    assert event == {"event": "x", "password": MASK, "token": MASK, "text": MASK}


def test_a_secret_inside_another_value_is_masked() -> None:
    headers = {"Authorization": "opaque", "X-API-Key": "opaque", "Accept": "text/plain"}
    event = mask(
        None, "info", {"event": "x", "request": {"headers": headers}, "to": ["+12025550199"]}
    )
    assert "opaque" not in event["request"]
    assert "text/plain" in event["request"]
    assert event["to"] == f"['{MASK}99']"


def test_bytes_are_masked_like_text() -> None:
    assert "2025550199" not in mask(None, "info", {"event": "x", "got": b"+12025550199"})["got"]


def test_numbers_ids_and_request_ids_stay_as_they_are() -> None:
    id_, other = new_id(), uuid4()
    facts = {
        "event": "request_handled",
        "request_id": "20260115120000123",
        "message_id": str(id_),
        "tenant_id": other,
        "duration_ms": 1234567.5,
        "count": 12345678,
        "retry": True,
        "code": None,
    }
    assert mask(None, "info", dict(facts)) == {**facts, "tenant_id": str(other)}
