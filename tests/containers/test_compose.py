"""The drills, in this order, on one composed system: it is brought up once and taken down at the end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.learner.config import LearnerConfig
from services.rollout.config import RolloutConfig
from shared.runtime.config import load_config
from tests.containers import stack
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)
SERVICES = ("redis", "verifier", "rollout", "learner", "prometheus")
# What a CPU run of one process cannot have: SGLang's own series, those of several ranks, failures that did not happen.
ABSENT_ON_CPU = (
    "sglang:",
    "DCGM_",
    "ibtpo_rollout_engine_starts",
    "ibtpo_rollout_engine_pause",
    "ibtpo_rollout_engine_up",
    "ibtpo_learner_mfu",  # of known CUDA devices
    "ibtpo_learner_stale_trajectory_tokens",
    "ibtpo_learner_rank_silent_seconds",
    "ibtpo_learner_own_term",  # the run has no loss term of its own
)


@pytest.fixture(scope="module", autouse=True)
def _system() -> Iterator[None]:
    stack.compose("down", "--volumes", "--remove-orphans", timeout=200)
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "120", "--no-build", timeout=180)
    yield
    stack.compose("down", "--volumes", "--remove-orphans", timeout=200)


def test_every_container_runs_without_root_capabilities_or_a_writable_root() -> None:
    for service in SERVICES:
        for container in stack.containers(service):
            seen = stack.inspect(container)
            host = seen["HostConfig"]
            assert seen["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert "no-new-privileges:true" in host["SecurityOpt"], service
            assert host["Memory"] > 0, service
            assert host["PidsLimit"] > 0, service


def test_ports_are_published_on_loopback_alone() -> None:
    for service in SERVICES:
        for container in stack.containers(service):
            bindings = stack.inspect(container)["HostConfig"]["PortBindings"] or {}
            assert {binding["HostIp"] for bound in bindings.values() for binding in bound} <= {"127.0.0.1"}, service


def test_each_image_holds_only_what_its_service_needs() -> None:
    look = (
        "import importlib.util as u; print([m for m in ('torch','redis','math_verify','matplotlib') if u.find_spec(m)])"
    )
    held = {service: stack.compose("exec", "-T", service, "python", "-c", look) for service in SERVICES[1:4]}
    assert held["verifier"].strip() == "['math_verify']"
    assert held["rollout"].strip() == held["learner"].strip() == "['torch', 'redis']"


def test_a_package_of_ones_own_is_found_by_replicas_and_learner() -> None:
    look = (
        "from my_parts.own_credit import MedianCredit; from my_parts.own_sampler import VarianceSampler; print('found')"
    )
    for service in ("rollout", "learner"):
        assert stack.compose("exec", "-T", service, "python", "-c", look).strip() == "found"


def test_model_code_is_jailed_in_the_container() -> None:
    look = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/healthz').read().decode())"
    code = json.loads(stack.compose("exec", "-T", "verifier", "python", "-c", look))["kinds"]["code"]
    assert code["refusal"] is None
    assert code["isolated"] is True


def test_the_verifier_reaches_nobody_outside_its_network() -> None:
    """The learner asks the verifier about its answer keys, so it has one address in the verifier's network."""
    ports = {"redis": 6379, "learner": 8003}
    shared = stack.networks("verifier")
    addresses = [
        (address, port)
        for service, port in ports.items()
        for network, address in stack.networks(service).items()
        if network not in shared
    ]
    assert len(addresses) >= 3, "the learner has an address in each of its other networks"
    look = (
        "import socket\n"
        f"for address in {[*addresses, ('1.1.1.1', 443)]}:\n"
        "    try: socket.create_connection(address, 2); print('reached', address)\n"
        "    except OSError: pass\n"
    )
    assert stack.compose("exec", "-T", "verifier", "python", "-c", look) == ""
    assert "reached" in stack.compose("exec", "-T", "rollout", "python", "-c", look), "others reach these addresses"


