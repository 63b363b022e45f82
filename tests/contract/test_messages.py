"""The messages between services and to subscribers: what was written once can be read for ever.

``golden`` holds a file for each event and command and version, with every field filled in, and one
for each kind of content, of question and of answer. A file is never changed: a change that it does
not survive needs a new version, beside the old one until no queue can hold that any more.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from pydantic import Field, TypeAdapter, ValidationError

from shared.contracts import envelope
from shared.contracts.commands import COMMANDS, ScanSandboxQr
from shared.contracts.content import Content, Sendable
from shared.contracts.events import EVENTS, InstanceStatus
from shared.contracts.model import Command, Contract, Event
from shared.contracts.questions import Answer, Question

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
CONTENT: TypeAdapter[Content] = TypeAdapter(Content)
SENDABLE: TypeAdapter[Sendable] = TypeAdapter(Sendable)
QUESTION: TypeAdapter[Question] = TypeAdapter(Question)
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)

# Words that a field's name may not have: what is told to everybody holds no secret.
SECRET_WORDS = {
    "authorization",
    "cookie",
    "credential",
    "hash",
    "key",
    "password",
    "secret",
    "token",
}


def files(folder: str) -> list[Path]:
    """The golden files of one sort."""
    return sorted((GOLDEN / folder).glob("*.json"))


def each(folder: str) -> pytest.MarkDecorator:
    """One test for each golden file of a sort."""
    return pytest.mark.parametrize("golden", files(folder), ids=lambda path: path.stem)


def names(messages: dict[str, type[Command]] | dict[str, type[Event]]) -> set[str]:
    """What the golden files of today's versions are called."""
    return {f"{message.TYPE}.v{message.VERSION}" for message in messages.values()}


def written_anew(golden: Path) -> Any:
    """What today's program writes when it passes on what it has read from a golden file."""
    body = golden.read_bytes()
    match golden.parent.name:
        case "events":
            return orjson.loads(envelope.encode(envelope.decode(body)))
        case "commands":
            return rewritten(COMMANDS[golden.stem.rpartition(".v")[0]], body)
        case "questions":
            return orjson.loads(QUESTION.dump_json(QUESTION.validate_json(body)))
        case "answers":
            return orjson.loads(ANSWER.dump_json(ANSWER.validate_json(body)))
        case _ if golden.stem in kinds(CONTENT):
            read = CONTENT.validate_json(body)
            return orjson.loads(CONTENT.dump_json(read, by_alias=True))
        case _:
            sent = SENDABLE.validate_json(body)
            return orjson.loads(SENDABLE.dump_json(sent, by_alias=True))


def kinds(union: TypeAdapter[Any]) -> set[str]:
    """What a discriminated union tells apart."""
    return set(union.json_schema()["discriminator"]["mapping"])


def rewritten(model: type[Contract], body: bytes) -> Any:
    """The same for one model."""
    return orjson.loads(model.model_validate_json(body).model_dump_json())


def missing(then: Any, now: Any, path: str = "") -> list[str]:
    """Everything in ``then`` that is not in ``now`` as it was; what was added does not matter."""
    match then, now:
        case dict(), dict():
            return [
                line
                for name, value in then.items()
                for line in (
                    missing(value, now[name], f"{path}.{name}")
                    if name in now
                    else [f"{path}.{name}"]
                )
            ]
        case list(), list() if len(then) == len(now):
            return [
                line
                for number, (one, other) in enumerate(zip(then, now, strict=True))
                for line in missing(one, other, f"{path}[{number}]")
            ]
        case _:
            same = then == now and type(then) is type(now)
            return [] if same else [f"{path}: {then!r} became {now!r}"]


def with_unknown_fields(value: Any) -> Any:
    """The same with a field in every object that no reader knows."""
    match value:
        case dict():
            # Every name is good in metadata, which is the customer's own.
            inner = {
                name: one if name == "metadata" else with_unknown_fields(one)
                for name, one in value.items()
            }
            return {**inner, "addedbylaterversion": {"and": ["so", "on"]}}
        case list():
            return [with_unknown_fields(one) for one in value]
        case _:
            return value


def test_every_message_has_a_golden_file() -> None:
    assert names(EVENTS) == {path.stem for path in files("events")}
    assert names(COMMANDS) == {path.stem for path in files("commands")}
    assert kinds(CONTENT) | kinds(SENDABLE) == {path.stem for path in files("content")}
    assert kinds(QUESTION) == {path.stem for path in files("questions")}
    assert kinds(ANSWER) == {path.stem for path in files("answers")}


@each("events")
def test_an_event_of_then_is_read_and_told_as_then(golden: Path) -> None:
    assert missing(orjson.loads(golden.read_bytes()), written_anew(golden)) == []


@each("commands")
def test_a_command_of_then_is_read_and_told_as_then(golden: Path) -> None:
    assert missing(orjson.loads(golden.read_bytes()), written_anew(golden)) == []


@each("content")
def test_content_of_then_is_read_and_told_as_then(golden: Path) -> None:
    assert missing(orjson.loads(golden.read_bytes()), written_anew(golden)) == []


@each("questions")
def test_a_question_of_then_is_read_and_asked_as_then(golden: Path) -> None:
    assert missing(orjson.loads(golden.read_bytes()), written_anew(golden)) == []


@each("answers")
def test_an_answer_of_then_is_read_and_given_as_then(golden: Path) -> None:
    assert missing(orjson.loads(golden.read_bytes()), written_anew(golden)) == []


