"""`ibtpo check` as a whole: the demo's model, a model of a hub by its name, and models that cannot be used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.check.examination import CheckRequest, examine_run
from services.launcher.check.start import look_before_start
from services.launcher.display.finding import Level, Section
from services.launcher.settings.plan import RunPlan, RunRequest, draft_plan
from shared.errors import InvalidInput
from tests.hub.hub_server import COMMIT, serve_hub
from tests.launcher.test_plan import ROW

ROOT = Path(__file__).parents[3]


def run_check(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.launcher.cli", "check", *arguments]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment}
    return subprocess.run(command, cwd=directory, env=settings, capture_output=True, text=True, timeout=280)


def findings(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {one["check"]: one for section in report["sections"] for one in section["findings"]}


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_the_demo_is_checked_from_its_files_to_its_answers(tmp_path: Path) -> None:
    done = run_check(tmp_path, "--json", "--problems", "6", "--k", "4", "demo.train_problems=64", "replicas=1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["level"] == Level.OK
    found = findings(report)
    assert found["files"]["found"].startswith("complete: 46 tensors in 1 file")
    assert found["answer keys"]["found"] == "the verifier reads all 64"
    assert "the mean reward of 24 answers to 6 problems" in found["base rate"]["found"]
    assert "tokens/s from 1 replica; a step of 24 trees" in found["generation"]["found"]
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_a_model_by_its_name_is_fetched_and_looked_at(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(ROW)
    settings = ("learner.model=demo/model", "data=mine.jsonl", "total_steps=5", "growth.max_tokens=300")
    with serve_hub() as hub:
        hub.models["demo/model"] = checkpoint_directory()
        cache = str(tmp_path / "cache")
        done = run_check(tmp_path, "--quick", "--config", "grpo", *settings, HF_ENDPOINT=hub.url, HF_HOME=cache)
    assert done.returncode == 1, done.stderr
    text = " ".join(done.stdout.split())
    assert f"model · demo/model@{COMMIT}" in text
    assert "failed context 256 tokens; an answer may have 300 → lower growth.max_tokens" in text
    assert not (tmp_path / "runs").exists()


def quick(tmp_path: Path, model: Path) -> list[Section]:
    (tmp_path / "mine.jsonl").write_text(ROW + ROW.replace('"id": "1"', '"id": "2"'))
    settings = (f"learner.model={model}", f"data={tmp_path / 'mine.jsonl'}", "total_steps=5")
    plan = draft_plan(tmp_path / "runs", RunRequest("mine", "grpo", settings))
    return list(examine_run(plan, CheckRequest(None, True, None), lambda *_: None))


def test_a_quick_check_looks_at_files_problems_and_machine(tmp_path: Path) -> None:
    model, tokenizer, problems, machine = quick(tmp_path, checkpoint_directory())
    assert [section.subject for section in (model, tokenizer, problems, machine)] == [
        "model", "tokenizer", "problems", "machine",
    ]  # fmt: skip
    found = {finding.check: finding.found for finding in problems.findings}
    assert found["problems"] == "2 math; prompts of 4 to 4 tokens, 4 on average"
    assert found["duplicates"] == "1 of 2 problems have the prompt of another"
    of_machine = {finding.check: finding.found for finding in machine.findings}
    assert {"learner", "engines", "this machine", "disk"} <= set(of_machine)
    assert "two of the policy while it is published 4.2 MiB" in of_machine["learner"]


def test_a_model_that_cannot_be_read_ends_the_check_with_the_reason(tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint_directory(), tmp_path / "model")
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-10])
    (section,) = quick(tmp_path, model)
    (finding,) = section.findings
    assert (finding.level, "model.safetensors is not safetensors" in finding.found) == (Level.FAILED, True)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint_directory(), tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "unheard-of"}')
    (section,) = quick(tmp_path, model)
    assert "transformers makes no causal language model of it" in section.findings[0].found


def test_what_no_run_can_begin_with_is_said_before_anything_starts(tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint_directory(), tmp_path / "model")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        values = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({key: one for key, one in values.items() if not key.startswith("eos")}))
    rows = tmp_path / "mine.jsonl"
    rows.write_text(ROW)

    def draft(model: Path, *settings: str) -> RunPlan:
        given = (f"learner.model={model}", f"data={rows}", "total_steps=5", *settings)
        return draft_plan(tmp_path / "runs", RunRequest("mine", "grpo", given))

    with pytest.raises(InvalidInput, match="without one no answer ends"):
        look_before_start(draft(model))
    (warning,) = look_before_start(draft(checkpoint_directory(), f"held_out={rows}"))
    assert warning.startswith(f"held out mine: {rows} is trained on as well")
    rows.write_text(json.dumps(json.loads(ROW) | {"prompt": [{"role": "user", "content": "1+1="}]}))
    with pytest.raises(InvalidInput, match=r"mine\.jsonl:1: .*chat template"):
        look_before_start(draft(checkpoint_directory()))
    rows.write_text(ROW)
    absent = draft(checkpoint_directory(), "tracker=tests.no_such_module:Tracker")
    *_, machine = examine_run(absent, CheckRequest(None, True, None), lambda *_: None)
    assert (machine.findings[-1].check, machine.findings[-1].level) == ("trackers", Level.FAILED)


@pytest.mark.parametrize(
    ("preset", "setting", "said"),
    [
        (
            "ibtpo-paper",
            "batch_size=4",
            r"growth\.max_tokens 2048 leaves no room .* context of 256 tokens, .* below that",
        ),
        ("grpo", "max_tokens=256", r"growth\.max_tokens 256 leaves no room"),
        ("grpo", "evaluation.max_tokens=300", r"max_tokens of held_out\.mine 300 leaves no room"),
        ("grpo", "learner.context_length=64", r"growth\.max_tokens 64 leaves no room .* context of 64"),
    ],
)
def test_answers_for_which_a_model_is_too_small_are_refused_before_anything_starts(
    tmp_path: Path, preset: str, setting: str, said: str
) -> None:
    rows = tmp_path / "mine.jsonl"
    rows.write_text(ROW)
    given = (f"learner.model={checkpoint_directory()}", f"data={rows}", f"held_out={rows}", "total_steps=5", setting)
    with pytest.raises(InvalidInput, match=said):
        look_before_start(draft_plan(tmp_path / "runs", RunRequest("mine", preset, given)))


@pytest.mark.parametrize(
    ("preset", "setting", "warning"),
    [
        ("treepo", "segment_tokens=512", "sampler: paths fork after 512 tokens, and no answer has more than 48: none"),
        (
            "iib-lpo",
            "rollout.engine=sglang",
            "sampler: of an entropy SGLang gives a lower bound, from the 20 likeliest",
        ),
        ("treepo", "seed=1", ""),
        ("iib-lpo", "seed=1", ""),
    ],
)
def test_a_sampler_that_does_not_get_what_it_forks_by_is_named_before_the_start(
    tmp_path: Path, preset: str, setting: str, warning: str
) -> None:
    plan = draft_plan(tmp_path / "runs", RunRequest("mine", preset, ("launcher.task=demo", setting)))
    assert [one.startswith(warning) for one in look_before_start(plan)] == [True] * bool(warning)
