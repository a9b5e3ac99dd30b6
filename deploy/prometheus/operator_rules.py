"""The rules of rules/*.yml, with links to a runbook, and as the Prometheus operator reads them."""

import re
from pathlib import Path

import yaml

RULES = Path(__file__).parent / "rules"


def link_runbook(alerts: str, docs: str) -> str:
    """The text of alerts.yml, with its runbook below the URL `docs`."""
    return re.sub(r"(?<=runbook_url: )\S+(?=/runbook\.md#)", docs.rstrip("/"), alerts)


def render_operator_rules() -> str:
    """A PrometheusRule with the groups of rules/*.yml."""
    groups = [
        group
        for path in sorted(RULES.glob("*.yml"), reverse=True)
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ibtpo"},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by deploy/generate.py from rules/*.yml.\n{text}"
