"""The URL of docs/, which panels and alerts link to."""

DOCS_URL = "/public/ibtpo"
"""Compose's Grafana serves docs/ there. Elsewhere give both generators `--docs URL`."""
