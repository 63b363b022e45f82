"""Structured logs on standard output: JSON for machines, colours for people, nothing private."""

import logging
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger
from typing_extensions import override

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


def configure(*, level: str = "INFO", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Set up logging for the whole process, other libraries' included."""
    console = style == "console" or (style == "auto" and sys.stdout.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
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


class _Forward(logging.Handler):
    """Sends what libraries log through the same processors, so that it is masked as well."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # its arguments do not fit its format
            message = f"{record.msg} {record.args}"
        structlog.get_logger().log(
            # There are levels in between, and structlog knows none of them.
            min(record.levelno // 10 * 10, logging.CRITICAL),
            "library_logged",
            library=record.name,
            message=message,
            exc_info=record.exc_info,
        )
