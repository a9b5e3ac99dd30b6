"""Where people read docs/: panels and alerts link to pages below it."""

DOCS_URL = "/public/ibtpo"
"""On Compose's Grafana, which mounts docs/ there. Elsewhere: `--docs URL` of the two generators."""
