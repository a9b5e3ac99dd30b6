"""Our own asserts over the rendered overlays: what no schema knows."""

import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import BaseModel

from services.learner.config import LearnerConfig
from services.rollout.config import RolloutConfig
from services.verifier.config import VerifierConfig
from shared.runtime.config import load_config
from shared.runtime.middleware import PROBES
from shared.streams.keys import ROLLOUT_GROUP, RunKeys

Manifest = dict[str, Any]
Render = Callable[[str], tuple[Manifest, ...]]
ROOT = Path(__file__).resolve().parents[2]
COMPONENT = "app.kubernetes.io/component"
SYSTEMS = ["cpu", "gpu", "keda"]
CONFIGS: dict[str, type[BaseModel]] = {"learner": LearnerConfig, "rollout": RolloutConfig, "verifier": VerifierConfig}


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_probes_ask_what_the_apps_answer_on_a_port_that_the_container_has(render: Render, overlay: str) -> None:
    for component, container in _containers(render(overlay)):
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if component == "redis":
                continue
            asked = container[probe]["httpGet"]
            assert asked["path"] in PROBES
            assert asked["port"] in ports
            assert f"port={ports[asked['port']]}" in container["args"]


@pytest.mark.parametrize("overlay", SYSTEMS)
@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::7"])
def test_pods_listen_and_are_reached_on_clusters_of_either_address_family(
    render: Render, overlay: str, address: str
) -> None:
    containers = {name: one for name, one in _containers(render(overlay)) if name != "redis"}
    assert all("host=::" in container["args"] for container in containers.values())
    (url,) = (argument for argument in containers["rollout"]["args"] if argument.startswith("url="))
    config = load_config(RolloutConfig, "rollout", None, [url.replace("$(POD_IP)", address)])
    assert urlsplit(config.url).hostname == address
    assert urlsplit(config.url).port == 8001


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_no_token_comes_with_the_manifests_and_pods_wait_for_the_one_that_the_install_makes(
    render: Render, overlay: str
) -> None:
    manifests = render(overlay)
    assert not _of(manifests, "Secret")
    pods = [one for kind in ("Deployment", "Job") for one in _of(manifests, kind)]
    assert len(pods) == 3
    for pod in pods:
        spec = pod["spec"]["template"]["spec"]
        (secret,) = (volume["secret"] for volume in spec["volumes"] if "secret" in volume)
        assert secret["secretName"] == "ibtpo"
        assert not secret.get("optional")
    page = (ROOT / "docs/operations.md").read_text()
    assert "kubectl -n ibtpo create secret generic ibtpo --from-literal=token=" in page


