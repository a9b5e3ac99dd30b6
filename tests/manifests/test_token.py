"""The token that the containers of compose.yaml share: yours, or one that the first of them makes."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = ROOT / "deploy/docker/secrets/ibtpo_token"


def test_all_containers_use_the_token_that_the_first_one_makes(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        tokens = list(pool.map(lambda _: _start(PLACEHOLDER, tmp_path / "token"), range(4)))
    assert len(set(tokens)) == 1
    assert len(tokens[0]) == 64
    assert _start(PLACEHOLDER, tmp_path / "token") == tokens[0], "it outlives the containers"
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o400
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_token_that_is_given_is_used(tmp_path: Path) -> None:
    given = tmp_path / "given"
    _start(PLACEHOLDER, tmp_path / "token")
    for token in ("mine", "another"):
        given.write_text(f"{token}\n")
        assert _start(given, tmp_path / "token") == token


def _start(given: Path, shared: Path) -> str:
    """The token of a container that starts."""
    environment = {"IBTPO_GIVEN_TOKEN_FILE": str(given), "IBTPO_TOKEN_FILE": str(shared), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(ROOT / "deploy/docker/share_token.py"), "cat", str(shared)]
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
