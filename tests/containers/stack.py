"""The composed system that the drills run on: its containers, its run, its Prometheus."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.manifests.dashboards import fill_in
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
RUN = "drill"
ENVIRONMENT = {"IBTPO_CONFIG": "/ci/drill.toml", "IBTPO_RUN": RUN, "IBTPO_ROLLOUTS": "1"}
LEARNER = "http://127.0.0.1:8003"
PROMETHEUS = "http://127.0.0.1:9090"
HTTP = httpx.Client(timeout=20.0)  # one for hundreds of requests: making one takes as long as many of them


def docker(*words: str, timeout: float = 60.0, is_drill: bool = True) -> str:
    """Runs a docker command and returns its output. With `is_drill` off, compose.yaml keeps its defaults."""
    environment = os.environ | (ENVIRONMENT if is_drill else {})
    done = subprocess.run(
        ["docker", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
    return done.stdout


def compose(*words: str, timeout: float = 120.0) -> str:
    """Runs a docker compose command on the project."""
    return docker("compose", *words, timeout=timeout)


def containers(service: str, *, ended: bool = False) -> list[str]:
    """The ids of a service's containers."""
    return compose("ps", "-q", *(["-a"] if ended else []), service).split()


def inspect(container: str) -> dict[str, Any]:
    """What `docker inspect` says of a container."""
    found: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return found


def networks(service: str) -> dict[str, str]:
    """The networks of a service's first container, each with the container's address in it."""
    found = inspect(containers(service)[0])["NetworkSettings"]["Networks"]
    return {name: network["IPAddress"] for name, network in found.items()}


def kill(container: str) -> int:
    """Kills a container's first process from outside: after `docker kill` Docker would restart nothing."""
    pid = int(inspect(container)["State"]["Pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


def status() -> dict[str, Any] | None:
    """The run's status; None while the learner does not answer."""
    try:
        response = HTTP.get(f"{LEARNER}/v1/status", headers=headers(), timeout=5.0)
    except httpx.HTTPError:
        return None
    found: dict[str, Any] | None = response.json() if response.is_success else None
    return found


@cache
def headers() -> dict[str, str]:
    """With the token that the first container made."""
    return {"Authorization": f"Bearer {compose('exec', '-T', 'rollout', 'cat', '/run/ibtpo/token')}"}


def wait_for_status(wanted: Callable[[dict[str, Any]], bool], seconds: float = 90.0) -> dict[str, Any]:
    """The first status that is as wanted; every status on the way accounts for all tasks."""
    last: dict[str, Any] = {}

    def is_as_wanted() -> bool:
        last.update(status() or {})
        if last:
            assert_accounted(last["accounts"])
        return bool(last) and wanted(last)

    def describe() -> str:
        return f"the last status: {json.dumps(last)[:1500]}\n{logs()}"

    wait_until(is_as_wanted, seconds, describe, every_seconds=0.5)
    return last


def wait_for_steps(steps: int, seconds: float = 90.0) -> dict[str, Any]:
    """Waits for so many more steps."""
    step = wait_for_status(lambda _: True)["step"]
    return wait_for_status(lambda seen: seen["step"] >= step + steps, seconds)


def assert_accounted(accounts: dict[str, int]) -> None:
    """fed = used + skipped + stale + failed + outstanding."""
    ended = sum(accounts[end] for end in ("used", "skipped", "stale", "failed"))
    assert accounts["fed"] == ended + accounts["outstanding"], accounts


def query(expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers to an expression now."""
    response = HTTP.get(f"{PROMETHEUS}/api/v1/query", params={"query": expression})
    body = response.json()
    assert body["status"] == "success", f"{expression}: {body}"
    found: list[dict[str, Any]] = body["data"]["result"]
    return found


def logs() -> str:
    """The last lines of every log, for the message of a failure."""
    return compose("logs", "--tail", "8", "--no-color")[-6000:]


def series_names() -> set[str]:
    """The names of all series that Prometheus has."""
    names = HTTP.get(f"{PROMETHEUS}/api/v1/label/__name__/values").json()["data"]
    return set(names)


def panel_expressions() -> Iterator[tuple[str, str]]:
    """(dashboard and panel, expression) of every query of every dashboard, with Grafana's variables filled in."""
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", fill_in(target["expr"], run=RUN)