@each("events")
def test_an_event_of_a_later_version_is_read_without_what_it_adds(golden: Path) -> None:
    body = golden.read_bytes()
    later = orjson.dumps(with_unknown_fields(orjson.loads(body)))
    assert envelope.decode(later) == envelope.decode(body)
    assert envelope.decode_batch(b"[" + later + b"]") == [envelope.decode(body)]


@each("commands")
def test_a_command_of_a_later_version_is_read_without_what_it_adds(golden: Path) -> None:
    body = golden.read_bytes()
    later = orjson.dumps(with_unknown_fields(orjson.loads(body)))
    command = COMMANDS[golden.stem.rpartition(".v")[0]]
    assert command.model_validate_json(later) == command.model_validate_json(body)


@each("events")
def test_an_event_is_a_valid_cloudevent(golden: Path) -> None:
    body = envelope.encode(envelope.decode(golden.read_bytes()))
    read = JSONFormat().read(None, body)
    assert read.get_specversion() == "1.0"
    assert read.get_type() == f"dev.waypost.{golden.stem}"
    assert read.get_datacontenttype() == "application/json"
    name, _, version = golden.stem.rpartition(".v")
    assert read.get_dataschema() == f"urn:waypost:event:{name}:v{version}"
    time = read.get_time()
    assert time is not None
    assert time.utcoffset() is not None
    assert isinstance(read.get_data(), dict)


@each("events")
def test_the_attributes_that_subscribers_rely_on_are_there(golden: Path) -> None:
    written = written_anew(golden)
    attributes = {name for name in written if name != "data"}
    instance = {"instanceid"} if "/instances/" in written["source"] else set()
    assert attributes == instance | {
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "tenantid",
        "partitionkey",
        "sequence",
        "traceparent",
        "correlationid",
    }
    # https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#naming-conventions
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in attributes)


@pytest.mark.parametrize("message", [*EVENTS.values(), *COMMANDS.values()])
def test_no_message_has_a_field_for_a_secret(message: type[Contract]) -> None:
    fields = set(_properties(message.model_json_schema(by_alias=False)))
    assert fields
    assert not {name for name in fields if SECRET_WORDS & set(name.rstrip("_").split("_"))}


def _properties(schema: Any) -> Iterator[str]:
    match schema:
        case dict():
            properties = schema.get("properties")
            if isinstance(properties, dict):
                yield from properties
            for inner in schema.values():
                yield from _properties(inner)
        case list():
            for inner in schema:
                yield from _properties(inner)
        case _:
            pass


@pytest.mark.parametrize("message", [*EVENTS.values(), *COMMANDS.values()])
def test_every_message_says_what_it_means(message: type[Contract]) -> None:
    assert message.__doc__


def test_a_message_cannot_be_changed_once_it_is_made() -> None:
    read = InstanceStatus.model_validate_json(
        b'{"status": "ready", "since": "2026-01-15T12:00:00Z"}'
    )
    with pytest.raises(ValidationError, match="frozen"):
        read.status = "failed"  # type: ignore[misc] # that is the point


def test_what_cannot_be_read_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ValidationError) as error:
        InstanceStatus.model_validate_json(b'{"status": "+12025550199"}')
    assert "2025550199" not in str(error.value)


# How the guard above judges changes, on an event of its own.


class Landed(Event):
    """As it was when its golden file was written."""

    TYPE: ClassVar[str] = "moon.landed"
    on_moon: str
    feet: int = 2


class LandedWithMore(Landed):
    """A field that may be left out was added."""

    flag: str | None = None


class LandedRenamed(Event):
    """A field has another name."""

    TYPE: ClassVar[str] = "moon.landed"
    on_moon: str
    legs: int = 2


class LandedWithDuties(Landed):
    """A field that may not be left out was added."""

    flag: str


class LandedOtherwise(Landed):
    """A field is of another type."""

    feet: str = Field("2", coerce_numbers_to_str=True)  # type: ignore[assignment] # the change


WRITTEN_THEN = b'{"on_moon": "1969-07-20", "feet": 2}'


def test_adding_an_optional_field_is_compatible() -> None:
    assert missing(orjson.loads(WRITTEN_THEN), rewritten(LandedWithMore, WRITTEN_THEN)) == []


def test_renaming_or_removing_a_field_is_not() -> None:
    assert missing(orjson.loads(WRITTEN_THEN), rewritten(LandedRenamed, WRITTEN_THEN)) == [".feet"]


def test_changing_the_type_of_a_field_is_not() -> None:
    lost = missing(orjson.loads(WRITTEN_THEN), rewritten(LandedOtherwise, WRITTEN_THEN))
    assert lost == [".feet: 2 became '2'"]


def test_adding_a_field_that_must_be_there_is_not() -> None:
    with pytest.raises(ValidationError, match="flag"):
        rewritten(LandedWithDuties, WRITTEN_THEN)


# Readers ignore what they do not know, and so would we ignore our own typing errors.

MISSPELT = """
from uuid import UUID
from shared.contracts.commands import ScanSandboxQr
from shared.contracts.events import Test

Test(message="Hello", massage="Hello")
ScanSandboxQr(instance_id=UUID(int=0), shard=1)
"""


def test_a_misspelt_field_is_ignored_when_it_runs() -> None:
    given: dict[str, Any] = {"instance_id": "018f3b2e-0000-7000-8000-000000000001", "shrad": 1}
    assert not hasattr(ScanSandboxQr(**given), "shrad")


def test_a_misspelt_field_is_found_by_the_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "misspelt.py"
    program.write_text(MISSPELT)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert 'Unexpected keyword argument "massage" for "Test"' in checked.stdout
    assert 'Unexpected keyword argument "shard" for "ScanSandboxQr"' in checked.stdout