def test_an_overlay_of_ones_own_may_make_the_token_from_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "deploy/kubernetes", folder / "kubernetes")
    overlay = folder / "kubernetes/overlays/mine"
    overlay.mkdir()
    (overlay / "token").write_text("0123456789abcdef0123456789abcdef")
    (overlay / "kustomization.yaml").write_text(
        "namespace: ibtpo\nresources: [../cpu]\nsecretGenerator:\n  - {name: ibtpo, files: [token]}\n"
    )
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    manifests = tuple(yaml.safe_load_all(done.stdout))
    (secret,) = _of(manifests, "Secret")
    (learner,) = _of(manifests, "Job")
    volumes = learner["spec"]["template"]["spec"]["volumes"]
    assert {"secret": {"secretName": secret["metadata"]["name"], "defaultMode": 0o444}, "name": "token"} in volumes


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_services_select_pods_that_have_their_ports(render: Render, overlay: str) -> None:
    manifests = render(overlay)
    containers = dict(_containers(manifests))
    services = _of(manifests, "Service")
    assert {service["metadata"]["name"] for service in services} == {"redis", "verifier", "rollout", "learner"}
    for service in services:
        container = containers[service["spec"]["selector"][COMPONENT]]
        names = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_selectors_match_the_labels_of_pods(render: Render, overlay: str) -> None:
    for manifest in render(overlay):
        spec = manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            wanted = spec["selector"]["matchLabels"].items()
            assert wanted <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_the_settings_of_every_container_are_settings_of_its_service(render: Render, overlay: str) -> None:
    manifests = render(overlay)
    (preset,) = (one["data"]["run.toml"] for one in _of(manifests, "ConfigMap") if "run.toml" in one["data"])
    tables = tomllib.loads(preset)
    for component, container in _containers(manifests):
        if component != "redis":
            given = [argument for argument in container["args"] if "=" in argument]
            settings = [f"{component}.{one}" for one in given]
            _load(CONFIGS[component], component, tables, settings)


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_pods_fit_the_restricted_standard(render: Render, overlay: str) -> None:
    manifests = render(overlay)
    (namespace,) = _of(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in _pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_the_verifier_may_reach_nobody(render: Render, overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in _of(render(overlay), "NetworkPolicy")}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["verifier"]["egress"] == []
    assert policies["redis"]["egress"] == []


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_what_one_policy_lets_out_another_lets_in(render: Render, overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in _of(render(overlay), "NetworkPolicy")}
    for sender in ("rollout", "learner"):
        for rule in policies[sender]["egress"]:
            for peer in rule["to"]:
                receiver = peer.get("podSelector", {}).get("matchLabels", {}).get(COMPONENT)
                if receiver is not None:
                    assert (sender, rule["ports"][0]["port"]) in set(_let_in(policies[receiver]))


@pytest.mark.parametrize("overlay", SYSTEMS)
def test_graces_are_long_enough_for_a_drain(render: Render, overlay: str) -> None:
    for pod in _pods(render(overlay)):
        (container,) = pod["containers"]
        for argument in container.get("args", ()):
            if argument.startswith("grace_seconds="):
                pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
                assert pause + float(argument.partition("=")[2]) < pod["terminationGracePeriodSeconds"]
    learner = LearnerConfig.model_fields["grace_seconds"].default
    (job,) = _of(render(overlay), "Job")
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > learner


def test_what_compose_stops_has_time_to_drain() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for config, names in {
        VerifierConfig: ("verifier",),
        RolloutConfig: ("rollout", "rollout-gpu"),
        LearnerConfig: ("learner", "learner-gpu"),
    }.items():
        for name in names:
            grace = float(services[name]["stop_grace_period"].removesuffix("s"))
            assert grace > config.model_fields["grace_seconds"].default, name


def test_the_gpu_run_has_room_for_its_checkpoints(render: Render) -> None:
    """Of its 1.7 billion parameters; figures per parameter as in docs/operations.md, Sizing."""
    config = LearnerConfig.model_fields
    (claim,) = [one for one in _of(render("gpu"), "PersistentVolumeClaim") if one["metadata"]["name"] == "runs"]
    gibibytes = float(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    checkpoints = 12 * 1.7e9 * (config["keep_checkpoints"].default + 1)
    published = 2 * 1.7e9 * 4
    assert gibibytes * 2**30 > checkpoints + published


def test_a_learner_that_is_done_is_not_started_again(render: Render) -> None:
    (job,) = _of(render("cpu"), "Job")
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_keda_reads_the_stream_and_the_group_that_the_code_uses(render: Render) -> None:
    manifests = render("keda")
    (scaled,) = _of(manifests, "ScaledObject")
    (preset,) = (one["data"]["run.toml"] for one in _of(manifests, "ConfigMap") if "run.toml" in one["data"])
    run = tomllib.loads(preset)["rollout"]
    lag, pending = (trigger["metadata"] for trigger in scaled["spec"]["triggers"])
    for trigger in (lag, pending):
        assert trigger["stream"] == RunKeys(run["run"]).tasks
        assert trigger["consumerGroup"] == ROLLOUT_GROUP
    assert "activationLagCount" in lag
    assert int(pending["pendingEntriesCount"]) == run["max_trees"]
    autoscalers = {one["metadata"]["name"] for one in _of(manifests, "HorizontalPodAutoscaler")}
    assert autoscalers == {"verifier"}, "two autoscalers of one deployment fight"


def test_the_pod_monitor_finds_the_pods_and_their_port(render: Render) -> None:
    (monitor,) = _of(render("monitoring"), "PodMonitor")
    (rule,) = monitor["spec"]["selector"]["matchExpressions"]
    containers = dict(_containers(render("cpu")))
    for component in rule["values"]:
        names = {port["name"] for port in containers[component]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= names


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here; `make test-manifests` asks for it")
def test_the_label_of_a_release_takes_opening_one_line(tmp_path: Path) -> None:
    deploy = shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    overlay = deploy / "kubernetes/overlays/monitoring"
    text = (overlay / "kustomization.yaml").read_text()
    (overlay / "kustomization.yaml").write_text(text.replace("# - pairs: {release:", "- pairs: {release:"))
    rendered = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, check=True, timeout=60)
    for manifest in yaml.safe_load_all(rendered.stdout):
        assert manifest["metadata"]["labels"]["release"] == "kube-prometheus-stack", manifest["kind"]


def test_the_base_trains_the_demo_as_the_preset_does() -> None:
    base = tomllib.loads((ROOT / "deploy/kubernetes/base/run.toml").read_text())
    preset = tomllib.loads((ROOT / "deploy/config/demo.toml").read_text())
    for section in ("learner", "rollout"):
        wanted = {key: value for key, value in preset[section].items() if key != "sglang"}  # a folder of a checkout
        assert {key: base[section].get(key) for key in wanted} == wanted


def _load(model: type[BaseModel], section: str, tables: dict[str, Any], settings: list[str]) -> None:
    """Reads a service's settings as the service itself would."""
    flat = [f"{section}.{key}={_toml(value)}" for key, value in tables.get(section, {}).items()]
    load_config(model, section, None, [*flat, *settings])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _of(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def _workloads(manifests: tuple[Manifest, ...]) -> Iterator[Manifest]:
    for kind in ("Deployment", "StatefulSet", "Job"):
        yield from _of(manifests, kind)


def _pods(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    pods = [one["spec"]["template"]["spec"] for one in _workloads(manifests)]
    assert len(pods) == 4
    return pods


def _containers(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for one in _workloads(manifests):
        template = one["spec"]["template"]
        (container,) = template["spec"]["containers"]
        yield template["metadata"]["labels"][COMPONENT], container


def _let_in(policy: Manifest) -> Iterator[tuple[str, int]]:
    for rule in policy["ingress"]:
        for peer in rule["from"]:
            if "podSelector" in peer:
                yield peer["podSelector"]["matchLabels"][COMPONENT], rule["ports"][0]["port"]
