"""The tutorials' files and commands, run as their reader runs them, at small sizes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.shell import ROOT, commands

TUTORIALS = ROOT / "docs" / "tutorials"
CHECKPOINT = ROOT / "services" / "demo" / "checkpoint"
_NAMED = re.compile(r"^```(?:python|toml)\n# ([\w./]+\.(?:py|toml))\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = "total_steps=1 batch_size=2 objective.ties=keep evaluation.problems=4 evaluation.k=2"

pytestmark = pytest.mark.timeout(400)


def write_files(page: str, folder: Path) -> None:
    """The page's code blocks whose first line names a file, in that file."""
    for name, text in _NAMED.findall((TUTORIALS / page).read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def command_of(page: str, start: str) -> str:
    """The first command of the page that begins like this."""
    found = (shlex.join(command.words) for command in commands(TUTORIALS / page))
    return next(command for command in found if command.startswith(start))


def run(command: str, folder: Path, beside: Path | None = None) -> str:
    """What it prints; it may fail in no way. Packages `beside` are found, too."""
    _, *words = shlex.split(command) if command.startswith("ibtpo") else ["", *shlex.split(command)]
    program = [sys.executable, "-m", "ibtpo"] if command.startswith("ibtpo") else []
    program = [sys.executable if word == "python" else word for word in [*program, *words]]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, beside)))),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_tables_and_rows_of_the_data_tutorial_are_problems(tmp_path: Path) -> None:
    write_files("own-data-and-model.md", tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model").symlink_to(CHECKPOINT)
    run("python table.py", tmp_path)
    page = "own-data-and-model.md"
    run(command_of(page, "ibtpo data import held_out.csv"), tmp_path)
    said = run(command_of(page, "ibtpo data import sums.csv"), tmp_path)
    assert "the same problem came before" in said
    assert (tmp_path / "table.jsonl").exists()


@pytest.mark.drill
def test_a_model_is_trained_on_rows_of_ones_own_and_reported(tmp_path: Path) -> None:
    page = "own-data-and-model.md"
    write_files(page, tmp_path)
    run("python rows.py", tmp_path)
    # the demo's model stands for the real one: it has no template, so its prompts are texts
    for name in ("problems.jsonl", "held_out.jsonl"):
        file = tmp_path / name
        file.write_text(
            re.sub(r'"prompt": \[.*\]', '"prompt": "2+3="', file.read_text(encoding="utf-8")), encoding="utf-8"
        )
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join(lines[:8]) + "\n", encoding="utf-8")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model").symlink_to(CHECKPOINT)
    train = command_of(page, "ibtpo train")
    assert "total_steps=4" in train
    run(f"{train} --plain {SMALL} growth.max_tokens=24 launcher.replicas=1", tmp_path)
    run(command_of(page, "ibtpo report sums"), tmp_path)
    assert (tmp_path / "runs" / "sums" / "report.html").exists()
    assert (tmp_path / "runs" / "sums" / "policy" / "config.json").exists()


@pytest.mark.drill
def test_a_reward_of_ones_own_trains(tmp_path: Path) -> None:
    page = "own-reward.md"
    write_files(page, tmp_path)
    (tmp_path / "services" / "demo").mkdir(parents=True)
    (tmp_path / "services" / "demo" / "checkpoint").symlink_to(CHECKPOINT)
    run("python rows.py", tmp_path)
    run(f"{command_of(page, 'ibtpo train')} --plain {SMALL} launcher.replicas=1", tmp_path)
    assert "brief" in run("ibtpo show brief", tmp_path)


def test_what_the_reward_tutorial_pays(tmp_path: Path) -> None:
    write_files("own-reward.md", tmp_path)
    code: dict[str, object] = {}
    exec((tmp_path / "my_rewards" / "brief.py").read_text(encoding="utf-8"), code)
    brief = code["brief"]
    assert callable(brief)
    key = {"gold": "3"}
    paid = [brief(text, key) for text in ("\\boxed{3}", "1+2\n\n1+2\n\n3\n\n\\boxed{3}", "\\boxed{4}", "")]
    assert paid == [1.0, 0.5, 0.0, 0.0]
    assert brief("\\boxed{3}", {}) is None


@pytest.mark.drill
def test_a_sampler_of_ones_own_grows_a_tree(tmp_path: Path) -> None:
    said = run(command_of("own-sampler.md", "ibtpo grow"), tmp_path)
    assert "examples.own_sampler:VarianceSampler tree of 10 answers" in said


@pytest.mark.drill
def test_parts_of_ones_own_train_in_all_services(tmp_path: Path) -> None:
    """In a directory that is no checkout: two replicas, the learner and their processes find the package there."""
    shutil.copytree(ROOT / "examples", tmp_path / "my_parts", ignore=shutil.ignore_patterns("__pycache__"))
    parts = "sampler=my_parts.own_sampler:VarianceSampler sampler.rounds=4 advantage=my_parts.own_credit:MedianCredit"
    values = "method.values=my_parts.own_values:LaplaceValues"
    term = "'objective.terms=[{kind = \"my_parts.own_loss_term:TargetEntropy\", target = 0.3}]'"
    small = "batch_size=8 total_steps=2 held_out_problems=4"
    run(f"ibtpo train --config demo --run own --plain {parts} {values} {term} {small}", tmp_path, beside=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "runs/own/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "trained_tokens" in line]
    assert [line["own_terms"].keys() for line in steps] == [{"my_parts.own_loss_term:TargetEntropy"}] * 2
    assert not any(line["credit_failures"] for line in steps)
    said = run("ibtpo show own --tree 1", tmp_path, beside=tmp_path)
    assert "my_parts.own_sampler:VarianceSampler tree" in said


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_laptop_tutorial_from_training_to_comparison(tmp_path: Path) -> None:
    page = "laptop.md"
    run(f"ibtpo demo --plain {SMALL}", tmp_path)
    run(f"{command_of(page, 'ibtpo demo --run grpo')} --plain {SMALL}", tmp_path)
    for start in ("ibtpo status demo", "ibtpo show demo --tree", "ibtpo runs", "ibtpo report demo grpo"):
        run(command_of(page, start), tmp_path)
    run(command_of(page, "ibtpo grow '2+3*4-1*6=' seed=1 rounds=6 --model"), tmp_path)
    assert (tmp_path / "runs" / "comparison.html").exists()
