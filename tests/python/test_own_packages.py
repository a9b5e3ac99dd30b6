"""`import ibtpo` where other packages are called as ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = "import services.demo.split, shared.errors; assert services.demo.__file__.startswith({root!r})"


def python(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    """Runs it there, with the folder before everything else on the path, as a notebook has it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program.replace("OURS", OURS.format(root=str(ROOT)))]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with packages that are called as ours."""
    for package in ("services", "shared"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("MINE = True\n")
        (tmp_path / package / "mine.py").write_text("VALUE = 7\n")
    return tmp_path


def test_ours_are_loaded_and_the_users_modules_are_found_behind_them(folder: Path) -> None:
    done = python(folder, "import ibtpo; OURS; import services.mine, shared.mine; print(services.mine.VALUE)")
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_the_users_package_stays_where_it_was_imported_first(folder: Path) -> None:
    done = python(folder, "import services, shared, ibtpo; OURS; import services.mine; print(services.MINE)")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_module_called_as_ours_that_was_imported_first_is_named_with_the_remedy(folder: Path) -> None:
    (folder / "services" / "demo.py").write_text("")
    done = python(folder, "import services, ibtpo")
    assert done.stderr.splitlines()[-1].startswith("ImportError: the package 'services' in ")
    assert "was imported before ibtpo, and has demo" in done.stderr
    assert "import ibtpo first" in done.stderr
    assert python(folder, "import ibtpo, services; OURS").returncode == 0


def test_a_single_file_called_as_ours_that_was_imported_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text("")
    done = python(tmp_path, "import shared, ibtpo")
    assert done.stderr.splitlines()[-1].startswith("ImportError: the module ")
    assert "rename it" in done.stderr
    assert python(tmp_path, "import ibtpo; OURS").returncode == 0


def test_the_command_finds_ours_behind_a_python_path_with_others(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "ibtpo", "--version"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split()[0], done.stderr) == ("ibtpo", "")
