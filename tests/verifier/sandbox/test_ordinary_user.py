"""The jail of an ordinary user, with and without namespaces, and in containers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.verifier.sandbox.programs import CONTAINED, HONEST, VIOLATIONS, hostile_program

pytestmark = pytest.mark.drill

NOBODY = 65534
SCRIPT = Path(__file__).with_name("as_another_user.py")
PROGRAMS = {name: hostile_program(statements) for name, statements in (CONTAINED | VIOLATIONS).items()} | HONEST


def _can_nobody_run(interpreter: str) -> bool:
    try:
        found = subprocess.run(
            [interpreter, "-c", f"import sys, json; open({str(SCRIPT)!r}); sys.exit(sys.version_info < (3, 11))"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
        )
    except OSError:
        return False
    return found.returncode == 0


def _run_all(command: list[str], *, namespaces: bool, **process: Any) -> dict[str, Any]:
    """Runs the script that tries every program in a jail of its user; returns its answer."""
    finished = subprocess.run(
        [*command, str(SCRIPT)],
        input=json.dumps({"programs": list(PROGRAMS.values()), "namespaces": namespaces}).encode(),
        capture_output=True,
        check=True,
        timeout=100,
        cwd="/",
        **process,
    )
    return json.loads(finished.stdout)  # type: ignore[no-any-return]


def _assert_holds(answer: dict[str, Any]) -> None:
    """The jail contained what it should, killed what it should, and let the rest run."""
    assert answer["refusal"] is None
    assert answer["layers"]["system calls"] == "on"
    outputs = dict(zip(PROGRAMS, answer["runs"], strict=True))
    assert {name: outputs[name] for name in CONTAINED} == {name: ["exited", "contained\n"] for name in CONTAINED}
    assert {name: outputs[name][0] for name in VIOLATIONS} == dict.fromkeys(VIOLATIONS, "violation")
    assert {name: outputs[name][1].strip() for name in HONEST} == dict.fromkeys(HONEST, "42")
    assert answer["num_passed"] == 1


@pytest.mark.parametrize("namespaces", [True, False], ids=["with namespaces where allowed", "without namespaces"])
def test_an_ordinary_user_has_a_jail_that_holds(namespaces: bool) -> None:
    interpreter, identity = sys.executable, {}
    if os.geteuid() == 0:
        interpreter = next(filter(_can_nobody_run, (sys.executable, "/usr/bin/python3")), "")
        if not interpreter:
            pytest.skip("no Python here that an ordinary user can run")
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    answer = _run_all([interpreter], namespaces=namespaces, env={}, **identity)
    assert answer["uid"] != 0
    _assert_holds(answer)


CONTAINERS = {
    "defaults": [],
    "an ordinary user": ["--user", "10001:10001"],
    "root without capabilities": ["--cap-drop=ALL"],
    "restricted": ["--user=65534:65534", "--cap-drop=ALL", "--read-only", "--security-opt=no-new-privileges"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_a_jail_that_holds(name: str) -> None:
    image = os.environ.get("IBTPO_SANDBOX_IMAGE")
    if not image:
        pytest.skip("IBTPO_SANDBOX_IMAGE names no image with Python 3.11 or later that this machine's docker can run")
    root = SCRIPT.parents[3]
    command = ["docker", "run", "--rm", "-i", "--pull=never", "-v", f"{root}:{root}:ro", *CONTAINERS[name]]
    _assert_holds(_run_all([*command, image, "python3", "-B"], namespaces=True))
