"""Draws the dashboards' own queries, answered by the live Prometheus, with matplotlib."""

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

from tests.containers import stack

_COLUMNS = 3
_UNITS = {"none": "", "percentunit": "share", "s": "seconds", "ops": "per second", "reqps": "requests/s"}


def draw_all(directory: Path) -> list[Path]:
    """One PNG per dashboard with data, from the run's first step on."""
    directory.mkdir(parents=True, exist_ok=True)
    (beginning,) = stack.query("min(min_over_time(timestamp(ibtpo_learner_eff_rate)[2h:5s]))")
    seconds = time.time() - float(beginning["value"][1])
    drawn = []
    for path in sorted((stack.ROOT / "deploy/grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        answered = [(panel, _answers(panel, seconds)) for panel in board["panels"] if panel["type"] == "timeseries"]
        answered = [(panel, answers) for panel, answers in answered if answers]
        if answered:
            drawn.append(_draw(board["title"], answered, directory / f"{path.stem}.png"))
    return drawn


def _answers(panel: dict[str, Any], seconds: float) -> list[tuple[str, list[tuple[float, float]]]]:
    """(legend, points) of every line; times count in minutes from the left edge."""
    end = time.time()
    lines = []
    for target in panel["targets"]:
        query = {"query": target["expr"], "start": end - seconds, "end": end, "step": 5}
        body = httpx.get(f"{stack.PROMETHEUS}/api/v1/query_range", params=query, timeout=30.0).json()
        for one in body["data"]["result"]:
            points = [((float(at) - end + seconds) / 60, float(value)) for at, value in one["values"]]
            points = [point for point in points if math.isfinite(point[1])]
            if points:
                lines.append((_legend(target.get("legendFormat", ""), one["metric"]), points))
    return lines


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template).strip()


def _draw(title: str, answered: list[tuple[dict[str, Any], Any]], path: Path) -> Path:
    rows = math.ceil(len(answered) / _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(15, 2.9 * rows), squeeze=False)
    for axis, (panel, lines) in zip(axes.flat, answered, strict=False):
        is_points = panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle") == "points"
        for legend, points in lines:
            axis.plot(
                *zip(*points, strict=True), "." if is_points else "-", markersize=3, linewidth=1, label=legend or None
            )
        axis.set_title(panel["title"], fontsize=9)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axis.set_ylabel(unit.removeprefix("suffix:") if ":" in unit else _UNITS[unit], fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if len(lines) <= 8 and any(legend for legend, _ in lines):
            axis.legend(fontsize=6, loc="best")
    for axis in list(axes.flat)[len(answered) :]:
        axis.axis("off")
    figure.suptitle(f"{title} – the dashboard's queries on a live run (minutes), drawn with matplotlib", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
