"""A package of the user's own in containers, as docs/own-parts.md says: /opt/parts is on the path, and stays there."""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.learner.config import LearnerConfig
from services.rollout.config import RolloutConfig
from shared.runtime.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/own-parts.md").read_text(encoding="utf-8")
PARTS = "/opt/parts"
DOCKERFILES = ("Dockerfile", "rollout-sglang.Dockerfile")
Manifest = dict[str, Any]


def block(language: str, start: str) -> str:
    """The page's code of this language that begins so."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return next(one for one in blocks if one.startswith(start))


def stages(dockerfile: str) -> list[str]:
    """Those that start a service."""
    text = (ROOT / "deploy/docker" / dockerfile).read_text(encoding="utf-8")
    return [stage for stage in re.split(r"^FROM ", text, flags=re.MULTILINE) if "ENTRYPOINT" in stage]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_image_has_all_of_ours_and_looks_for_the_users(dockerfile: str) -> None:
    text = (ROOT / "deploy/docker" / dockerfile).read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"\nCOPY {package} {package}\n" in text
    for stage in stages(dockerfile):
        assert f"\nENV PYTHONPATH={PARTS}" in stage


def test_compose_leaves_the_path_as_it_is_and_the_override_of_the_page_names_its_services() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    override = yaml.safe_load(block("yaml", "# compose.override.yaml"))["services"]
    assert override.keys() == {"rollout", "learner"}
    for name in ("rollout", "learner", "rollout-gpu", "learner-gpu"):
        assert "PYTHONPATH" not in services[name]["environment"]
        assert not any(":/opt" in volume for volume in services[name]["volumes"])
    for added in override.values():
        assert added == {"volumes": [f"./parts:{PARTS}:ro"]}


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_overlays_leave_the_path_as_it_is(render: Callable[[str], tuple[Manifest, ...]], overlay: str) -> None:
    for manifest in render(overlay):
        template = manifest.get("spec", {}).get("template", {})
        for container in template.get("spec", {}).get("containers", ()):
            assert "PYTHONPATH" not in {one["name"] for one in container.get("env", ())}
            assert not any(mount["mountPath"].startswith("/opt") for mount in container.get("volumeMounts", ()))


def test_one_configuration_serves_replicas_and_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "my_parts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "mine.toml"
    file.write_text(block("toml", "# run.toml"), encoding="utf-8")
    learner = load_config(LearnerConfig, "learner", file, ["run=r", "run_dir=r", "model=m", "data=d.jsonl"])
    rollout = load_config(RolloutConfig, "rollout", file, [])
    assert learner.growth_packages == rollout.plugins == ("my_parts",)
    assert learner.own_packages == ("my_parts",)
