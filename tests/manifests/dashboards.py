"""The dashboards as Grafana shows them: variables filled in, queries answered by a Prometheus, drawn in Chromium."""

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "deploy/grafana/dashboards"
APP = ROOT / "build/grafana/app.js"
_PAGE = Path(__file__).parent / "grafana/page.html"
_HTTP = httpx.Client(timeout=30.0)  # one for hundreds of queries: making one takes as long as many of them
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_WIDTH, _LINE_HEIGHT, _MARGIN = 1664, 38, 70


def fill_in(text: str, *, run: str, namespace: str = "", seconds: float = 60.0) -> str:
    """A query for a chosen run; `seconds` is the shortest window of its rates."""
    values = {"__rate_interval": f"{seconds:g}s", "namespace": namespace, "window": "1m", "run": run}
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return text


class Answers:
    """What a Prometheus answers about one run between two times."""

    def __init__(self, prometheus: str, run: str, start: float, end: float, scrape_seconds: float = 5.0) -> None:
        self._prometheus, self._run = prometheus, run
        self._start, self._end = start, end
        # as Grafana derives them from the width of a panel and the interval of scrapes
        self._step = max(scrape_seconds, math.ceil((end - start) / 500))
        self._seconds = max(self._step + scrape_seconds, 4 * scrape_seconds)

    def board(self, path: Path) -> dict[str, Any]:
        """The dashboard with the series of every panel and the times of its marks; no query may fail."""
        board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            panel["series"] = [one for target in panel.get("targets", ()) for one in self._series(target)]
        board["marks"] = [one for mark in board["annotations"]["list"] for one in self._marks(mark)]
        board["range"] = [self._start * 1000, self._end * 1000]
        return board

    def _series(self, target: dict[str, Any]) -> Iterator[dict[str, Any]]:
        is_instant = target.get("instant", False)
        for found in self._ask(target["expr"], is_instant=is_instant, step=self._step):
            points = [found["value"]] if is_instant else found["values"]
            shown = [[float(at), None if not math.isfinite(float(value)) else float(value)] for at, value in points]
            if any(value is not None for _, value in shown):
                labels = found["metric"]
                name = _LABEL.sub(lambda label, labels=labels: labels.get(label[1], ""), target["legendFormat"])
                yield {"name": name.strip(), "points": shown}

    def _marks(self, mark: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Where a mark begins: Grafana joins steps that follow each other."""
        step = float(mark["step"].removesuffix("s"))
        for found in self._ask(mark["expr"], is_instant=False, step=step):
            times = [float(at) for at, _ in found["values"]]
            for before, at in zip([-math.inf, *times], times, strict=False):
                if at - before > step:
                    yield {"at": at, "color": mark["iconColor"], "name": mark["name"]}

    def _ask(self, expression: str, *, is_instant: bool, step: float) -> list[dict[str, Any]]:
        query = {"query": fill_in(expression, run=self._run, seconds=self._seconds)}
        times = {"time": self._end} if is_instant else {"start": self._start, "end": self._end, "step": step}
        path = "query" if is_instant else "query_range"
        answer = _HTTP.get(f"{self._prometheus}/api/v1/{path}", params=query | times).json()
        assert answer["status"] == "success", f"{query['query']}: {answer['error']}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


def draw(board: dict[str, Any], picture: Path | None = None) -> str:
    """The page's elements once a dashboard is drawn; `picture` is a PNG that is written of it."""
    browser = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    assert browser is not None, f"none of {', '.join(_CHROMIUM)} is on PATH: install Chromium"
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * _LINE_HEIGHT + _MARGIN
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copy(APP, folder / "app.js")
        shutil.copy(_PAGE, folder / "page.html")
        (folder / "board.js").write_text(f"window.BOARD = {json.dumps(board)};\n", encoding="utf-8")
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"),
            *(
                f"--user-data-dir={folder / 'profile'}",
                f"--window-size={_WIDTH},{height}",
                "--virtual-time-budget=10000",
            ),
        ]
        page = (folder / "page.html").as_uri()
        if picture is not None:
            _run_browser(browser, *options, f"--screenshot={picture.resolve()}", page)
        return _run_browser(browser, *options, "--dump-dom", page)


def _run_browser(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
