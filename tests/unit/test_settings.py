"""Settings: every problem at once, in the operator's words, and nothing secret in what is said."""

from collections.abc import Callable

import pytest
from pydantic import AliasChoices, Field

from shared import settings
from shared.settings import ServiceSettings

DATABASE = "postgresql://someone:hunter2@db.example:5432/waypost"
BROKER = "amqp://someone:hunter2@mq.example:5672/"


class ExampleSettings(ServiceSettings):
    """Those of a service."""

    port: int = Field(8081, le=65535, validation_alias=AliasChoices("port", "WAYPOST_EXAMPLE_PORT"))
    secret: str = Field("", repr=False)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables; at first there are none that a service would read."""
    for name in ("DATABASE_URL", "AMQP_URL", "WAYPOST_LOG_LEVEL", "WAYPOST_EXAMPLE_PORT"):
        monkeypatch.delenv(name, raising=False)

    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Reads settings that are wrong and gives the lines that are said about them."""

    def refused() -> list[str]:
        with pytest.raises(SystemExit) as exit_:
            settings.read(ExampleSettings)
        assert exit_.value.code == 2
        told = capsys.readouterr()
        assert told.out == ""
        return [line.strip() for line in told.err.splitlines()]

    return refused


Environment = Callable[..., None]
Complaint = Callable[[], list[str]]


def test_settings_come_from_the_environment(environment: Environment) -> None:
    environment(DATABASE_URL=DATABASE, AMQP_URL=BROKER, WAYPOST_EXAMPLE_PORT="9000")
    chosen = settings.read(ExampleSettings)
    assert chosen.database_url.get_secret_value() == DATABASE
    assert (chosen.port, chosen.log_level, chosen.drain_grace) == (9000, "INFO", 0.0)


def test_what_is_given_in_the_program_wins_over_the_environment(environment: Environment) -> None:
    environment(DATABASE_URL=DATABASE, AMQP_URL=BROKER, WAYPOST_EXAMPLE_PORT="9000")
    assert settings.read(ExampleSettings, port=0).port == 0


def test_variables_of_other_programs_are_not_read(environment: Environment) -> None:
    environment(DATABASE_URL=DATABASE, AMQP_URL=BROKER, PORT="1", SECRET="x", LOG_LEVEL="DEBUG")
    chosen = settings.read(ExampleSettings)
    assert (chosen.port, chosen.log_level) == (8081, "INFO")


def test_all_problems_are_told_together_by_the_names_that_operators_know(
    environment: Environment, complaint: Complaint
) -> None:
    environment(AMQP_URL=BROKER, WAYPOST_LOG_LEVEL="LOUD", WAYPOST_EXAMPLE_PORT="99999")
    title, *problems = complaint()
    assert title == "Waypost cannot start:"
    assert [problem.partition(":")[0] for problem in problems] == [
        "DATABASE_URL",
        "WAYPOST_LOG_LEVEL",
        "WAYPOST_EXAMPLE_PORT",
    ]
    assert problems[0] == "DATABASE_URL: Field required"


def test_a_variable_that_is_set_to_nothing_is_not_set(
    environment: Environment, complaint: Complaint
) -> None:
    environment(DATABASE_URL="", AMQP_URL=BROKER, WAYPOST_EXAMPLE_PORT="")
    assert complaint()[1:] == ["DATABASE_URL: Field required"]


@pytest.mark.parametrize("url", ["db.example:5432", "mysql://db.example/waypost", "postgresql"])
def test_an_address_of_something_else_is_refused_at_start(
    environment: Environment, complaint: Complaint, url: str
) -> None:
    environment(DATABASE_URL=url, AMQP_URL=BROKER)
    assert complaint()[1:] == ["DATABASE_URL: Value error, must start with postgresql://"]


@pytest.mark.parametrize(
    "url",
    [
        DATABASE,
        "postgres://db.example/waypost",
        "postgresql+asyncpg://db.example/waypost",
        "postgresql://postgres@/postgres?host=/run/postgresql&port=5432",
    ],
)
def test_every_way_to_write_an_address_of_postgresql_is_taken(
    environment: Environment, url: str
) -> None:
    environment(DATABASE_URL=url, AMQP_URL=BROKER)
    assert settings.read(ExampleSettings).database_url.get_secret_value() == url


def test_a_broken_secret_is_not_repeated_in_the_complaint(
    environment: Environment, complaint: Complaint
) -> None:
    environment(DATABASE_URL="mysql://someone:hunter2@db.example/", AMQP_URL=BROKER)
    assert "hunter2" not in " ".join(complaint())


def test_secrets_do_not_show_when_settings_are_printed(environment: Environment) -> None:
    environment(DATABASE_URL=DATABASE, AMQP_URL=BROKER)
    assert "hunter2" not in repr(settings.read(ExampleSettings))


def test_settings_cannot_be_changed_later(environment: Environment) -> None:
    environment(DATABASE_URL=DATABASE, AMQP_URL=BROKER)
    chosen = settings.read(ExampleSettings)
    with pytest.raises(ValueError, match="frozen"):
        chosen.port = 1  # type: ignore[misc] # that is the point


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in ServiceSettings.model_fields.values())
