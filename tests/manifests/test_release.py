"""A release: actions and images are pinned, manifests name digests, notes come from the changelog."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.release.notes import notes_of
from deploy.release.pin import images, pin
from deploy.release.registry import Image, resolve_digest
from deploy.release.render import VARIABLES, read_digests
from shared.runtime.child_process import find_free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PINNED = ("deploy/docker", "deploy/kubernetes", "compose.yaml")

needs_registry = pytest.mark.skipif(
    "IBTPO_REGISTRY" not in os.environ, reason="`make test-manifests` has Debian's registry"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name images."""
    for name in PINNED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry, without images."""
    port = find_free_port()
    config = tmp_path / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "images")}}
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}))
    words = [os.environ["IBTPO_REGISTRY"], "serve", str(config)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/v2/"), 20.0, "the registry answers")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def test_every_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    used = [line for path in WORKFLOWS for line in path.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert used
    for line in used:
        assert re.search(r"uses: (\./\S+|[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+)$", line), line


def test_workflows_call_what_there_is() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for path in WORKFLOWS:
        text = path.read_text()
        for job in yaml.safe_load(text)["jobs"].values():
            assert job.get("timeout-minutes") or "uses" in job, path.name
            assert "permissions" in job, path.name
            assert set(job.get("strategy", {}).get("matrix", {}).get("target", ())) <= targets
            for module in re.findall(r"deploy\.release\.(\w+)", text):
                assert (ROOT / f"deploy/release/{module}.py").exists(), module
    built = set(re.findall(r"ibtpo-[\w-]+", (ROOT / ".github/workflows/images.yml").read_text()))
    assert built == VARIABLES.keys()


def test_the_parts_of_ci_are_those_that_must_pass_before_anything_lands() -> None:
    commands = re.findall(r"^make ([^&\n]*)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    targets = set(re.findall(r"(?<!\S)[a-z][a-z-]*", " ".join(commands))) - {"install", "sglang-cpu"}
    assert "test-drills" in targets
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    missing = {one for one in targets if not re.search(rf"[\[ ,]{one}[\],\s]", text)}
    assert not missing


def test_every_image_that_is_built_on_or_run_is_known_to_the_pins(checkout: Path) -> None:
    known = {image.name for image in images(checkout).values()}
    files = [
        checkout / "compose.yaml",
        *(checkout / "deploy").rglob("*.yaml"),
        *(checkout / "deploy").rglob("*ockerfile"),
    ]
    text = "\n".join(path.read_text() for path in files)
    named = re.findall(r"(?m)(?:^ARG \w*IMAGE=|image: (?:\$\{\w+:-)?)([a-z0-9][\w./-]*)(?=[:@}\n])", text)
    ours = {name for name in named if name.startswith("ibtpo-")}
    assert set(named) - ours == known
    assert ours <= VARIABLES.keys()


def test_pins_are_written_behind_the_tags_and_read_again(checkout: Path) -> None:
    digest = "sha256:" + "a1" * 32
    pin(checkout, lambda image: digest)
    assert all(image.digest == digest for image in images(checkout).values())
    compose = yaml.safe_load((checkout / "compose.yaml").read_text())
    assert compose["services"]["redis"]["image"] == f"${{REDIS_IMAGE:-redis:7.2-bookworm@{digest}}}"
    newer = "sha256:" + "b2" * 32
    pin(checkout, lambda image: newer)
    assert digest not in (checkout / "deploy/docker/Dockerfile").read_text()


def test_where_one_digest_cannot_be_had_nothing_is_written(checkout: Path) -> None:
    def refuse(image: Image) -> str:
        if image.name == "redis":
            raise ValueError("no")
        return "sha256:" + "a1" * 32

    with pytest.raises(ValueError, match="no"):
        pin(checkout, refuse)
    assert not any(image.digest for image in images(checkout).values())


@needs_registry
def test_a_registry_tells_the_digest_of_a_tag(registry: str) -> None:
    pushed = _push(registry, "team/tool", "1.2")
    with httpx.Client() as http:
        assert resolve_digest(Image.parse(f"{registry}/team/tool:1.2"), http) == pushed
        with pytest.raises(ValueError, match="answers 404 and names no digest"):
            resolve_digest(Image.parse(f"{registry}/team/tool:1.3"), http)


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ('Bearer realm="https://auth.example/token",service="hub",scope="repository:library/redis:pull"', None),
        ("Basic", "a login of a kind that is not known"),
    ],
)
def test_a_public_registry_gives_everybody_a_token(challenge: str, words: str | None) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.host == "auth.example":
            return httpx.Response(200, json={"token": "anonymous"})
        if request.headers.get("authorization") == "Bearer anonymous":
            return httpx.Response(200, headers={"Docker-Content-Digest": "sha256:" + "c3" * 32})
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        if words is not None:
            with pytest.raises(ValueError, match=words):
                resolve_digest(Image.parse("redis:7.2-bookworm"), http)
            return
        assert resolve_digest(Image.parse("redis:7.2-bookworm"), http) == "sha256:" + "c3" * 32
    assert str(asked[0].url) == "https://registry-1.docker.io/v2/library/redis/manifests/7.2-bookworm"
    assert asked[1].url.params["scope"] == "repository:library/redis:pull"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here; `make test-manifests` asks for it")
def test_a_release_names_our_images_by_digest(tmp_path: Path) -> None:
    digest = "sha256:" + "d4" * 32
    digests = tmp_path / "digests.json"
    digests.write_text(json.dumps({name: f"registry.example/you/{name}:1.0@{digest}" for name in VARIABLES}))
    words = [sys.executable, "-m", "deploy.release.render", str(digests), str(tmp_path / "release")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for overlay in ("cpu", "gpu", "keda"):
        manifests = list(yaml.safe_load_all((tmp_path / f"release/ibtpo-{overlay}.yaml").read_text()))
        ours = [name for one in manifests for name in _images(one) if "ibtpo" in name]
        assert len(ours) == 3
        assert all(name.startswith("registry.example/you/ibtpo-") and name.endswith(f"@{digest}") for name in ours)
    environment = dict(line.split("=", 1) for line in (tmp_path / "release/images.env").read_text().splitlines())
    assert environment["IBTPO_VERIFIER_IMAGE"] == f"registry.example/you/ibtpo-verifier:1.0@{digest}"
    assert environment.keys() == set(re.findall(r"\$\{(\w+_IMAGE):-", (ROOT / "compose.yaml").read_text()))
    assert not list((ROOT / "deploy/kubernetes/overlays").glob("tmp*"))


@pytest.mark.parametrize(
    ("digests", "words"),
    [
        ({"ibtpo-verifier": "a/b:1@sha256:" + "0" * 64}, "a release has"),
        (dict.fromkeys(VARIABLES, "a/b:1"), "has no digest of"),
        (dict.fromkeys(VARIABLES, "not an image"), "no image"),
    ],
)
def test_a_release_without_digests_is_refused(digests: dict[str, str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "digests.json"
    path.write_text(json.dumps(digests))
    with pytest.raises(ValueError, match=words):
        read_digests(path)


def test_notes_are_the_section_of_the_tag() -> None:
    changelog = "# Changelog\n\n## 1.1.0 (2026-12-01)\n\n- New.\n\n## 1.0.0\n\n- Old.\n"
    assert notes_of("v1.1.0", changelog, "1.1.0") == "- New.\n"
    assert notes_of("v1.0.0", changelog, "1.0.0") == "- Old.\n"
    for tag, text, words in (
        ("v1.1.1", changelog, "the tag is v1.1.1"),
        ("v1.1.0", changelog.replace("2026-12-01", "unreleased"), "unreleased"),
        ("v1.1.0", "# Changelog\n", "no section"),
    ):
        with pytest.raises(ValueError, match=words):
            notes_of(tag, text, "1.1.0")


def _images(manifest: Any) -> Iterator[str]:
    """Every image below a manifest."""
    if isinstance(manifest, dict):
        if isinstance(manifest.get("image"), str):
            yield manifest["image"]
        for value in manifest.values():
            yield from _images(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from _images(value)


def _push(registry: str, repository: str, tag: str) -> str:
    """An image of nothing but a configuration; returns its digest."""
    base, config = f"http://{registry}/v2/{repository}", b"{}"
    with httpx.Client() as http:
        where = http.post(f"{base}/blobs/uploads/").headers["location"]
        digest = _digest(config)
        http.put(httpx.URL(where).copy_merge_params({"digest": digest}), content=config).raise_for_status()
        described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}).encode()
        http.put(f"{base}/manifests/{tag}", content=manifest, headers={"Content-Type": MANIFEST}).raise_for_status()
    return _digest(manifest)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0).is_success
    except httpx.HTTPError:
        return False
