"""Grafana's own components draw every dashboard: no panel fails or is empty, every series has a name.

A real Prometheus scrapes the series of the services, with values made up here: those of GPUs and failures, too.
"""

import gzip
import html
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from shared.runtime.child_process import find_free_port
from tests.manifests.dashboards import BOARDS, Answers, draw
from tests.manifests.exported import exported_by_job
from tests.manifests.record import DEMO, replay, series_read
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(
        "IBTPO_PROMETHEUS" not in os.environ, reason="`make test-manifests` has Prometheus and Chromium"
    ),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).resolve().parents[2]
RUN = "mine"
ABSENT_IN_THE_DEMO = (
    "sglang:",
    "DCGM_",
    "ALERTS",  # none fires
    "ibtpo_rollout_engine_",  # SGLang's supervisor
    "ibtpo_learner_mfu",  # of known CUDA devices
    "ibtpo_learner_stale_trajectory_tokens",
    "ibtpo_learner_rank_silent_seconds",
    "ibtpo_learner_own_term",
)
"""What a run of one process on CPUs, in which nothing fails, does not have."""
EMPTY_IN_THE_DEMO = {
    "balance": {"Loss terms of your own"},
    "sglang": {
        *("Throughput", "Requests", "KV cache", "Engines up", "Generation", "KV cache used", "Radix cache"),
        *("Time to first token", "Time of a request", "Aborted requests", "Starts of the server"),  # it has no SGLang
        *("GPU busy", "GPU memory", "GPU power"),  # nor GPUs
    },
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """Of a Prometheus that has seen a minute of a run, and another run in the same namespace."""
    folder, began = tmp_path_factory.mktemp("prometheus"), time.time()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Services, began))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = find_free_port()
    _write_config(folder / "prometheus.yml", server.server_port)
    words = [
        *(os.environ["IBTPO_PROMETHEUS"], f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    with (folder / "log").open("wb") as log, closing(server.socket), subprocess.Popen(words, stderr=log) as process:
        try:
            found = partial(Answers, f"http://127.0.0.1:{port}", RUN, began, scrape_seconds=1.0)
            wait_until(
                lambda: time.time() > began + 20 and not _empty(found(end=time.time())), 120.0, every_seconds=3.0
            )
            yield found(end=time.time())
        finally:
            process.terminate()
            server.shutdown()


@pytest.mark.parametrize("path", sorted(BOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_every_panel_is_drawn_with_data_and_every_series_has_a_name(path: Path, answers: Answers) -> None:
    board = answers.board(path)
    page = html.unescape(draw(board))
    assert 'class="failure"' not in page
    drawn = dict(re.findall(r'data-panel="(\d+)"(.*?)(?=data-panel=|<script)', page, re.DOTALL))
    for panel in board["panels"]:
        shown, title = drawn[str(panel["id"])], panel["title"]
        assert title in shown
        assert "No data" not in shown, title
        names = [series["name"] for series in panel["series"]]
        assert all(names), title
        assert len(set(names)) == len(names), f"{title}: {sorted(names)}"
        if panel["type"] == "timeseries":
            assert "<canvas" in shown, title
            assert all(name in shown for name in names), title
        assert not any("other" in name for name in names), f"{title} adds up two runs"
        if panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "percentunit":
            values = [value for series in panel["series"] for _, value in series["points"] if value is not None]
            assert max(values) <= 1, title
    assert board["marks"] or path.stem == "sglang"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """Of a Prometheus that has seen a whole `ibtpo demo`, as tests.manifests.record recorded it."""
    with replay(DEMO, tmp_path_factory.mktemp("recorded")) as (url, start, end):
        yield Answers(url, "demo", start, end)


@pytest.mark.parametrize("path", sorted(BOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_whole_demo_fills_every_panel_but_those_that_it_has_nothing_for(path: Path, recorded: Answers) -> None:
    board = recorded.board(path)
    page = html.unescape(draw(board))
    assert 'class="failure"' not in page
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    empty = {panel["title"] for panel in panels if not panel["series"]}
    assert empty == EMPTY_IN_THE_DEMO.get(path.stem, set())
    for panel in panels:
        names = [series["name"] for series in panel["series"]]
        assert all(names), panel["title"]
        assert len(set(names)) == len(names), panel["title"]
        values = [value for series in panel["series"] for _, value in series["points"] if value is not None]
        if panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "percentunit":
            assert all(0 <= value <= 1 for value in values), panel["title"]
    assert {"Evaluation", "Checkpoint"} <= {mark["name"] for mark in board["marks"]}


def test_the_recorded_demo_has_every_series_that_dashboards_read() -> None:
    """After a new series or panel, record anew: `python -m tests.manifests.record`."""
    text = gzip.decompress(DEMO.read_bytes()).decode()
    missing = {name for name in series_read() if f"\n{name}{{" not in text}
    assert {name for name in missing if not name.startswith(ABSENT_IN_THE_DEMO)} == set()


def _empty(answers: Answers) -> list[str]:
    boards = [answers.board(path) for path in sorted(BOARDS.glob("*.json"))]
    return [
        panel["title"]
        for board in boards
        for panel in board["panels"]
        if panel["type"] != "row" and not panel["series"]
    ]


class _Services(BaseHTTPRequestHandler):
    """Answers GET /JOB/RUN with the series of a service of that run."""

    def __init__(self, began: float, *arguments: Any) -> None:
        self._began = began
        super().__init__(*arguments)

    def do_GET(self) -> None:
        _, job, run = self.path.split("/")
        age = time.time() - self._began
        text = "\n".join(line for metric in exported_by_job()[job] for line in _lines(metric, run, age)) + "\n"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _lines(metric: Metric, run: str, age: float) -> Iterator[str]:
    """A metric after `age` seconds: what counts rises by 3 a second, seconds by 0.2, a bucket by its bound, and
    all else moves between 0 and 1."""
    yield f"# TYPE {metric.name} {metric.type.replace('unknown', 'untyped')}"
    for sample in metric.samples:
        labels = sample.labels | ({"run": run} if run else {})
        if sample.name.endswith("_seconds_total"):
            value = 0.2 * age
        elif sample.name.endswith(("_total", "_count", "_sum", "_bucket")):
            bound = float(labels.get("le", "inf"))
            value = 3 * age * (1 if math.isinf(bound) else 1 / (1 + math.exp(-bound)))
        elif sample.name.endswith("_state"):
            value = sample.value
        else:
            value = 0.5 + 0.4 * math.sin(age / 5)
        shown = ", ".join(f'{name}="{of_label}"' for name, of_label in labels.items())
        yield f"{sample.name}{{{shown}}} {value:.3f}"


def _write_config(path: Path, port: int) -> None:
    jobs = [(job, run) for job in ("learner", "rollout") for run in (RUN, "other")] + [("verifier", ""), ("gpus", "")]
    scrapes = [
        {
            "job_name": f"{job}{run}",
            "metrics_path": f"/{job}/{run}",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"job": job, "instance": f"{job}-{run}"}}],
        }
        for job, run in jobs
    ]
    rules = str(ROOT / "deploy/prometheus/rules/*.yml")
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    path.write_text(yaml.safe_dump({"global": every, "rule_files": [rules], "scrape_configs": scrapes}))
