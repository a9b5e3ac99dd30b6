"""Logs as events: one line each, JSON for machines or short text for people, with secrets blanked.

Not structlog: it imports rich, which adds a third to the time that a service takes to import its server.
"""

import faulthandler
import json
import logging
import re
import sys
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from math import isfinite
from urllib.parse import quote, quote_plus

_MAX_CHARACTERS = 4000
_STANDARD_ERROR = 2
_COLORS = {logging.DEBUG: 2, logging.INFO: 32, logging.WARNING: 33, logging.ERROR: 31}
_SECRET_FIELDS = frozenset({"token", "authorization", "password", "secret"})
# up to the last "@": a password may hold "/", "?" or quotes where nobody percent-encoded it
_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*):\S+@")
_BEARER = re.compile(r"(?i)\b(bearer)\s+\S+")


class EventLogger:
    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """Of use to a developer alone."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Something normal happened."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something failed, and the service goes on by itself."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed that needs a person."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, fields, with_traceback=True)

    def _log(self, level: int, event: str, fields: dict[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=with_traceback)


def event_logger(name: str) -> EventLogger:
    """The logger of one module: `log = event_logger(__name__)`."""
    return EventLogger(name)


def configure_logs(
    service: str, level: str = "info", *, log_json: bool = True, secrets: Iterable[str | None] = ()
) -> None:
    """Sends all logs of this process to standard error: JSON lines, or text (in colour on a terminal).

    `secrets` are blanked in every line. A crash in C code says there, in plain lines, where each thread was.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(_STANDARD_ERROR)
    handler = logging.StreamHandler(sys.stderr)
    given = tuple(secret for secret in secrets if secret)
    colored = sys.stderr.isatty()
    handler.setFormatter(JsonFormatter(service, given) if log_json else TextFormatter(service, given, colored=colored))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, event, then the event's fields."""

    def __init__(self, service: str, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._service = service
        self._secrets = spellings(secrets)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": blank_secrets(record.getMessage(), self._secrets),
        }
        for name, value in _fields_of(record, self._secrets).items():
            line[f"{name}_" if name in line else name] = value
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:01 info rollout event_name key=value …`, for a terminal."""

    def __init__(self, service: str, secrets: tuple[str, ...] = (), *, colored: bool = False) -> None:
        super().__init__()
        self._service = service
        self._secrets = spellings(secrets)
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record; a traceback follows on lines of its own."""
        fields = _fields_of(record, self._secrets)
        trace = fields.pop("traceback", None)
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = f"{record.levelname.lower():7}"
        if self._colored:
            level = f"\x1b[{_COLORS.get(record.levelno, 0)}m{level}\x1b[0m"
        pairs = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{clock} {level} {self._service} {blank_secrets(record.getMessage(), self._secrets)}{pairs}"
        return line if trace is None else f"{line}\n{trace}"


def _fields_of(record: logging.LogRecord, secrets: tuple[str, ...]) -> dict[str, object]:
    """An event's fields as JSON can hold them, with secrets blanked, and its traceback where it has one."""
    given = getattr(record, "fields", None)
    fields = dict(given) if isinstance(given, dict) else {}
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
    return {
        name: "***" if name.lower() in _SECRET_FIELDS else _to_json(value, secrets) for name, value in fields.items()
    }


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets as they are and as texts quote them: in reprs, in JSON, in URLs and as bytes. The longest first."""
    found: set[str] = set()
    for secret in secrets:
        found |= {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
        found |= {repr(secret)[1:-1], ascii(secret)[1:-1], repr(secret.encode())[2:-1], repr(f"{secret}'\"")[1:-4]}
        found |= {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    return tuple(sorted(filter(None, found), key=len, reverse=True))


def blank_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without the given secrets, without passwords in URLs and without bearer tokens."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _BEARER.sub(r"\1 ***", _PASSWORD_IN_URL.sub(r"\1:***@", text))


def _to_json(value: object, secrets: tuple[str, ...]) -> object:
    """A value that JSON can hold, cut where it is long. Secrets are blanked here, before anything quotes them."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {_to_text(key, secrets): _to_json(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_json(item, secrets) for item in value]
    return _to_text(value, secrets)


def _to_text(value: object, secrets: tuple[str, ...]) -> str:
    text = blank_secrets(str(value).encode("utf-8", "backslashreplace").decode(), secrets)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}… ({len(text)} characters)"
