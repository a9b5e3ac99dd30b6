"""What trackers get of a run: all of it, once, and after a kill what the run goes on with. The trackers are real."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.launcher.tracking.choice import make_tracker
from services.launcher.tracking.sender import Sender, evaluation_figures
from services.learner.record.tracking import TrackingOrder, TrackingRecord, flatten_public, record_path
from shared.tree.draw import WeightVersion
from tests.launcher.tracking.own_trackers import WritingTracker
from tests.learner.evaluations import make_evaluation

CONFIG = {"learner.optimizer.lr": 1e-3, "learner.growth.sampler.kind": "ib"}


class RunFolder:
    """A run's folder, to which a learner writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)

    def add_steps(self, *steps: int, reward: float = 0.5) -> None:
        self.add(*({"step": step, "time": 1e9 + step, "trees": 4, "root_value": reward, "kl": None} for step in steps))

    def add_evaluation(self, step: int, avg: float) -> None:
        sets = [{"file": "a b$.jsonl", "avg_at_k": avg, "problems": 2}, {"file": "c", "avg_at_k": avg, "problems": 2}]
        self.add({"step": step, "k": 8, "avg_at_k": avg, "version": {"number": 1}, "problems": 4, "files": sets})

    def add(self, *lines: dict[str, Any]) -> None:
        with (self.root / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def drop_after(self, step: int) -> None:
        """As a learner that resumes."""
        lines = map(json.loads, (self.root / "metrics.jsonl").read_text().splitlines())
        kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
        (self.root / "new").write_text(kept)
        (self.root / "new").rename(self.root / "metrics.jsonl")

    def finish(self) -> None:
        (self.root / "summary.json").write_text(
            json.dumps({"run": "run", "steps": 4, "avg_at_k_after": 0.5, "files": []})
        )

    def send(self, tracker: str, step: int | None = None, **options: object) -> None:
        """All that there is, as one process that is then killed."""
        order = TrackingOrder(run="run", run_dir=self.root, tracker=tracker, options=options, config=CONFIG, step=step)
        sender = Sender(order, make_tracker(tracker, options))
        sender.start()
        sender.finish()

    def record(self, tracker: str) -> TrackingRecord:
        return TrackingRecord.read(record_path(self.root, tracker))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "run")


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: seven bytes, then blocks of 32 KiB, as LevelDB writes its log."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def killed_and_resumed(run: RunFolder, tracker: str, **options: object) -> None:
    """Steps 1 to 3, of which a kill undoes the last; then 3 and 4."""
    run.add_evaluation(0, 0.25)
    run.add_steps(1, 2, 3)
    run.send(tracker, 0, **options)
    run.drop_after(2)
    run.add_steps(3, 4, reward=0.75)
    run.add_evaluation(4, 0.5)
    run.finish()
    run.send(tracker, 2, **options)


