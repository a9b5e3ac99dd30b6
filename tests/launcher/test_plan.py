"""Which run directory a request means, and what is in it afterwards."""

from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.runs.run_dir import RunDirectory, candidate_names, directory_of, find_run
from services.launcher.settings.plan import RunPlan, RunRequest, StartMode, make_run_plan, prepare, preview
from services.learner.config import LearnerConfig
from services.learner.data.source import DataSource
from services.rollout.config import RolloutConfig
from shared.errors import Conflict, InvalidInput
from shared.runtime.config import load_config, preset_names
from shared.tree.samplers import SAMPLERS


def begin(runs: Path, request: RunRequest, *, trains: bool = True) -> RunPlan:
    """Prepares the run; its learner gets as far as its first line of figures, unless `trains` is false."""
    plan = make_run_plan(runs, request)
    prepare(plan)
    if trains:
        plan.run.metrics.touch()
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
    assert (plan.learner.seed, SAMPLERS.kind_of(plan.learner.growth.sampler), plan.learner.max_generated_tokens) == (
        8,
        "random",
        5,
    )


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no run 'mine' in .* to resume"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", (), StartMode.RESUME))


def test_a_fresh_start_keeps_the_old_directory_aside(tmp_path: Path) -> None:
    old = begin(tmp_path, RunRequest("mine", "demo", ("seed=8",)))
    (old.run.root / "metrics.jsonl").write_text("old")
    plan = begin(tmp_path, RunRequest("mine", "demo", ("seed=9",), StartMode.FRESH), trains=False)
    assert not plan.resumes
    assert not plan.run.metrics.exists()
    (aside,) = (path for path in tmp_path.iterdir() if path.name != "mine")
    assert (aside / "metrics.jsonl").read_text() == "old"


def test_a_launch_that_failed_before_any_step_is_in_nobodys_way(tmp_path: Path) -> None:
    failed = begin(tmp_path, RunRequest("mine", "demo", ("seed=8",)), trains=False)
    (failed.run.root / "redis" / "old").touch()
    plan = begin(tmp_path, RunRequest("mine", "demo", ("seed=9",)), trains=False)
    assert (plan.run.name, plan.learner.seed, plan.resumes) == ("mine", 9, False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list((plan.run.root / "redis").iterdir())


def test_a_finished_run_that_is_resumed_is_not_finished_any_more(tmp_path: Path) -> None:
    finish(begin(tmp_path, RunRequest("mine", "demo", ())))
    plan = begin(tmp_path, RunRequest("mine", "demo", ("max_generated_tokens=9000000",), StartMode.RESUME))
    assert not plan.run.is_finished


ROW = '{"id": "1", "prompt": "1+1=", "kind": "math", "answer_key": {"gold": "2"}}\n'


def test_a_method_has_no_budget_and_gets_the_demos_with_its_task(tmp_path: Path) -> None:
    demo, grpo = (make_run_plan(tmp_path, RunRequest("mine", name, ())).learner for name in ("demo", "grpo"))
    changed = {"advantage": grpo.advantage, "growth": demo.growth.model_copy(update={"sampler": grpo.growth.sampler})}
    assert grpo == demo.model_copy(update=changed)
    own = (f"learner.model={checkpoint_directory()}", "data=mine.jsonl")
    with pytest.raises(InvalidInput, match="say when the run ends"):
        make_run_plan(tmp_path, RunRequest("mine", "grpo", own))
    plan = make_run_plan(tmp_path, RunRequest("mine", "grpo", (*own, "total_steps=5")))
    assert (plan.learner.optimizer.lr, plan.learner.growth.max_tokens) == (1e-6, 64), "the keys' own defaults"


def test_data_beside_the_demos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"take a method .*launcher\.task=files"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", ("data=mine.jsonl",)))
    begin(tmp_path, RunRequest("mine", "demo", ()))
    with pytest.raises(InvalidInput, match="the task is demo"):
        make_run_plan(tmp_path, RunRequest("mine", "", ("data=mine.jsonl",), StartMode.RESUME))


@pytest.mark.parametrize("preset", ["grpo", "ibtpo-paper"])
def test_a_preset_is_a_method_and_own_data_are_the_task(tmp_path: Path, preset: str) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text(ROW)
    settings = (f"learner.model={checkpoint_directory()}", f"data={data}", "total_steps=5")
    plan = begin(tmp_path, RunRequest("mine", preset, settings))
    sources = (DataSource(source=str(data)),)
    assert (plan.launcher.task, plan.learner.data, plan.learner.held_out) == ("files", sources, {})
    assert not (plan.run.root / "data").exists()
    assert make_run_plan(tmp_path, RunRequest("mine", "", (), StartMode.RESUME)).learner.held_out == {}


def test_a_file_that_names_data_is_no_demo(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[learner]\nmodel = 'm'\ndata = 'd.jsonl'\ntotal_steps = 1\ngrowth = { sampler = 'ib' }\n")
    (source,) = make_run_plan(tmp_path, RunRequest(None, str(mine), ())).learner.data
    assert source.path == Path("d.jsonl").resolve()


@pytest.mark.parametrize(
    "setting",
    ["learner.run=x", "rollout.run=x", "run=x", "learner.run_dir=x", "learner.redis_url=redis://h", "rollout.name=x",
     "learner.token=t", "verifier.port=1", "rollout.verifier_url=http://v", "learner.resume=never"],
)  # fmt: skip
def test_what_all_services_share_is_not_set_for_one(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InvalidInput, match=r"is not for a whole run: (--r|IBTPO_TOKEN|the launcher)"):
        make_run_plan(tmp_path, RunRequest("mine", "demo", (setting,)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "1", "prompt": "1+1=", "kind": "math"}', r"mine.jsonl:2: answer_key: Field required"),
        ('{"id": 1}', r"mine.jsonl:2: prompt: .*; kind: .*; answer_key: .*"),
        ('{"id"', r"mine.jsonl:2: not JSON"),
        (
            f'{{"id": 1}}\n{{\n{ROW}',
            r"jsonl:2: prompt: .*; a row .*jsonl:3: not JSON.*jsonl:4: the id '1' is that of .*jsonl:1; give every row",
        ),
    ],
)
def test_problems_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, row: str, message: str
) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text(ROW + row)
    settings = (f"learner.model={checkpoint_directory()}", f"data={data}", "total_steps=5")
    with pytest.raises(InvalidInput, match=message):
        begin(tmp_path, RunRequest("mine", "grpo", settings))
    data.write_text("\n")
    with pytest.raises(InvalidInput, match="no problems in"):
        begin(tmp_path, RunRequest("mine", "grpo", settings))
    with pytest.raises(InvalidInput, match="is no model directory"):
        begin(tmp_path, RunRequest("mine", "grpo", ("learner.model=nowhere", *settings[1:])))
    assert not (tmp_path / "mine").exists()


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
    assert find_run(tmp_path, None).root == find_run(tmp_path, "first").root == first.root
    assert find_run(Path("elsewhere"), str(first.root)).root == first.root
    with pytest.raises(InvalidInput, match=r"there is no run 'second' under .*; there are: first"):
        find_run(tmp_path, "second")


