"""MLflow: a tracking server, or a folder beside the runs."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from itertools import islice

_QUICK = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder needs no database; mlflow asks for consent
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # we try again ourselves
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
os.environ.update({key: value for key, value in _QUICK.items() if key not in os.environ})

from mlflow.entities import Metric, Param, RunTag  # noqa: E402 - it reads these when it is imported
from mlflow.tracking import MlflowClient  # noqa: E402

from services.launcher.tracking.tracker import Scalar, TrackedRun, TrackedTree  # noqa: E402

FOLDER = "mlruns"
_MAX_PARAMS = 100
_MAX_VALUE = 6000


class MlflowTracker:
    """Settings are parameters, trees and the summary are artifacts."""

    def __init__(self, project: str, name: str = "", tags: Sequence[str] = (), uri: str = "") -> None:
        self._project = project
        self._name = name
        self._tags = tags
        self._uri = uri
        self._client: MlflowClient
        self._id = ""

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI", "") or (run.directory.parent / FOLDER).as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if run.id:
            self._id = run.id
            self._client.update_run(run.id, status="RUNNING")
        else:
            self._begin(self._name or run.name, config)
        return self._id, uri

    def _begin(self, name: str, config: Mapping[str, Scalar]) -> None:
        found = self._client.get_experiment_by_name(self._project)
        experiment = found.experiment_id if found else self._client.create_experiment(self._project)
        self._id = self._client.create_run(experiment, run_name=name).info.run_id
        params = iter([Param(_key(key), str(value)[:_MAX_VALUE]) for key, value in config.items()])
        while some := list(islice(params, _MAX_PARAMS)):
            self._client.log_batch(self._id, params=some)
        self._client.log_batch(self._id, tags=[RunTag(_key(tag), "") for tag in self._tags])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        milliseconds = int(1000 * figures.get("time", time.time()))
        metrics = [Metric(_key(name), value, milliseconds, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        for number, tree in enumerate(trees, 1):
            self._client.log_text(self._id, tree.svg, f"trees/step-{step}-{number}.svg")

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        if summary is not None:
            self._client.log_dict(self._id, dict(summary), "summary.json")
        self._client.set_terminated(self._id, "KILLED" if summary is None else "FINISHED")


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]
