"""Structured logs on standard output: JSON for machines, colours for people, nothing private."""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger
from typing_extensions import override

from shared.errors import PlatformError

# Fields that never appear, whatever somebody logs.
SECRET = frozenset(
    {
        "access_token",
        "api_key",
        "authorization",
        "body",
        "content",
        "cookie",
        "jwt_secret",
        "key",
        "password",
        "refresh_token",
        "secret",
        "text",
        "token",
        "x_api_key",
    }
)
_DIGITS = re.compile(r"\d{7}")
# Seven to fifteen digits that are no part of a word or of a UUID. In the id of an old group its
# maker's number comes before a hyphen; in a URL a plus sign may be escaped.
_NUMBER = re.compile(r"(?:(?<![\w-])|(?<=%2[Bb]))\+?\d{7,15}(?=@|-\d{8,11}@|(?![\w-]))")
# Some words begin with api_ as well, but none has so much behind it.
_TOKEN = re.compile(r"\b(?:api_[\w-]{20,}|(?:sk_|rt_|inv_|whsec_|eyJ)[\w\-+/=.]{8,})")
_CREDENTIAL = re.compile(r"(://)[^\s/:@]*:[^\s/@]+(?=@)|(\b(?:Bearer|Basic) )[^\s'\"]{8,}")
MASK = "***"

# What the interpreter says of them names what the code does, and no value of anybody's.
_OF_CODE: Final = frozenset(
    {
        AttributeError,
        ImportError,
        IndexError,
        MemoryError,
        ModuleNotFoundError,
        NameError,
        NotImplementedError,
        RecursionError,
        TypeError,
        UnboundLocalError,
        ZeroDivisionError,
    }
)
# By what PostgreSQL's errors say where they are from; its sentences repeat rows.
_OF_POSTGRESQL: Final = ("sqlstate", "schema_name", "table_name", "column_name", "constraint_name")


def mask_text(text: str) -> str:
    """The text without phone numbers (their last two digits stay) and without tokens."""
    text = _TOKEN.sub(MASK, text)
    if "://" in text or "Bearer " in text or "Basic " in text:
        text = _CREDENTIAL.sub(lambda match: f"{match[1] or match[2]}{MASK}", text)
    if _DIGITS.search(text) is None:
        return text
    return _NUMBER.sub(lambda match: f"{MASK}{match[0][-2:]}", text)


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask every value of a log line."""
    for name, value in event.items():
        if name in SECRET:
            event[name] = MASK
        elif type(value) is str:
            if len(value) > 6 and name not in {"timestamp", "request_id", "level"}:
                event[name] = mask_text(value)
        elif not isinstance(value, int | float | bool | None):
            event[name] = mask_text(str(_without_secrets(value)))
    return event


def _without_secrets(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            name: MASK if _is_secret(str(name)) else _without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets(inner) for inner in value]
    return value


def _is_secret(name: str) -> bool:
    return name.lower().replace("-", "_") in SECRET


def said_of(error: BaseException) -> str:
    """What may be told of an error: its type, and its words if those are ours or say no value.

    Words of others repeat what they could not deal with: a row, a body, a text that is no number.
    """
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, PlatformError | OSError) or type(error) in _OF_CODE:
        return f"{name}: {mask_text(str(error))}" if str(error) else name
    places = [str(place) for at in _OF_POSTGRESQL if (place := getattr(error, at, None))]
    return f"{name} ({', '.join(places)})" if places else name


def _trace(error: BaseException, seen: frozenset[int] = frozenset()) -> str:
    """A traceback without what was said: where it happened, in which line, and of which type."""
    if id(error) in seen:
        return said_of(error)
    seen |= {id(error)}
    told = ""
    before = error.__cause__
    if before is None and not error.__suppress_context__:
        before = error.__context__
    if before is not None:
        how = "directly caused" if error.__cause__ is not None else "was being handled before"
        told = f"{_trace(before, seen)}\n\nThis {how}:\n\n"
    if error.__traceback__ is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        told += f"Traceback (most recent call last):\n{frames}"
    told += said_of(error)
    if isinstance(error, BaseExceptionGroup):
        told += "".join(f"\n\nOne of them:\n\n{_trace(one, seen)}" for one in error.exceptions)
    return told


def tell_failure(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the traceback that belongs to a line into it."""
    failure = event.pop("exc_info", None)
    if failure is True:
        failure = sys.exc_info()
    if isinstance(failure, tuple):
        failure = failure[1]
    if isinstance(failure, BaseException):
        event["exception"] = _trace(failure)
    return event


def configure(*, level: str = "INFO", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Set up logging for the whole process, other libraries' included."""
    console = style == "console" or (style == "auto" and sys.stdout.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        tell_failure,
        mask,
    ]
    if console:
        renderer: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer()]
        factory: object = structlog.PrintLoggerFactory()
    else:
        renderer = [structlog.processors.JSONRenderer(serializer=_dumps)]
        factory = structlog.BytesLoggerFactory(sys.stdout.buffer)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=cast("structlog.typing.WrappedLogger", factory),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(number, logging.WARNING), handlers=[_Forward()], force=True, format="%(message)s"
    )
    sys.excepthook = _process_failed
    threading.excepthook = _thread_failed
    sys.unraisablehook = _nobody_asked
    for chatty in ("aio_pika", "aiormq"):
        # They log every failed attempt to connect as an error, traceback included; we log it once.
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


def get_logger() -> FilteringBoundLogger:
    """The logger of a module; fields are added with ``bound_contextvars`` at the edge."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _dumps(event: EventDict, **_options: object) -> bytes:
    return orjson.dumps(event, default=str)


def _process_failed(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """What ends the process goes where everything goes, or it would be printed unmasked."""
    if not issubclass(kind, Exception):  # somebody pressed Ctrl+C
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger().critical("process_failed", exc_info=(kind, error, traceback))


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error("thread_failed", exc_info=failed.exc_value)


def _nobody_asked(failed: "sys.UnraisableHookArgs") -> None:
    """What goes wrong where nobody can be told, as when something is tidied away."""
    structlog.get_logger().error("failed_unheard", exc_info=failed.exc_value)


class _Forward(logging.Handler):
    """Sends what libraries log through the same processors, so that it is masked as well."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # its arguments do not fit its format
            message = str(record.msg)
        structlog.get_logger().log(
            # There are levels in between, and structlog knows none of them.
            min(record.levelno // 10 * 10, logging.CRITICAL),
            "library_logged",
            library=record.name,
            # Behind the first line asyncio shows objects, and what they hold.
            message=message.partition("\n")[0],
            exc_info=record.exc_info,
        )
