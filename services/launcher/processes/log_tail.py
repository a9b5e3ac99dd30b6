"""The last lines of a service's log, in a form that a person can read."""

import json
from pathlib import Path

from services.launcher.display.durations import format_duration, format_progress

READ_BYTES = 64 * 1024
_HIDDEN_FIELDS = ("time", "timestamp", "level", "service", "event", "logger", "exception", "traceback")


def tail(path: Path, num_lines: int = 12) -> str:
    """At most the last `num_lines` lines of the log at `path`, indented, JSON events as `level event key=value`."""
    readable = "\n".join(_format_line(line) for line in _read_lines(path)[-num_lines:]) or "(the log is empty)"
    return "\n".join(f"  {line}" for line in readable.splitlines()[-2 * num_lines :])


def last_event(path: Path, begins: int = 0) -> str:
    """What the log's last event says; empty where nothing is logged from byte `begins` on."""
    if not path.exists() or path.stat().st_size <= begins:
        return ""
    line = _read_lines(path)[-1:]
    try:
        event = json.loads("".join(line))
    except ValueError:
        return ""  # a part of a line, or what no service of ours wrote
    if not isinstance(event, dict) or "event" not in event:
        return ""
    what = str(event.get("what") or event["event"]).replace("_", " ")
    if isinstance(done := event.get("done"), int | float):
        total = event.get("total")
        what += f", {format_progress(done, total if isinstance(total, int | float) else None, event.get('unit', ''))}"
    if isinstance(left := event.get("seconds_left"), int | float):
        what += f", about {format_duration(left)} left"
    return what


def read_refusal(path: Path) -> str:
    """Why the service refused to start, or to go on, if its log ends with that; else empty."""
    last = _read_lines(path)[-1:]
    try:
        event = json.loads("".join(last))
    except ValueError:
        return ""
    is_refusal = isinstance(event, dict) and event.get("event") in ("cannot_start", "run_failed")
    return str(event.get("error", "")) if is_refusal else ""


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - READ_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return [f"(no log at {path})"]


def _format_line(line: str) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict):
        return line
    head = f"{event.get('level', '')} {event.get('event', '')}".strip()
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in _HIDDEN_FIELDS)
    trace = str(event.get("exception") or event.get("traceback") or "").rstrip()
    return "\n".join(part for part in (f"{head} {fields}".rstrip(), trace) if part)
