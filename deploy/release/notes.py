"""The notes of a release, from CHANGELOG.md: `python -m deploy.release.notes v0.1.0` prints its section.

Fails where tag, pyproject.toml and changelog do not agree, or the section still says "unreleased".
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def notes_of(tag: str, changelog: str, version: str) -> str:
    """The section of that version. ValueError where there is none to publish."""
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, pyproject.toml has {version}: tag v{version}, or change the version")
    match = re.search(rf"(?ms)^## {re.escape(version)}\b([^\n]*)\n(.*?)(?=^## |\Z)", changelog)
    if match is None:
        raise ValueError(f"CHANGELOG.md has no section {version}")
    if "unreleased" in match[1]:
        raise ValueError(f"CHANGELOG.md calls {version} unreleased: write its day")
    if not match[2].strip():
        raise ValueError(f"CHANGELOG.md says nothing of {version}")
    return match[2].strip() + "\n"


def main(tag: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write(notes_of(tag, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), project["version"]))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"notes: {error}")