def test_tensorboard_has_every_step_once_as_the_metrics_log_has_it(run: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed_and_resumed(run, "tensorboard")
    events = EventAccumulator(str(run.root / "tensorboard")).Reload()
    rewards = [(one.step, one.value, one.wall_time) for one in events.Scalars("root_value")]
    assert rewards == [(1, 0.5, 1e9 + 1), (2, 0.5, 1e9 + 2), (3, 0.75, 1e9 + 3), (4, 0.75, 1e9 + 4)]
    assert [(one.step, one.value) for one in events.Scalars("held_out/avg_at_k")] == [(0, 0.25), (4, 0.5)]
    assert [one.step for one in events.Scalars("held_out/a b$.jsonl/avg_at_k")] == [0, 4]
    (config,) = events.Tensors("config")
    assert b"| learner.growth.sampler.kind | `ib` |" in config.tensor_proto.string_val[0]
    assert "kl" not in events.Tags()["scalars"]


@pytest.mark.drill
def test_mlflow_goes_on_with_the_same_run_and_has_every_step_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    killed_and_resumed(run, "mlflow", project="mine", tags=["a tag"])
    from mlflow.tracking import MlflowClient

    client = MlflowClient((run.root.parent / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("mine")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == run.record("mlflow").id
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["learner.growth.sampler.kind"] == "ib"
    assert [(one.step, one.timestamp) for one in client.get_metric_history(found.info.run_id, "root_value")] == [
        (step, 1000 * (10**9 + step)) for step in (1, 2, 3, 4)
    ]
    assert [one.step for one in client.get_metric_history(found.info.run_id, "held_out/avg_at_k")] == [0, 4]
    assert "summary.json" in [one.path for one in client.list_artifacts(found.info.run_id)]


@pytest.mark.drill
def test_wandb_offline_goes_on_with_the_same_run_and_has_every_step_once(run: RunFolder) -> None:
    killed_and_resumed(run, "wandb", project="mine", mode="offline")
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted(run.root.glob("wandb/offline-run-*/run-*.wandb"))
    records = [Record.FromString(one) for file in files for one in wandb_records(file.read_bytes())]
    rows = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.history.item
    ]
    ids = {record.run.run_id for record in records} - {""}
    assert ids == {run.record("wandb").id}
    assert [row["step"] for row in rows if "root_value" in row] == [1, 2, 3, 4]
    assert [(row["step"], row["held_out/avg_at_k"]) for row in rows if "held_out/avg_at_k" in row] == [
        (0, 0.25),
        (4, 0.5),
    ]


def test_a_tracker_of_ones_own_gets_calls_in_order(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    own = f"{WritingTracker.__module__}:{WritingTracker.__name__}"
    run.add_steps(1)
    run.send(own, 0, file=str(file))
    run.add({"step": 2, "trees": 4, "root_value": 1.0})
    with (run.root / "metrics.jsonl").open("a") as metrics:
        metrics.write('broken\n{"step": 3, "tr')  # it is being written
    run.finish()
    run.send(own, None, file=str(file))
    first, second = {"trees": 4, "root_value": 0.5, "time": 1e9 + 1}, {"trees": 4, "root_value": 1.0}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"call": "start", "id": "", "step": 0, "config": CONFIG},
        {"call": "log", "step": 1, "figures": first},
        {"call": "finish", "summary": None},
        {"call": "start", "id": "first", "step": 1, "config": CONFIG},
        {"call": "log", "step": 2, "figures": second},
        {"call": "finish", "summary": {"run": "run", "steps": 4, "avg_at_k_after": 0.5}},
    ]
    assert run.record(own) == TrackingRecord(id="first", url="http://tracker/first", step=2)


def test_trackers_get_settings_without_secrets() -> None:
    tables = {
        "learner": {
            "token": "abc",
            "redis_url": "redis://:pw@host/0",
            "growth": {"max_tokens": 48},
            "lr": None,
            "data": ["a", "b"],
            "verifier_url": "http://user:pw@host:1/x?key=1",
            "answer_tokens": 3,
        }
    }
    assert dict(flatten_public(tables)) == {
        "learner.token": "***",
        "learner.growth.max_tokens": 48,
        "learner.data": "a, b",
        "learner.verifier_url": "http://host:1/x",
        "learner.answer_tokens": 3,
    }


def test_an_evaluation_has_the_same_names_for_its_sets_and_no_average_of_some_of_them() -> None:
    line = make_evaluation({"gsm8k": [[1.0, 0.0]], "aime": [[0.0, 0.0]]}, 3, WeightVersion(1, 3), 2).flat()
    found = dict(evaluation_figures(line))
    assert (found["held_out/avg_at_k"], found["held_out/gsm8k/avg_at_k"], found["held_out/gsm8k/pass_at_1"]) == (
        0.25,
        0.5,
        0.5,
    )
    assert "held_out/avg_at_k" not in dict(evaluation_figures(line | {"is_partial": True}))
