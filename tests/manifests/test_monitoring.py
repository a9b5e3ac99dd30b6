"""Dashboards, rules and alerts: written by their generators, over series that exist, with pages that exist."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from services.learner.metrics import LearnerMetrics, StepResult
from services.rollout.engines.embedded.counters import EngineCounters
from services.rollout.engines.embedded.series import EngineSeries
from services.rollout.engines.sglang import SglangMetrics
from services.rollout.metrics import RolloutMetrics
from services.verifier.metrics import VerifierMetrics
from shared.protocol.status import Accounts, RunState, RunStatus, StepFigures

ROOT = Path(__file__).resolve().parents[2]
BOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
_NAME = re.compile(r"\b(ibtpo[_:][a-z0-9_:]+)")


# the newer classes write a schema that Grafana 11 does not read
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_the_committed_dashboards_are_what_the_generator_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    generator = _module(ROOT / "deploy/grafana/generate.py")
    assert {path.stem for path in BOARDS} == set(generator.BOARDS)
    for path in BOARDS:
        assert path.read_text() == generator.to_json(generator.BOARDS[path.stem]), f"run {generator.__file__}"


def test_the_operators_rules_are_those_of_compose() -> None:
    generator = _module(ROOT / "deploy/prometheus/generate.py")
    assert (ROOT / "deploy/prometheus/operator.yaml").read_text() == generator.operator_rules(), generator.__file__


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_has_a_unit_a_description_and_a_page_that_exists(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "prometheus"
        (link,) = panel["links"]
        _assert_page(link["url"].removeprefix("/public/ibtpo/"))


def test_every_alert_has_a_page_of_the_runbook(alerts: list[dict[str, Any]]) -> None:
    for alert in alerts:
        _assert_page(alert["annotations"]["runbook_url"].removeprefix("docs/"))
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"]


def test_every_alert_has_a_unit_test(alerts: list[dict[str, Any]]) -> None:
    tested = (Path(__file__).parent / "alerts_test.yml").read_text()
    assert [alert["alert"] for alert in alerts if alert["alert"] not in tested] == []


def test_everything_that_is_asked_for_is_exported() -> None:
    recorded = set(re.findall(r"record: (\S+)", (ROOT / "deploy/prometheus/rules/recording.yml").read_text()))
    known = _exported() | recorded
    texts = [*BOARDS, *(ROOT / "deploy/prometheus/rules").glob("*.yml")]
    asked = {name for path in texts for name in _NAME.findall(path.read_text()) if not name.endswith("recording")}
    assert {name for name in asked if name not in known and name not in ("ibtpo-alerts",)} == set()


def _exported() -> set[str]:
    """The names of all series that the services have, those of the HTTP doors among them."""
    rollout, learner, verifier = RolloutMetrics(), LearnerMetrics(), VerifierMetrics(CollectorRegistry())
    learner.show_accounts(Accounts)
    learner.record_step(StepFigures(**dict.fromkeys(StepFigures.model_fields, 1)), StepResult.UPDATED)
    learner.show_status(lambda: RunStatus(run="r", state=RunState.TRAINING))
    sglang = CollectorRegistry()
    SglangMetrics(sglang)
    registries = (rollout.registry, learner.registry, verifier.registry, sglang)
    metrics = [metric for registry in registries for metric in registry.collect()]
    metrics += EngineSeries(EngineCounters()).collect()
    doors = {f"ibtpo_{name}_http_requests_total" for name in ("rollout", "learner", "verifier")}
    return doors | {name for metric in metrics for name in _names(metric)}


def _names(metric: Metric) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
    # a histogram with buckets below 0 has no sum, and then no count either
    is_signed = any(sample.labels.get("le", "").startswith("-") for sample in metric.samples)
    return {metric.name + suffix for suffix in (("_bucket",) if is_signed else suffixes)}


def _assert_page(link: str) -> None:
    page, _, anchor = link.partition("#")
    path = ROOT / "docs" / page
    assert path.is_file(), link
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert not anchor or anchor in anchors, f"{link}: {sorted(anchors)}"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
