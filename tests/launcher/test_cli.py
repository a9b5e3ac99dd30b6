"""The `ibtpo` command."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from services.launcher.settings.plan import SECTIONS
from shared.runtime.config import walk_keys
from tests.launcher.conftest import Command

COMMANDS = (
    *("demo", "train", "status", "stop", "rollout", "verifier", "learner"),
    *("grow", "show", "verify", "eval", "presets", "config"),
)


def modules_of(*arguments: str) -> set[str]:
    """What the command, as a process, has loaded when it has ended."""
    program = (
        "import json, sys\nfrom services.launcher.cli import main\nsys.argv = ['ibtpo', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_a_name_is_text_in_every_locale() -> None:
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from services.launcher.cli import main; main()", "config", "key ü"]
    done = subprocess.run(command, env=locale, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"key ?" in done.stderr
    assert b"key ??" not in done.stderr


def test_a_directory_that_cannot_be_written_is_named(ibtpo: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no directory")
    done = ibtpo("demo", "--runs", str(tmp_path / "runs"))
    assert str(done.code).startswith("ibtpo: [Errno ")
    assert str(tmp_path / "runs") in str(done.code)


def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    program = "import os\nfrom ibtpo.__main__ import main\nos.rmdir(os.getcwd())\nmain()"
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=gone, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == "ibtpo: the directory in which this shell stands is gone: change to another one\n"
    assert done.returncode == 1


def test_the_help_names_every_command(ibtpo: Command) -> None:
    done = ibtpo("--help")
    assert done.code == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(ibtpo: Command, command: str) -> None:
    done = ibtpo(command, "--help")
    assert done.code == 0
    assert f"• ibtpo {command}" in done.stdout or f"ibtpo {command}" in done.stdout.partition("Usage")[2]


def test_the_verifier_loads_neither_torch_nor_redis_nor_what_the_launcher_needs() -> None:
    loaded = modules_of("verifier", "host=0.0.0.0")  # refused without a token, once it is built
    assert {"fastapi", "uvicorn"} <= loaded
    assert not loaded & {"torch", "redis", "transformers", "matplotlib", "numpy"}


def test_the_launcher_loads_no_torch() -> None:
    assert not modules_of("train", "nonsense=1") & {"torch", "transformers"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "samplr=ib"), 2, "unknown key samplr; did you mean sampler"),
        (("train", "--config", "demmo"), 2, "no preset 'demmo'; did you mean demo"),
        (("train", "--config", ""), 2, "no preset ''"),
        (("train", "data=mine.jsonl"), 2, "the task is demo, which has its own: take a method for yours"),
        (("train", "--config", "grpo", "data=m.jsonl", "learner.model=m"), 2, "learner: say when the run ends: total_"),
        (("train", "--resume", "--fresh"), 2, "contradict"),
        (("train", "batch_size=0"), 2, "learner.batch_size = 0: input should be greater than 0"),
        (("verifier", "port=-1"), 2, "verifier.port = -1"),
        (("learner", "batch_size=3"), 2, "learner.model is missing"),
        (("grow", "2+3=", "rollout.plugin_seconds=3"), 2, "this command takes settings of how trees grow"),
        (("demo", "--run", "a/b"), 2, "a run is named with letters, digits, '-', '_' and '.'"),
        (("train", "--run", "mine", "--resume"), 2, "there is no run 'mine' in runs/ to resume: leave out --resume"),
        (("stop", "mine"), 2, "there is no run 'mine' under runs/; there are: none"),
        (("show", "--tree", "1"), 2, "there is no run under runs/ yet: `ibtpo demo` makes one"),
        (("report",), 2, "there is no run under runs/ yet"),
        (("verify", "an answer"), 2, "give an answer and --answer, or both --input and --output"),
        (("verify", "5", "--answer", "5", "--url", "http://127.0.0.1:9"), 1, "cannot be reached"),
        (("config", "--config", "nowhere.toml"), 2, "cannot read the preset 'nowhere.toml'"),
        (("show", "nowhere"), 2, "there is no run 'nowhere' under runs/; there are: none"),
        (("status",), 2, "there is no run under runs/ yet: `ibtpo demo` makes one"),
        (("eval", "--model", "nowhere"), 2, "nowhere is no model directory: there is none; give one"),
        (("eval", "--data", "nowhere.jsonl"), 2, "cannot read nowhere.jsonl: No such file or directory"),
        (("eval", "--max-tokens", "500"), 2, "an answer of 500 exceed the policy's context of 256"),
        (("grow", "2+3*4=", "max_tokens=0"), 2, "growth.max_tokens = 0"),
        (("grow",), 2, "give a problem, or --data FILE with problems"),
        (("grow", "--data", "nowhere.jsonl"), 2, "cannot read nowhere.jsonl"),
        (("grow", "--data", os.devnull, "--row", "2"), 2, "has no problem 2: --row counts them from 1"),
        (("grow", "2+3*4=", "--chat"), 2, "no chat template; give text"),
        (("grow", "2+3*4=", "seed=x"), 2, "learner.seed = 'x': input should be a valid integer"),
        (("config", "batch"), 2, "batch was renamed to learner.batch_size: `ibtpo config learner.batch_size` explains"),
        (("config", "local.rollouts"), 2, "local.rollouts was renamed to launcher.replicas"),
        (("grow", "2 plus 3"), 2, "not an expression: '2 plus 3'; write single digits joined by + - *"),
        (("grow", "hello", "--url", "http://127.0.0.1:9", "--answer", "1"), 1, "cannot be reached"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(
    ibtpo: Command,
    arguments: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ibtpo(*arguments)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.code == code
    assert not (tmp_path / "runs").exists()


def test_a_preset_with_settings_is_shown_as_a_file_that_can_be_used(ibtpo: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(ibtpo("config", "--config", "demo", "sampler=random").stdout)
    done = ibtpo("config", "--config", str(tmp_path / "mine.toml"))
    assert 'kind = "random"' in done.stdout


def test_the_version_is_that_of_the_package(ibtpo: Command) -> None:
    assert ibtpo("--version").stdout == f"ibtpo {version('ibtpo')}\n"


def test_one_setting_is_explained_by_its_short_name(ibtpo: Command) -> None:
    done = ibtpo("config", "lr")
    assert "learner.optimizer.lr" in done.stdout
    assert len(done.stdout.splitlines()) < 5


def test_every_setting_is_explained(ibtpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    done = ibtpo("config")
    for section, model in SECTIONS.items():
        assert all(key.description in done.stdout for key in walk_keys(section, model))
    for setting in (
        "learner.growth.sampler",
        "rollout.max_running_requests",
        "verifier.math.workers",
        "launcher.replicas",
    ):
        assert setting in done.stdout


@pytest.mark.parametrize("given", [("--answer", "3"), ("--chat",)])
def test_what_a_row_of_a_file_says_itself_is_not_given_again(ibtpo: Command, given: tuple[str, ...]) -> None:
    done = ibtpo("grow", "--data", "rows.jsonl", *given)
    assert done.code == 2
    assert "has its own answer and messages" in " ".join(done.stderr.replace("│", " ").split())
