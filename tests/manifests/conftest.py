"""What is rendered and read once: the overlays, the alerts. `kubectl` has Kustomize built in."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Manifest = dict[str, Any]


@cache
def _rendered(overlay: str) -> tuple[Manifest, ...]:
    folder = ROOT / "deploy/kubernetes/overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture
def render() -> Callable[[str], tuple[Manifest, ...]]:
    """The objects of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here; `make test-manifests` asks for it")
    return _rendered


@pytest.fixture
def alerts() -> list[Manifest]:
    """All alert rules."""
    text = (ROOT / "deploy/prometheus/rules/alerts.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