def test_a_free_name_is_not_taken(tmp_path: Path) -> None:
    for name in ("demo", "demo-2"):
        RunDirectory(tmp_path / name).make()
        (tmp_path / name / "config.toml").touch()
    assert [*candidate_names(tmp_path, "demo")][-1] == "demo-3"
    assert [*candidate_names(tmp_path, "other")] == ["other"]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_can_be_used(preset: str) -> None:
    own = ("learner.model=models/mine", "learner.data=problems.jsonl", "total_steps=5", "launcher.task=files")
    assert "[learner" in preview(preset, own)


@pytest.mark.parametrize("sampler", ["ib", "independent", "random", "entropy", "fixed-width", "treerpo", "spo-tree"])
@pytest.mark.parametrize("advantage", ["ibtpo", "grpo"])
def test_a_saved_configuration_is_read_back_equal(tmp_path: Path, sampler: str, advantage: str) -> None:
    plan = begin(tmp_path, RunRequest("mine", "demo", (f"sampler={sampler}", f"advantage={advantage}")))
    assert SAMPLERS.kind_of(plan.learner.growth.sampler) == sampler
    assert load_config(LearnerConfig, "learner", plan.run.config, ()) == plan.learner


def test_a_deterministic_run_grows_one_tree_at_a_time_without_a_cache(tmp_path: Path) -> None:
    plan = make_run_plan(tmp_path, RunRequest("one", "ibtpo-paper", ("deterministic=true", "task=demo")))
    assert (plan.learner.max_staleness, plan.launcher.replicas) == (0, 1)
    rollout = load_config(RolloutConfig, "rollout", _written(tmp_path, plan), ())
    assert (rollout.max_trees, rollout.cache_bytes) == (1, 0)
    begin(tmp_path, RunRequest("one", "demo", ("deterministic=true",)))
    resumed = make_run_plan(tmp_path, RunRequest("one", "demo", ("batch_size=5",), StartMode.RESUME))
    assert (resumed.learner.deterministic, resumed.launcher.replicas) == (True, 1)
    with pytest.raises(InvalidInput, match=r"learner\.deterministic needs launcher\.replicas=1, and 2 is given: leave"):
        make_run_plan(tmp_path, RunRequest("two", "demo", ("deterministic=true", "replicas=2")))


def _written(directory: Path, plan: RunPlan) -> Path:
    path = directory / "plan.toml"
    path.write_text(plan.config_text)
    return path
