"""The end of a log, as the message of a failed service shows it."""

import json
from pathlib import Path

from services.launcher.processes.log_tail import tail


def test_events_are_shown_as_level_name_and_fields(tmp_path: Path) -> None:
    log = tmp_path / "learner.jsonl"
    event = {"time": 1.5, "level": "error", "service": "learner", "event": "bad_port", "port": 99999}
    log.write_text(json.dumps(event) + "\nplain text\n")
    assert tail(log) == "  error bad_port port=99999\n  plain text"


def test_a_traceback_keeps_its_lines(tmp_path: Path) -> None:
    log = tmp_path / "learner.jsonl"
    log.write_text(json.dumps({"event": "failed", "exception": "Traceback:\n  File x\nValueError: no"}))
    assert tail(log) == "  failed\n  Traceback:\n    File x\n  ValueError: no"


def test_only_the_last_lines_of_a_large_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "learner.jsonl"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, num_lines=2) == "  line 99998\n  line 99999"


def test_a_log_that_is_missing_or_empty_is_said_to_be(tmp_path: Path) -> None:
    log = tmp_path / "learner.jsonl"
    assert tail(log) == f"  (no log at {log})"
    log.touch()
    assert tail(log) == "  (the log is empty)"
