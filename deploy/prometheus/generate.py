"""Writes operator.yaml, the rules as the Prometheus operator reads them: `python deploy/prometheus/generate.py`.

`--docs URL` first lets the alerts, in rules/alerts.yml too, link to a runbook that is read there.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs_url import DOCS_URL

HERE = Path(__file__).parent
ALERTS = HERE / "rules/alerts.yml"


def main(docs: str) -> None:
    """Points the alerts to `docs`, and writes what the operator reads."""
    ALERTS.write_text(linked(ALERTS.read_text(encoding="utf-8"), docs), encoding="utf-8")
    (HERE / "operator.yaml").write_text(operator_rules(), encoding="utf-8")


def linked(alerts: str, docs: str) -> str:
    """The text of alerts.yml, with each runbook page below `docs`."""
    return re.sub(r"(?<=runbook_url: )\S+(?=/operations\.md#)", docs.rstrip("/"), alerts)


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
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--docs", default=DOCS_URL, metavar="URL", help="where docs/ is read (default: %(default)s)")
    main(arguments.parse_args().docs)
