"""Writes EXTRA.txt for each extra named: the dependencies of project and extra, from ./pyproject.toml."""

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """One file per extra."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in extras:
        lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
        Path(f"{extra}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
