"""Writes operator.yaml, the rules as the Prometheus operator reads them: `python deploy/prometheus/generate.py`."""

from pathlib import Path

import yaml

HERE = Path(__file__).parent


def operator_rules() -> str:
    """A PrometheusRule with the groups of rules/*.yml."""
    groups = [
        group
        for path in sorted((HERE / "rules").glob("*.yml"), reverse=True)
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ibtpo"},
        "spec": {"groups": groups},
    }
    return "# Written by generate.py from rules/*.yml.\n" + yaml.safe_dump(
        rule, sort_keys=False, width=120, allow_unicode=True
    )


if __name__ == "__main__":
    (HERE / "operator.yaml").write_text(operator_rules(), encoding="utf-8")
