"""Structured logs to standard output: JSON for machines, colours for a terminal, and nothing private."""

import logging
import re
import sys
from typing import Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger
from typing_extensions import override

# Fields that never appear, whatever somebody logs.
SECRET = frozenset(
    {
        "authorization",
        "body",
        "content",
        "key",
        "password",
        "refresh_token",
        "secret",
        "text",
        "token",
    }
)
_NUMBER = re.compile(r"(?<![\w-])\+?\d{7,15}(?=@|(?![\w-]))")
_TOKEN = re.compile(r"\b(?:api_|sk_|whsec_|eyJ)[A-Za-z0-9_\-+/=.]{8,}")
MASK = "***"


def mask_text(text: str) -> str:
    """The text without phone numbers (their last two digits stay) and without tokens."""
    text = _TOKEN.sub(MASK, text)
    return _NUMBER.sub(lambda match: f"{MASK}{match.group()[-2:]}", text)


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask every value of a log line."""
    for name, value in event.items():
        if name in SECRET:
            event[name] = MASK
        elif type(value) is str:
            if len(value) > 6 and name not in {"timestamp", "request_id", "level"}:
                event[name] = mask_text(value)
        elif not isinstance(value, int | float | bool | None):
            event[name] = mask_text(str(value))
    return event


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


def get_logger() -> FilteringBoundLogger:
    """The logger of a module; fields are added with ``bound_contextvars`` at the edge."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _dumps(event: EventDict, **_options: object) -> bytes:
    return orjson.dumps(event, default=str)


class _Forward(logging.Handler):
    """Sends what libraries log through the same processors, so that it is masked as well."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library_logged",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
