"""Logs as events: one line each, JSON for machines or short text for people, with secrets blanked."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite

_MAX_TEXT = 4000
_SECRET_FIELDS = frozenset({"token", "authorization", "password", "secret"})
_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*):[^\s/@]+@")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[^\s\"',]+")


class EventLogger:
    """Logs events by name, with fields; the level tells how much they matter."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """What only a developer asks for."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happened, in the normal course."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What went wrong and is being ridden out."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What went wrong and needs a person."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, fields, with_traceback=True)

    def _log(self, level: int, event: str, fields: dict[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=with_traceback)


def event_logger(name: str) -> EventLogger:
    """The logger of one module: `log = event_logger(__name__)`."""
    return EventLogger(name)


def configure_logs(service: str, level: str = "info", json: bool = True, secrets: Sequence[str] = ()) -> None:
    """Sends every log line of this process to standard error, in one form; `secrets` never appear in it."""
    handler = logging.StreamHandler(sys.stderr)
    form = JsonFormatter if json else TextFormatter
    handler.setFormatter(form(service, tuple(secret for secret in secrets if secret)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, event, then the event's fields."""

    def __init__(self, service: str, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._service = service
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            line[f"{name}_" if name in line else name] = _plain(value)
        return blank_secrets(json.dumps(line, default=_text, ensure_ascii=False), self._secrets)


class TextFormatter(logging.Formatter):
    """`12:00:01 info rollout event_name key=value …`, for a terminal."""

    def __init__(self, service: str, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._service = service
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record; a traceback follows on lines of its own."""
        fields = fields_of(record)
        trace = fields.pop("traceback", None)
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        told = "".join(f" {name}={_plain(value)}" for name, value in fields.items())
        line = f"{clock} {record.levelname.lower():7} {self._service} {record.getMessage()}{told}"
        return blank_secrets(line if trace is None else f"{line}\n{trace}", self._secrets)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """An event's fields, with secret ones blanked and the traceback, where there is one."""
    given = getattr(record, "fields", None)
    fields = dict(given) if isinstance(given, dict) else {}
    for name in fields:
        if name.lower() in _SECRET_FIELDS:
            fields[name] = "***"
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
    return fields


def blank_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without the given secrets, without passwords in URLs and without bearer tokens."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _BEARER.sub(r"\1 ***", _PASSWORD_IN_URL.sub(r"\1:***@", text))


def _plain(value: object) -> object:
    """A value as JSON can hold it, bounded."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return _text(value)


def _text(value: object) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
