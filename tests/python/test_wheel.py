"""The wheel without the checkout: what is in it, and that it trains where a project has packages called as ours."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release builds it: from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in tracked.stdout.splitlines():
        if name.startswith(("ibtpo/", "services/", "shared/", "deploy/config/")) or "/" not in name:
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)
    _build(folder / "checkout", "sdist", folder)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    (unpacked,) = (folder / "source").iterdir()
    _build(unpacked, "wheel", folder)
    (built,) = folder.glob("*.whl")
    return built


def _build(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True, timeout=60)


def test_everything_that_is_read_at_run_time_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {path.name for path in (ROOT / "deploy" / "config").glob("*.toml")} == {
        name.rpartition("/")[2] for name in names if name.startswith("services/presets/")
    }
    for path in (*(ROOT / room for room in ("ibtpo", "services", "shared")),):
        files = (one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
        assert {one.relative_to(ROOT).as_posix() for one in files} <= names
    assert {f"{room}/py.typed" for room in ("ibtpo", "services", "shared")} <= names


@pytest.fixture
def project(wheel: Path, tmp_path: Path) -> Path:
    """A project with packages called as ours, which nobody may import, before the installed wheel on the path."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(tmp_path / "installed"), str(wheel)], check=True, timeout=60)
    for package in ("services", "shared"):
        (tmp_path / "project" / package).mkdir(parents=True)
        (tmp_path / "project" / package / "__init__.py").write_text("raise RuntimeError('not ours')")
    return tmp_path / "project"


def _run(project: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join((str(project), str(project.parent / "installed")))
    environment = {**os.environ, "PYTHONPATH": path, "REDIS_URL": "", "IBTPO_TOKEN": ""}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=580, check=False
    )


def test_the_installed_wheel_trains_from_a_project_with_packages_called_as_ours(project: Path) -> None:
    program = "import ibtpo, services; print(ibtpo.__version__, services.__file__)"
    version, where = _run(project, sys.executable, "-c", program).stdout.split()
    assert where.startswith(str(project.parent / "installed"))
    ibtpo = str(project.parent / "installed" / "bin" / "ibtpo")
    assert _run(project, ibtpo, "--version").stdout == f"ibtpo {version}\n"
    assert "[learner.growth.sampler]" in _run(project, ibtpo, "config", "--config", "demo").stdout
    settings = ("total_steps=1", "evaluation.problems=4", "evaluation.k=1", "launcher.replicas=1", "batch_size=4")
    done = _run(project, ibtpo, "demo", "--plain", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report    runs/demo/report.html" in done.stdout
