"""The dashboards as Grafana shows them: their variables filled in, their queries answered by a Prometheus."""


def fill_in(text: str, *, run: str, namespace: str = "", seconds: float = 60.0) -> str:
    """A query for a chosen run; `seconds` is the shortest window of its rates."""
    values = {"__rate_interval": f"{seconds:g}s", "namespace": namespace, "window": "1m", "run": run}
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return text
