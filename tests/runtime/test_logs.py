"""Each event is one line, and no line holds a secret."""

import importlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.demo.task import checkpoint_directory
from services.launcher.processes.log_tail import tail
from services.launcher.settings.plan import SECTIONS
from shared.runtime.config import load_config
from shared.runtime.logs import JsonFormatter, TextFormatter, configure_logs, event_logger

log = event_logger("tests.logs")


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logger = logging.getLogger("tests.logs")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("rollout", ("s3cret-token",)))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)


def lines_of(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_its_fields(output: io.StringIO) -> None:
    log.info("tree_grown", seconds=1.5, leaves=12)
    [line] = lines_of(output)
    assert line.pop("time")
    assert line == {
        "level": "info",
        "service": "rollout",
        "logger": "tests.logs",
        "event": "tree_grown",
        "seconds": 1.5,
        "leaves": 12,
    }


def test_a_field_never_overwrites_what_the_line_itself_says(output: io.StringIO) -> None:
    log.warning("odd", level=7, time="then")
    [line] = lines_of(output)
    assert (line["level"], line["level_"], line["time_"]) == ("warning", 7, "then")


def test_a_traceback_stays_on_the_line(output: io.StringIO) -> None:
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        log.exception("failed", error="x")
    [line] = lines_of(output)
    assert "RuntimeError: first\nsecond" in str(line["traceback"])


@pytest.mark.parametrize(
    "text",
    [
        "http://x/?t=s3cret-token",
        "redis://:s3cret-word@10.0.0.1:6379/0",
        "rediss://user:s3cret-word@redis/0",
        "Authorization: Bearer s3cret-word",
        "{'authorization': 'bearer s3cret-word'}",
    ],
)
def test_no_line_holds_a_secret(output: io.StringIO, text: str) -> None:
    log.error("failed", what=text, token="s3cret-word", Authorization="s3cret-word")
    assert "s3cret" not in output.getvalue()
    assert "***" in output.getvalue()


@pytest.mark.parametrize("formatter", [JsonFormatter, TextFormatter])
@pytest.mark.parametrize(
    "secret", ['qu"ote', "apo'strophe", "bo'th\"", "back\\slash", "schlüssel", "a/b+c d=", "plain"]
)
def test_a_secret_of_any_letters_is_blanked_however_it_is_quoted(secret: str, formatter: type[JsonFormatter]) -> None:
    quoted = [secret, repr(secret), ascii(secret), json.dumps(secret), repr(secret.encode()), quote(secret, safe="")]
    fields = {"given": quoted, "named": {secret: 1}, "error": repr(ValueError(f"no: {secret}")), "long": secret * 2000}
    record = logging.makeLogRecord({"msg": f"with {secret}", "fields": fields})
    text = formatter("x", (secret,)).format(record)
    assert not any(spelled.strip("b'\"") in text for spelled in quoted)


def test_a_redis_password_with_reserved_letters_is_blanked(output: io.StringIO) -> None:
    log.error("failed", what='redis://:12/s3cret?"x=@host:6380/0 is away', urls=["redis://u:s3cret#@h/1"])
    assert "s3cret" not in output.getvalue()


VALUES = st.recursive(
    st.none() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_whatever_the_fields_a_line_is_strict_json(fields: dict[str, object]) -> None:
    record = logging.makeLogRecord({"msg": "event", "fields": fields})
    text = JsonFormatter("x").format(record)
    assert "\n" not in text

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)


def test_a_long_field_is_cut(output: io.StringIO) -> None:
    log.info("long", text="x" * 100_000)
    assert len(output.getvalue()) < 6_000


def test_people_get_short_text() -> None:
    record = logging.makeLogRecord({"msg": "tree_grown", "levelname": "INFO", "fields": {"leaves": 12}})
    assert TextFormatter("rollout").format(record).endswith("info    rollout tree_grown leaves=12")


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_configuring_sends_every_logger_through_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("verifier", "info", secrets=["s3cret", None])
    logging.getLogger("somebody.else").warning("plain %s", "s3cret")
    logging.getLogger("httpx").info("GET http://x")
    log.info("ours")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["plain ***", "ours"]


@pytest.mark.usefixtures("root_logger")
def test_text_holds_no_secret_and_colours_only_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs("verifier", log_json=False, secrets=["s3cret"])
    log.error("failed", what="s3cret", token="word")
    assert capsys.readouterr().err[9:] == "error   verifier failed what=*** token=***\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logs("verifier", log_json=False)
    log.error("failed")
    assert "\x1b[31merror  \x1b[0m verifier failed" in capsys.readouterr().err


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("service", ["learner", "rollout", "verifier"])
@pytest.mark.parametrize("log_json", [True, False])
def test_log_json_says_how_every_service_logs(
    service: str, log_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wiring = importlib.import_module(f"services.{service}.wiring")
    for part in ("run_on_rank0",) if service == "learner" else ("build", "serve"):
        monkeypatch.setattr(wiring, part, lambda *_, **__: log.info("started"))
    model = checkpoint_directory()
    needed = [f"model={model}", "data=d", "sampler=ib", "total_steps=1"] if service == "learner" else []
    given = [*needed, f"log_json={str(log_json).lower()}"]
    wiring.main(load_config(SECTIONS[service], service, None, given))
    path = tmp_path / "log"
    path.write_text(capsys.readouterr().err)
    assert path.read_text().startswith("{") is log_json
    assert tail(path, num_lines=1).endswith(f"{service} started" if not log_json else "info started")


def test_a_crash_in_c_code_says_where_it_was() -> None:
    crash = "import ctypes, shared.runtime.logs as logs\nlogs.configure_logs('rollout')\nctypes.string_at(0)"
    done = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, timeout=60, check=False)
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert 'File "<string>", line 3' in done.stderr
