"""Dashboards, rules and alerts: written by their generators, over series that exist, with pages that exist."""

import importlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from services.learner.metrics import LearnerMetrics, StepResult
from shared.protocol.figures import Shown, StepFigures, charts, figures_in
from tests.manifests.exported import evaluation, figures_of_a_step, metrics_of

ROOT = Path(__file__).resolve().parents[2]
BOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
RULES = ROOT / "deploy/prometheus/rules"
DOCS = "/public/ibtpo/"
DIMENSIONLESS = {
    *("State", "Firing alerts", "Cov(η₁, η₂), 5 minutes", "IB-Score of trees", "Reward by kind"),
    "Loss terms of your own",
}
FIGURES_ON = {"balance": Shown.BALANCE, "throughput": Shown.THROUGHPUT}
_NAME = re.compile(r"\b(ibtpo[_:][a-z0-9_:]+)")
_SELECTOR = re.compile(r"\b(ibtpo[_:][a-z0-9_:]+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_FIRED = re.compile(r'alertname="(\w+)", alertstate="firing"')


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    """deploy/generate.py, whose modules are found beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "deploy")
        yield importlib.import_module("generate")


# the newer classes write a schema that Grafana 11 does not read
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_the_committed_dashboards_are_what_the_generator_writes(generator: ModuleType) -> None:
    assert {path.stem for path in BOARDS} == set(generator.BOARDS)
    for path in BOARDS:
        written = generator.render_board(generator.BOARDS[path.stem], generator.COMPOSE_DOCS)
        assert path.read_text() == written, f"run {generator.__file__}"


def test_the_operators_rules_are_those_of_compose(generator: ModuleType) -> None:
    assert (ROOT / "deploy/prometheus/operator.yaml").read_text() == generator.render_operator_rules()


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_has_a_description_and_a_page_that_exists(path: Path) -> None:
    every = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in (panel for panel in every if panel["type"] != "row"):
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "prometheus"
        (link,) = panel["links"]
        _assert_page(link["url"])


def test_every_panel_has_a_unit_but_for_numbers_without_one() -> None:
    units = {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in _panels()}
    charted = {chart.title for where in FIGURES_ON.values() for chart in charts(where) if not chart.first.unit}
    assert {title for title, unit in units.items() if unit == "none"} == DIMENSIONLESS | charted
    assert {unit for unit in units.values() if not unit.startswith("suffix:")} == {
        *("none", "percentunit", "s", "short", "bytes", "watt"),
    }
    for panel in _graphs():
        defaults = panel["fieldConfig"]["defaults"]
        assert (defaults["unit"] == "short") == bool(defaults["custom"].get("axisLabel")), panel["title"]


def test_every_graph_has_a_legend_and_every_series_a_name() -> None:
    for panel in _graphs():
        assert panel["options"]["legend"]["showLegend"], panel["title"]
    for panel in _panels():
        assert all(target["legendFormat"] not in ("", "__auto") for target in panel["targets"]), panel["title"]


def test_what_is_stacked_begins_at_0_and_shares_end_at_1() -> None:
    stacks = [
        panel["fieldConfig"]["defaults"]
        for panel in _graphs()
        if "stacking" in panel["fieldConfig"]["defaults"]["custom"]
    ]
    assert stacks
    for defaults in stacks:
        assert defaults["min"] == 0
        assert defaults.get("max") == (1 if defaults["unit"] == "percentunit" else None)


def test_a_run_is_read_at_a_glance() -> None:
    (path,) = (path for path in BOARDS if path.stem == "balance")
    panels = json.loads(path.read_text())["panels"]
    assert [panel["title"] for panel in panels[:4]] == [
        *("At a glance", "Held-out accuracy over time", "Reward", "Where a step's time goes"),
    ]
    assert {panel["gridPos"]["y"] for panel in panels[1:4]} == {1}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_rows_a_chosen_run_and_marks_of_what_happened(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["panels"][0]["type"] == "row"
    assert [variable["name"] for variable in board["templating"]["list"]] == ["namespace", "run", "window"]
    marks = [mark["name"] for mark in board["annotations"]["list"]]
    assert marks == ["Evaluation", "Checkpoint", "Generation", "Restart"]


def test_every_query_is_of_the_chosen_namespace_and_run() -> None:
    """Two runs of one cluster are never added up; a verifier serves any run."""
    marks = [mark["expr"] for path in BOARDS for mark in json.loads(path.read_text())["annotations"]["list"]]
    for expression in [*marks, *(target["expr"] for panel in _panels() for target in panel["targets"])]:
        chosen = re.findall(r"(?<![\w:\"])((?:ibtpo[_:]|sglang:|process_|up\b|ALERTS\b)[\w:]*)(\{[^}]*\})?", expression)
        assert chosen or "DCGM_" in expression, expression
        for name, matchers in chosen:
            assert 'namespace="$namespace"' in matchers, expression
            assert ("$run" in matchers) == (not name.startswith(("ibtpo_verifier_", "ibtpo:verdicts", "up"))), (
                expression
            )


def test_rates_suit_the_range_that_is_shown() -> None:
    """A fixed window of five minutes draws a ramp where a run takes five minutes."""
    windows = [
        re.findall(r"rate\([^\[]*\[([^\]]+)\]", target["expr"]) for panel in _graphs() for target in panel["targets"]
    ]
    assert {window for found in windows for window in found} == {"$__rate_interval", "$window"}


@pytest.mark.parametrize("board", FIGURES_ON)
def test_a_dashboard_shows_the_figures_that_are_declared_for_it(board: str) -> None:
    (path,) = (path for path in BOARDS if path.stem == board)
    asked = set(_NAME.findall(path.read_text()))
    assert asked & {f"ibtpo_learner_{name}" for name in StepFigures.model_fields} == {
        f"ibtpo_learner_{name}" for name in figures_in(StepFigures, FIGURES_ON[board])
    }


def test_a_panel_that_asks_for_what_is_not_there_is_empty() -> None:
    """A 0 in its place would hide a wrong name. Where no alert fires, the panel says so."""
    made_up = [panel["title"] for panel in _panels() for target in panel["targets"] if "vector(0)" in target["expr"]]
    assert made_up == ["Firing alerts"]


def test_alerts_link_to_the_docs_that_the_generator_is_given(
    generator: ModuleType, alerts: list[dict[str, Any]]
) -> None:
    text = generator.link_runbook((RULES / "alerts.yml").read_text(), "https://docs.example.org/ibtpo/")
    moved = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    for before, after in zip(alerts, moved, strict=True):
        page = before["annotations"]["runbook_url"].removeprefix(DOCS)
        assert after["annotations"]["runbook_url"] == f"https://docs.example.org/ibtpo/{page}"


def test_every_alert_has_a_page_of_the_runbook(alerts: list[dict[str, Any]]) -> None:
    for alert in alerts:
        assert alert["annotations"]["runbook_url"] == f"{DOCS}runbook.md#{alert['alert'].lower()}"
        _assert_page(alert["annotations"]["runbook_url"])
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"]


def test_every_alert_fires_in_a_unit_test(alerts: list[dict[str, Any]]) -> None:
    expected = [one for test in _unit_tests() for one in test.get("promql_expr_test", ())]
    fired = {name for one in expected for sample in one["exp_samples"] for name in _FIRED.findall(sample["labels"])}
    named = [one for test in _unit_tests() for one in test.get("alert_rule_test", ())]
    fired |= {one["alertname"] for one in named if one["exp_alerts"]}
    assert {alert["alert"] for alert in alerts} - fired == set()


def test_everything_that_is_asked_for_is_exported() -> None:
    known = _exported() | _recorded().keys()
    texts = [*BOARDS, *RULES.glob("*.yml")]
    asked = {name for path in texts for name in _NAME.findall(path.read_text()) if not name.endswith("recording")}
    assert {name for name in asked if name not in known and name not in ("ibtpo-alerts",)} == set()


def test_every_label_value_that_is_asked_for_is_exported_from_the_start() -> None:
    """A value that the code never says, or says with its first event only, is an alert that never fires."""
    values, sources = _values_of_labels(), _recorded()
    asked = {one for expr in _expressions() for one in _selected(expr)}
    assert len(asked) > 20
    unknown = {
        (name, label, value)
        for name, label, value in asked
        if not any(value in values[source, label] for source in sources.get(name, {name}))
    }
    assert unknown == set()


def test_the_alerts_are_tested_with_series_as_the_code_exports_them() -> None:
    values = _values_of_labels()
    fed = {one["series"] for test in _unit_tests() for one in test["input_series"]}
    chosen = {one for series in fed for one in _selected(series) if one[1] not in ("job", "instance", "kind")}
    assert {(name, label, value) for name, label, value in chosen if value not in values[name, label]} == set()
    assert {name for series in fed for name in _NAME.findall(series)} <= _exported()


def _expressions() -> Iterator[str]:
    for path in RULES.glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule["expr"] for rule in group["rules"])
    for panel in _panels():
        yield from (target["expr"] for target in panel["targets"])


def _selected(expression: str) -> Iterator[tuple[str, str, str]]:
    """(series, label, value) of each selector, and of each alternative of a regular expression, but for labels that
    every series has."""
    for name, matchers in _SELECTOR.findall(expression):
        for label, alternatives in _MATCHER.findall(matchers):
            if label not in ("namespace", "run"):
                yield from ((name, label, value) for value in alternatives.split("|"))


def _panels() -> list[dict[str, Any]]:
    panels = [panel for path in BOARDS for panel in json.loads(path.read_text())["panels"]]
    return [panel for panel in panels if panel["type"] != "row"]


def _graphs() -> list[dict[str, Any]]:
    return [panel for panel in _panels() if panel["type"] == "timeseries"]


def _unit_tests() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())["tests"]
    return tests


def _recorded() -> dict[str, set[str]]:
    """The series of the services that each recorded one is made of."""
    (group,) = yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
    return {rule["record"]: set(_NAME.findall(rule["expr"])) - {rule["record"]} for rule in group["rules"]}


def _values_of_labels() -> dict[tuple[str, str], set[str]]:
    """The values of each label of each series, of services that have just started; an accuracy has none before it is
    measured."""
    learner = LearnerMetrics()
    learner.record_evaluation(evaluation())
    accuracy = [metric for metric in learner.registry.collect() if metric.name.startswith("ibtpo_learner_held_out_")]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for metric in [*metrics_of(LearnerMetrics()), *accuracy]:
        for sample in metric.samples:
            for label, value in sample.labels.items():
                values[sample.name, label].add(value)
    return values


def _exported() -> set[str]:
    """The names of all series of the services, those of their HTTP middleware among them."""
    learner = LearnerMetrics()
    learner.record_step(figures_of_a_step(), StepResult.UPDATED)
    requests = {f"ibtpo_{name}_http_requests_total" for name in ("rollout", "learner", "verifier")}
    return requests | {name for metric in metrics_of(learner) for name in _names(metric)}


def _names(metric: Metric) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
    # a histogram with buckets below 0 has no sum, and then no count either
    is_signed = any(sample.labels.get("le", "").startswith("-") for sample in metric.samples)
    return {metric.name + suffix for suffix in (("_bucket",) if is_signed else suffixes)}


def _assert_page(link: str) -> None:
    assert link.startswith(DOCS), link
    page, _, anchor = link.removeprefix(DOCS).partition("#")
    path = ROOT / "docs" / page
    assert path.is_file(), link
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert not anchor or anchor in anchors, f"{link}: {sorted(anchors)}"