def test_the_api_needs_the_token_and_probes_do_not() -> None:
    assert stack.HTTP.get(f"{stack.LEARNER}/v1/status").status_code == 401
    assert "CHANGEME" not in stack.headers()["Authorization"]
    assert stack.HTTP.get(f"{stack.LEARNER}/v1/status", headers=stack.headers()).status_code == 200
    assert stack.HTTP.get(f"{stack.LEARNER}/healthz").status_code == 200


def test_ibtpo_status_works_inside_a_container() -> None:
    """As the runbook begins: no token is given, and no port of Redis is published."""
    stack.wait_for_status(lambda status: status["step"] >= 1)
    assert stack.RUN in stack.compose("exec", "-T", "rollout", "ibtpo", "status")


@pytest.mark.parametrize(
    ("service", "asked"),
    [
        ("rollout", {"redis: eviction", "verifier: judges", "learner: token", "this machine: weights"}),
        ("learner", {"redis: persistence", "verifier: sandbox", "learner: ready"}),
        ("verifier", {"verifier: token", "verifier: sandbox"}),
    ],
)
def test_the_doctor_finds_nothing_broken_from_inside_each_container(service: str, asked: set[str]) -> None:
    found = json.loads(stack.compose("exec", "-T", service, "sh", "-c", "ibtpo doctor --json || test $? = 1"))
    seen = {f"{part['subject']}: {one['check']}": one for part in found["sections"] for one in part["findings"]}
    assert not [one for one in seen.values() if one["level"] == "failed"]
    assert asked <= seen.keys()
    assert stack.headers()["Authorization"].removeprefix("Bearer ") not in json.dumps(found)


def test_training_progresses() -> None:
    seen = stack.wait_for_status(lambda status: status["step"] >= 4)
    assert seen["evaluations"], "there is an evaluation before the first step"
    assert seen["accounts"]["used"] > 0


def test_replicas_join_and_leave_in_mid_run() -> None:
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "rollout=3", "rollout")
    stack.wait_for_status(lambda status: _serving(status) == 3)
    stack.wait_for_steps(4)
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "rollout=1", "rollout")
    seen = stack.wait_for_status(lambda status: len(status["replicas"]) == 1)
    assert seen["accounts"]["failed"] == 0
    stack.wait_for_steps(4)


@pytest.mark.parametrize("service", ["rollout", "verifier", "redis", "learner"])
def test_a_killed_container_comes_back_and_training_goes_on(service: str) -> None:
    before = stack.wait_for_status(lambda status: status["state"] == "training")
    container = stack.containers(service)[0]
    stack.kill(container)
    wait_until(lambda: _is_restarted(container), 60.0, stack.logs, every_seconds=0.5)
    seen = stack.wait_for_steps(4, seconds=120)
    assert seen["accounts"]["failed"] == 0
    assert _serving(stack.wait_for_status(lambda status: _serving(status) == 1)) == 1
    if service == "learner":
        assert seen["version"]["generation"] == before["version"]["generation"] + 1


