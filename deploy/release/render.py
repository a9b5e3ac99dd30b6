"""What a release brings: manifests, and an environment for Compose, whose images are named by digest.

`python -m deploy.release.render DIGESTS.json FOLDER` reads {"ibtpo-verifier": "registry/ibtpo-verifier:1.0@sha256:…"},
writes ibtpo-cpu.yaml, ibtpo-gpu.yaml, ibtpo-keda.yaml and images.env. Needs `kubectl`, which has Kustomize.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from deploy.release.pin import beside_ours
from deploy.release.registry import Image

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("cpu", "gpu", "keda")
VARIABLES = {
    "ibtpo-verifier": "IBTPO_VERIFIER_IMAGE",
    "ibtpo-rollout": "IBTPO_ROLLOUT_IMAGE",
    "ibtpo-learner": "IBTPO_LEARNER_IMAGE",
    "ibtpo-rollout-sglang": "IBTPO_SGLANG_IMAGE",
    "ibtpo-learner-gpu": "IBTPO_LEARNER_GPU_IMAGE",
}
"""Our images, and how Compose calls them."""


def read_digests(path: Path) -> dict[str, Image]:
    """Each image by its digest. ValueError for a missing one, for one that is not ours, and for a tag alone."""
    found = {name: Image.parse(reference) for name, reference in json.loads(path.read_text(encoding="utf-8")).items()}
    if found.keys() != VARIABLES.keys():
        raise ValueError(f"{path} names {', '.join(sorted(found))}; a release has {', '.join(sorted(VARIABLES))}")
    loose = [name for name, image in found.items() if not image.digest]
    if loose:
        raise ValueError(f"{path} has no digest of {', '.join(loose)}")
    return found


def render_overlay(overlay: str, images: dict[str, Image]) -> str:
    """The objects of an overlay, whose images of ours are these."""
    with tempfile.TemporaryDirectory(dir=ROOT / "deploy/kubernetes/overlays") as made:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{overlay}"],
            "images": [{"name": name, "newName": image.name, "digest": image.digest} for name, image in images.items()],
        }
        (Path(made) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        words = ["kubectl", "kustomize", made]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=60, check=False)  # noqa: S603
    if done.returncode:
        raise ValueError(f"kubectl kustomize: {done.stderr.strip()}")
    return done.stdout


def main(digests: Path, folder: Path) -> None:
    images = read_digests(digests)
    folder.mkdir(parents=True, exist_ok=True)
    for overlay in OVERLAYS:
        (folder / f"ibtpo-{overlay}.yaml").write_text(render_overlay(overlay, images), encoding="utf-8")
    named = [(variable, str(images[name])) for name, variable in VARIABLES.items()]
    named += [(variable, reference) for variable, reference in beside_ours(ROOT).items()]
    lines = [f"{variable}={reference}" for variable, reference in named]
    (folder / "images.env").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except ValueError as error:
        sys.exit(f"render: {error}")
