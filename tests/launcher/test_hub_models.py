"""A run whose model has a name of the hub: it is fetched before anything starts, and its commit is the run's."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.runs.kept_trees import find_model as find_model_of
from services.launcher.runs.model_files import find_model
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.plan import RunRequest, StartMode, make_run_plan, prepare, preview
from shared.errors import InvalidInput
from tests.hub.hub_server import COMMIT, NEWER, Hub, serve_hub, use_hub
from tests.launcher.test_plan import ROW


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        hub.models["demo/model"] = checkpoint_directory()
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        find_model.cache_clear()
        yield hub
    find_model.cache_clear()


def request(tmp_path: Path, start: StartMode = StartMode.AUTO) -> RunRequest:
    (tmp_path / "mine.jsonl").write_text(ROW)
    settings = ("learner.model=demo/model", f"data={tmp_path / 'mine.jsonl'}", "total_steps=5")
    return RunRequest("mine", "grpo", () if start is StartMode.RESUME else settings, start)


def begin(tmp_path: Path) -> str:
    """Prepares the run; its learner gets as far as its first line of figures. Returns the model of its config.toml."""
    plan = make_run_plan(tmp_path, request(tmp_path))
    prepare(plan)
    plan.run.metrics.touch()
    return str(tomllib.loads(plan.run.config.read_text())["learner"]["model"])


def test_the_commit_is_the_runs_and_stays_when_it_goes_on(hub: Hub, tmp_path: Path) -> None:
    assert begin(tmp_path) == f"demo/model@{COMMIT}"
    hub.commit = NEWER
    find_model.cache_clear()
    for start in (StartMode.AUTO, StartMode.RESUME):
        plan = make_run_plan(tmp_path, request(tmp_path, start))
        assert (str(plan.learner.model), plan.resumes) == (f"demo/model@{COMMIT}", True)
    plan = make_run_plan(tmp_path, request(tmp_path, StartMode.FRESH))
    assert str(plan.learner.model) == f"demo/model@{NEWER}"


def test_a_name_that_does_not_exist_leaves_nothing_behind(hub: Hub, tmp_path: Path) -> None:
    hub.models.clear()
    with pytest.raises(InvalidInput, match="demo/model is no directory here, and no model of http"):
        make_run_plan(tmp_path, request(tmp_path))
    assert not (tmp_path / "mine").exists()


def test_an_unknown_architecture_is_refused_before_its_weights_come(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((checkpoint_directory() / name).read_bytes())
    (tmp_path / "model" / "config.json").write_text('{"model_type": "unheard-of", "auto_map": {}}')
    hub.models["demo/model"] = tmp_path / "model"
    with pytest.raises(InvalidInput, match=r"transformers .* knows no model_type 'unheard-of'"):
        make_run_plan(tmp_path, request(tmp_path))
    assert "model.safetensors" not in hub.fetched


def test_the_trees_of_a_run_are_read_with_the_tokens_of_its_model(hub: Hub, tmp_path: Path) -> None:
    begin(tmp_path)
    directory = find_model_of(RunDirectory(tmp_path / "mine"))
    assert (directory.name, (directory / "tokenizer.json").exists()) == (COMMIT, True)


def test_a_configuration_that_is_only_shown_asks_nobody(hub: Hub) -> None:
    settings = ("learner.model=demo/model", "learner.data=problems.jsonl", "total_steps=5")
    assert 'model = "demo/model"' in preview("grpo", settings)
    assert hub.fetched == []
