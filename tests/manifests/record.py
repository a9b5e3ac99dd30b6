"""Records what a real Prometheus sees of a whole `ibtpo demo`, the series that dashboards read alone.

`python -m tests.manifests.record` trains the demo anew and writes the recording (minutes); with `--draw docs/images` it
draws the last one. A Prometheus made of it again (`replay`) answers as that one did; dashboards are tested with it.
"""

import argparse
import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from shared.runtime.child_process import find_free_port
from tests.manifests.dashboards import BOARDS, Answers, draw
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(__file__).parent / "demo.om.gz"
SCRAPE_SECONDS = 5
_LINGER_SECONDS = 4 * SCRAPE_SECONDS
"""The learner is seen for so long after the run's end."""
_SERIES = re.compile(r"(?<![\w:\"$])((?:ibtpo|sglang|process)[_:][\w:]+|up|ALERTS)(?![\w:(])")


def series_read() -> set[str]:
    """The names that panels and marks of the dashboards read."""
    found: set[str] = set()
    for path in sorted(BOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
        for query in (*targets, *board["annotations"]["list"]):
            found |= set(_SERIES.findall(query["expr"]))
    return found


@contextmanager
def prometheus(folder: Path, scrapes: list[dict[str, Any]], *words: str) -> Iterator[str]:
    """A Prometheus that keeps its data in `folder` and applies the repository's rules; yields its URL."""
    port = find_free_port()
    rules = [str(ROOT / "deploy/prometheus/rules/*.yml")] if scrapes else []
    every = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": every, "rule_files": rules, "scrape_configs": scrapes}), encoding="utf-8"
    )
    binary = os.environ.get("IBTPO_PROMETHEUS") or shutil.which("prometheus")
    assert binary, "no prometheus on PATH; tests/manifests/tools fetches one"
    command = [
        *(binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y", *words),
    ]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until(lambda: _is_ready(url), 60.0, lambda: (folder / "log").read_text(encoding="utf-8")[-2000:])
            yield url
        finally:
            process.terminate()


@contextmanager
def replay(recording: Path, folder: Path) -> Iterator[tuple[str, float, float]]:
    """A Prometheus that has seen the recording: its URL, and when the recording begins and ends."""
    text = gzip.decompress(recording.read_bytes()).decode()
    (folder / "recording.om").write_text(text, encoding="utf-8")
    promtool = shutil.which("promtool") or str(Path(os.environ["IBTPO_PROMETHEUS"]).with_name("promtool"))
    blocks = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", "recording.om", "data"]
    subprocess.run(blocks, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL)
    times = [float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")]
    with prometheus(folder, []) as url:
        yield url, min(times), max(times)


def record(recording: Path, words: list[str]) -> None:
    """Trains the demo, watched, and writes what was seen."""
    with tempfile.TemporaryDirectory() as made:
        folder, runs = Path(made), Path(made) / "runs"
        targets = folder / "targets.json"
        targets.write_text("[]", encoding="utf-8")
        scrapes = [{"job_name": "demo", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "2s"}]}]
        with prometheus(folder, scrapes) as url:
            started = time.time()
            command = [
                sys.executable,
                "-m",
                "services.launcher.cli",
                "demo",
                "--plain",
                "--runs",
                str(runs),
                f"learner.linger_seconds={_LINGER_SECONDS}",
                *words,
            ]
            with subprocess.Popen(command) as demo:
                try:
                    _watch(demo, runs / "demo" / "urls", targets)
                finally:
                    if demo.poll() is None:
                        demo.send_signal(signal.SIGINT)
            end = _last_time(url, "ibtpo_learner_step", started)
            lines = list(_read(url, started, end))
        recording.write_bytes(gzip.compress("\n".join([*lines, "# EOF", ""]).encode(), mtime=0))
    assert demo.returncode == 0, f"the demo ended with {demo.returncode}"
    print(f"{len(lines)} samples, {recording.stat().st_size >> 10} KiB: {recording}")


def _watch(demo: "subprocess.Popen[bytes]", urls: Path, targets: Path) -> None:
    """Names to Prometheus what the demo has started, until it ends."""
    known: set[tuple[str, str]] = set()
    while demo.poll() is None:
        found = {(path.stem, path.read_text(encoding="utf-8").strip()) for path in urls.glob("*.url")}
        if found != known:
            known = found
            partial = targets.with_suffix(".new")
            partial.write_text(json.dumps([_target(*one) for one in sorted(known)]), encoding="utf-8")
            partial.replace(targets)
        time.sleep(0.5)


def _target(name: str, url: str) -> dict[str, Any]:
    labels = {"job": name.partition("-")[0], "instance": name}
    return {"targets": [url.partition("//")[2]], "labels": labels}


def _last_time(url: str, name: str, start: float) -> float:
    """When a series was seen for the last time."""
    query = {"query": f"max(timestamp({name}))", "start": start, "end": time.time(), "step": 1.0}
    answer = httpx.get(f"{url}/api/v1/query_range", params=query, timeout=60.0).json()
    return max(float(value) for one in answer["data"]["result"] for _, value in one["values"])


def _read(url: str, start: float, end: float) -> Iterator[str]:
    """Every sample of the series that dashboards read, as OpenMetrics has them."""
    for name in sorted(series_read()):
        query = {"query": f"{name}[{math.ceil(end - start) + 1}s]", "time": end}
        answer = httpx.get(f"{url}/api/v1/query", params=query, timeout=60.0).json()
        assert answer["status"] == "success", answer
        series = answer["data"]["result"]
        if series:
            yield f"# TYPE {name} unknown"
        for one in series:
            labels = ",".join(
                f"{label}={json.dumps(value, ensure_ascii=False)}"
                for label, value in sorted(one["metric"].items())
                if label != "__name__"
            )
            yield from (f"{name}{{{labels}}} {value} {at:.3f}" for at, value in one["values"])


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=2.0).is_success
    except httpx.HTTPError:
        return False


def draw_recording(recording: Path, pictures: Path) -> None:
    """A picture of every dashboard that a demo has data for."""
    with tempfile.TemporaryDirectory() as made, replay(recording, Path(made)) as (url, start, end):
        answers = Answers(url, "demo", start, end)
        for path in sorted(BOARDS.glob("*.json")):
            board = answers.board(path)
            panels = [panel for panel in board["panels"] if panel["type"] != "row"]
            if sum(bool(panel["series"]) for panel in panels) > len(panels) // 2:  # SGLang's has none
                draw(board, pictures / f"{path.stem}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the recording there, and record nothing")
    parser.add_argument("--setting", action="append", default=[], help="of the demo, such as seed=1")
    asked = parser.parse_args()
    if asked.draw is not None:
        draw_recording(asked.recording, asked.draw)
    else:
        record(asked.recording, asked.setting)


if __name__ == "__main__":
    main()
