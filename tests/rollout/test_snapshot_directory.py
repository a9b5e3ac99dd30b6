"""A replica's directory for weights: nobody else can change it, and no other replica uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.rollout.snapshot_directory import SnapshotDirectory, resolve_user
from shared.errors import Conflict, InvalidInput

HOLD = """
import sys
from pathlib import Path
from services.rollout.snapshot_directory import SnapshotDirectory
held = SnapshotDirectory(Path(sys.argv[1]), "r", "a")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_replica_of_a_name_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        (tmp_path / "s/r/a/served").touch()
        with pytest.raises(Conflict, match=rf"another replica named 'a', process {first.pid}, .*another rollout\.name"):
            SnapshotDirectory(tmp_path / "s", "r", "a")
        SnapshotDirectory(tmp_path / "s", "r", "b").remove()
        assert (tmp_path / "s/r/a/served").exists()
        first.kill()
    SnapshotDirectory(tmp_path / "s", "r", "a").remove()
    assert list((tmp_path / "s").iterdir()) == []


def test_a_name_can_be_used_again_once_it_was_given_up(tmp_path: Path) -> None:
    for _ in range(2):
        directory = SnapshotDirectory(tmp_path, "r", "a")
        assert directory.path.is_dir()
        directory.remove()
        directory.remove()


@pytest.mark.parametrize("name", ["s", "s/r", "s/r/a"])
def test_a_symbolic_link_in_its_place_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"symbolic link.*rollout\.snapshots"):
        SnapshotDirectory(tmp_path / "s", "r", "a")


@pytest.mark.parametrize("name", ["s", "s/r", "s/r/a"])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name).chmod(mode)
    with pytest.raises(InvalidInput, match=r"others can write to .*chmod go-w"):
        SnapshotDirectory(tmp_path / "s", "r", "a")


def test_a_place_where_everybody_keeps_what_is_his_own_is_good_enough(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o1777)
    SnapshotDirectory(tmp_path / "s", "r", "a").remove()


@pytest.mark.parametrize("name", ["s", "s/r", "s/r/a"])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(directory, 12345, 12345)
    else:
        directory.chmod(0o500)  # as near as an ordinary user comes
    with pytest.raises(InvalidInput, match=r"belongs to user|cannot keep weights"):
        SnapshotDirectory(tmp_path / "s", "r", "a")
    directory.chmod(0o755)


def test_users_of_one_machine_have_directories_of_their_own() -> None:
    assert resolve_user(Path("/dev/shm/ibtpo-{uid}")) == Path(f"/dev/shm/ibtpo-{os.geteuid()}")
    assert resolve_user(Path("/data")) == Path("/data")
