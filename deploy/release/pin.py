"""Pins the images that we build on, and run beside ours, by digest: each `name:tag` becomes `name:tag@sha256:…`.

`python -m deploy.release.pin` says what is pinned; with `--write` it asks their registries and rewrites the files, as a
release does before it builds; with `--check` it fails where one is not pinned. In the repository they are tags: a
checkout then builds on today's fixes, a release on what was tested.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from deploy.release.registry import Image, resolve_digest

ROOT = Path(__file__).resolve().parents[2]
_REFERENCE = r"[a-z0-9][\w./:-]*:[\w][\w.-]*(?:@sha256:[0-9a-f]{64})?"
_PLACES = (
    ("deploy/docker/Dockerfile", re.compile(rf"(?m)(?<=^ARG BASE_IMAGE=)({_REFERENCE})$")),
    ("deploy/docker/rollout-sglang.Dockerfile", re.compile(rf"(?m)(?<=^ARG SGLANG_IMAGE=)({_REFERENCE})$")),
    ("compose.yaml", re.compile(rf"(?<=REDIS_IMAGE:-)({_REFERENCE})")),
    ("compose.yaml", re.compile(rf"(?<=PROMETHEUS_IMAGE:-)({_REFERENCE})")),
    ("compose.yaml", re.compile(rf"(?<=GRAFANA_IMAGE:-)({_REFERENCE})")),
    ("deploy/kubernetes/base/redis.yaml", re.compile(rf"(?m)(?<=image: )({_REFERENCE})$")),
    ("deploy/kubernetes/models-shell.yaml", re.compile(rf"(?m)(?<=image: )({_REFERENCE})$")),
)


def images(root: Path) -> dict[str, Image]:
    """Each image that the files name, by how they write it. ValueError where a place names none: it has moved."""
    found: dict[str, Image] = {}
    for name, pattern in _PLACES:
        references = pattern.findall((root / name).read_text(encoding="utf-8"))
        if not references:
            raise ValueError(f"{name} names no image where {pattern.pattern} looks for one: correct pin.py")
        found |= {reference: Image.parse(reference) for reference in references}
    return found


def beside_ours(root: Path) -> dict[str, str]:
    """The images that Compose runs beside ours, by its variables."""
    return dict(re.findall(rf"(\w+_IMAGE):-({_REFERENCE})", (root / "compose.yaml").read_text(encoding="utf-8")))


def pin(root: Path, resolve: Callable[[Image], str]) -> None:
    """Writes today's digest behind every tag; nothing where one cannot be had."""
    digests = {reference: resolve(image) for reference, image in images(root).items()}
    for name, pattern in _PLACES:
        path = root / name
        text = path.read_text(encoding="utf-8")
        path.write_text(pattern.sub(lambda match: _pinned(match[1], digests), text), encoding="utf-8")


def _pinned(reference: str, digests: dict[str, str]) -> str:
    image = Image.parse(reference)
    return str(Image(image.name, image.tag, digests.get(reference) or image.digest))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    asked = parser.parse_args()
    try:
        if asked.write:
            with httpx.Client(timeout=30.0, follow_redirects=True) as http:
                pin(asked.root, lambda image: resolve_digest(image, http))
        found = images(asked.root).values()
    except ValueError as error:
        sys.exit(f"pin: {error}")
    for image in found:
        print(f"{'pinned' if image.digest else 'a tag '} {image}")
    return int(asked.check and not all(image.digest for image in found))


if __name__ == "__main__":
    sys.exit(main())
