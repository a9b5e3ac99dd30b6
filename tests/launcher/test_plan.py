"""Which run directory a request means, and what is in it afterwards."""

from pathlib import Path

import pytest

from services.launcher.runs.run_dir import RunDirectory, directory_of, find_run, free_name
from services.launcher.settings.plan import RunPlan, RunRequest, StartMode, make_run_plan, prepare, preview
from services.learner.config import LearnerConfig
from shared.errors import Conflict, InvalidInput
from shared.runtime.config import load_config, preset_names


def begin(runs: Path, request: RunRequest) -> RunPlan:
    plan = make_run_plan(runs, request)
    prepare(plan)
    return plan


def finish(plan: RunPlan) -> None:
    plan.run.summary.write_text("{}")


def test_a_first_run_has_the_name_of_its_preset(tmp_path: Path) -> None:
    plan = begin(tmp_path, RunRequest(None, "demo", ("seed=3",)))
    assert (plan.run.name, plan.resumes, plan.learner.seed) == ("demo", False, 3)
    assert plan.run.config.read_text() == plan.config_text
    assert (plan.run.root / "data" / "train.jsonl").stat().st_size > 0


def test_the_same_command_resumes_an_unfinished_run(tmp_path: Path) -> None:
    request = RunRequest(None, "demo", ("seed=3",))
    begin(tmp_path, request)
    again = make_run_plan(tmp_path, request)
    assert (again.run.name, again.resumes) == ("demo", True)


def test_other_settings_begin_another_run(tmp_path: Path) -> None:
    begin(tmp_path, RunRequest(None, "demo", ("seed=3",)))
    other = make_run_plan(tmp_path, RunRequest(None, "demo", ("seed=4",)))
    assert (other.run.name, other.resumes) == ("demo-2", False)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    request = RunRequest(None, "demo", ())
    finish(begin(tmp_path, request))
    assert make_run_plan(tmp_path, request).run.name == "demo-2"


def test_a_name_that_is_taken_is_refused_with_what_can_be_done(tmp_path: Path) -> None:
    finish(begin(tmp_path, RunRequest("mine", "demo", ())))
    with pytest.raises(Conflict, match=r"run 'mine' is finished .*--resume .*--fresh .*--run"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", ()))


def test_a_named_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    begin(tmp_path, RunRequest("mine", "demo", ()))
    with pytest.raises(Conflict, match="was begun with other settings"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", ("seed=8",)))


def test_resuming_keeps_the_runs_own_settings_and_takes_new_ones(tmp_path: Path) -> None:
    begin(tmp_path, RunRequest("mine", "demo", ("seed=8", "sampler=random")))
    plan = make_run_plan(tmp_path, RunRequest("mine", "demo", ("max_generated_tokens=5",), StartMode.RESUME))
    assert plan.resumes
    assert (plan.learner.seed, plan.learner.growth.sampler.kind, plan.learner.max_generated_tokens) == (8, "random", 5)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no run 'mine' in .* to resume"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", (), StartMode.RESUME))


def test_a_fresh_start_keeps_the_old_directory_aside(tmp_path: Path) -> None:
    old = begin(tmp_path, RunRequest("mine", "demo", ("seed=8",)))
    (old.run.root / "metrics.jsonl").write_text("old")
    plan = begin(tmp_path, RunRequest("mine", "demo", ("seed=9",), StartMode.FRESH))
    assert not plan.resumes
    assert not plan.run.metrics.exists()
    (aside,) = (path for path in tmp_path.iterdir() if path.name != "mine")
    assert (aside / "metrics.jsonl").read_text() == "old"


def test_a_run_that_is_going_on_is_not_begun_again(tmp_path: Path) -> None:
    plan = begin(tmp_path, RunRequest("mine", "demo", ()))
    with plan.run.lock(), pytest.raises(Conflict, match="is going on already: watch it with `ibtpo status mine`"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", ()))
    assert not plan.run.is_running()


def test_nothing_secret_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBTPO_TOKEN", "s3cret")
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@127.0.0.1:1/0")
    plan = begin(tmp_path, RunRequest("mine", "demo", ()))
    assert plan.learner.token == "s3cret"
    assert "s3cret" not in plan.run.config.read_text()


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 65])
def test_a_run_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        directory_of(tmp_path, name)


def test_a_run_is_found_by_name_by_path_or_as_the_latest(tmp_path: Path) -> None:
    first = begin(tmp_path, RunRequest("first", "demo", ())).run
    assert find_run(tmp_path, None) == find_run(tmp_path, "first") == first
    assert find_run(Path("elsewhere"), str(first.root)) == first
    with pytest.raises(InvalidInput, match=r"there is no run 'second' under .*; there are: first"):
        find_run(tmp_path, "second")


def test_a_free_name_is_not_taken(tmp_path: Path) -> None:
    for name in ("demo", "demo-2"):
        RunDirectory(tmp_path / name).make()
        (tmp_path / name / "config.toml").touch()
    assert free_name(tmp_path, "demo") == "demo-3"
    assert free_name(tmp_path, "other") == "other"


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_can_be_used(preset: str) -> None:
    assert "[learner" in preview(preset, ("learner.model=models/mine", "learner.data=problems.jsonl"))


@pytest.mark.parametrize("sampler", ["ib", "independent", "random", "entropy", "fixed-width"])
@pytest.mark.parametrize("advantage", ["ibtpo", "grpo"])
def test_a_saved_configuration_is_read_back_equal(tmp_path: Path, sampler: str, advantage: str) -> None:
    plan = begin(tmp_path, RunRequest("mine", "demo", (f"sampler={sampler}", f"advantage={advantage}")))
    assert plan.learner.growth.sampler.kind == sampler
    assert load_config(LearnerConfig, "learner", plan.run.config, ()) == plan.learner
