"""Writes dashboards and operator rules: `python deploy/generate.py [--docs URL]`.

Panels and alerts link to pages of docs/. Compose's Grafana serves these; elsewhere give their URL.
"""

import argparse
from pathlib import Path

from grafana.boards import balance, sglang, throughput, verifier
from grafana.render import render_board
from prometheus.operator_rules import RULES, link_runbook, render_operator_rules

HERE = Path(__file__).parent
COMPOSE_DOCS = "/public/ibtpo"
BOARDS = {
    "balance": balance.BOARD,
    "throughput": throughput.BOARD,
    "verifier": verifier.BOARD,
    "sglang": sglang.BOARD,
}


def main(docs: str) -> None:
    """Writes grafana/dashboards/*.json, the links of prometheus/rules/alerts.yml, and prometheus/operator.yaml."""
    for name, board in BOARDS.items():
        (HERE / f"grafana/dashboards/{name}.json").write_text(render_board(board, docs), encoding="utf-8")
    alerts = RULES / "alerts.yml"
    alerts.write_text(link_runbook(alerts.read_text(encoding="utf-8"), docs), encoding="utf-8")
    (HERE / "prometheus/operator.yaml").write_text(render_operator_rules(), encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--docs", default=COMPOSE_DOCS, metavar="URL", help="of docs/ (default: %(default)s)")
    main(arguments.parse_args().docs.rstrip("/"))