def test_prometheus_finds_every_service_and_can_read_every_rule() -> None:
    up = {one["metric"]["job"] for one in stack.query("up == 1")}
    assert up >= {"learner", "rollout", "verifier"}
    groups = stack.HTTP.get(f"{stack.PROMETHEUS}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


def test_every_panel_is_answered_with_data() -> None:
    stack.wait_for_steps(8)
    accuracy = 'ibtpo:held_out_accuracy:last{run="drill"}'  # a learner that was killed has none until it evaluates
    wait_until(lambda: bool(stack.query(accuracy)), seconds=120, what="an evaluation in Prometheus", every_seconds=0.5)
    empty, failed = [], []
    for panel, expression in stack.panel_expressions():
        if any(name in expression for name in ABSENT_ON_CPU):
            stack.query(expression)
            continue
        found = stack.query(expression)
        if not found:
            empty.append((panel, expression))
        elif all(one["value"][1] == "NaN" for one in found):
            failed.append((panel, expression))
    assert (empty, failed) == ([], [])


def test_every_series_that_an_alert_reads_is_there() -> None:
    names = stack.series_names()
    asked = {(rule["alert"], name) for rule in _alerts() for name in _metrics_of(rule["expr"])}
    missing = {(alert, name) for alert, name in asked if name not in names and not name.startswith(ABSENT_ON_CPU)}
    assert missing == set()


def test_every_scrape_accounted_for_all_tasks() -> None:
    assert stack.query("max_over_time(abs(ibtpo:unaccounted_tasks:difference)[20m:5s]) == 0")


def test_a_stopped_run_ends_with_code_0_and_is_not_restarted_while_dashboards_stay() -> None:
    (learner,) = stack.containers("learner")
    response = stack.HTTP.post(f"{stack.LEARNER}/v1/stop", headers=stack.headers())
    accounts = response.json()["accounts"]
    stack.assert_accounted(accounts)
    wait_until(lambda: not stack.inspect(learner)["State"]["Running"], 60.0, stack.logs, every_seconds=0.5)
    ended = stack.inspect(learner)["State"]
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 0), "a container that is started again is `restarting`"
    assert stack.query('last_over_time(ibtpo_learner_run_state{state="stopped"}[5m]) == 1'), "its end was scraped"


def test_every_outstanding_task_is_on_a_stream() -> None:
    """Nothing is lost: Redis holds every task that was fed and has not ended, as a task or as a tree."""
    status = json.loads(_redis("GET", f"ibtpo:{{{stack.RUN}}}:status"))
    held = sum(int(_redis("XLEN", f"ibtpo:{{{stack.RUN}}}:{stream}")) for stream in ("tasks", "trees"))
    assert held == status["accounts"]["outstanding"]
    assert status["accounts"]["failed"] == 0
    stack.assert_accounted(status["accounts"])


def test_the_gpu_profile_is_sound_as_far_as_a_machine_without_gpus_can_tell() -> None:
    words = ("compose", "--env-file", "deploy/docker/gpu.env", "config", "--format", "json")
    services = json.loads(stack.docker(*words, is_drill=False))["services"]
    assert services["rollout"]["deploy"]["replicas"] == services["learner"]["deploy"]["replicas"] == 0
    for name, model, section in (("rollout-gpu", RolloutConfig, "rollout"), ("learner-gpu", LearnerConfig, "learner")):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert {"mem_limit", "pids_limit", "stop_grace_period"} <= services[name].keys()
        _, preset, *settings = services[name]["command"]
        given = load_config(model, section, preset, settings)
        assert given.run == "qwen3-1.7b"
    assert given.model == Path("/models/Qwen3-1.7B")
    (models,) = [one for one in services["learner-gpu"]["volumes"] if one["target"] == "/models"]
    assert models["source"] == str(stack.ROOT / "models")


def test_down_leaves_nothing() -> None:
    stack.compose("down", "--volumes", "--remove-orphans", timeout=200)
    label = "label=com.docker.compose.project=ibtpo"
    assert stack.docker("ps", "-aq", "--filter", label) == ""
    assert stack.docker("network", "ls", "-q", "--filter", label) == ""
    assert stack.docker("volume", "ls", "-q", "--filter", label) == ""


def _serving(status: dict[str, Any]) -> int:
    return sum(replica["state"] == "serving" for replica in status["replicas"])


def _is_restarted(container: str) -> bool:
    seen = stack.inspect(container)
    health = seen["State"].get("Health", {}).get("Status", "healthy")
    return seen["RestartCount"] >= 1 and seen["State"]["Running"] and health == "healthy"


def _redis(*words: str) -> str:
    return stack.compose("exec", "-T", "redis", "redis-cli", *words).strip()


def _alerts() -> list[dict[str, Any]]:
    text = (stack.ROOT / "deploy/prometheus/rules/alerts.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def _metrics_of(expression: str) -> set[str]:
    words = expression.replace("{", " ").replace("(", " ").replace(")", " ").replace("[", " ").split()
    return {word for word in words if word.startswith(("ibtpo_", "ibtpo:"))}
