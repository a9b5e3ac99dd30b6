"""The jail where the service is no root: the machine's ordinary user, with namespaces and without them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.verifier.sandbox.programs import CONTAINED, HONEST, VIOLATIONS, hostile_program

NOBODY = 65534
SCRIPT = Path(__file__).with_name("as_another_user.py")


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


def _run(programs: list[str], *, namespaces: bool) -> dict[str, Any]:
    interpreter, identity = sys.executable, {}
    if os.geteuid() == 0:
        interpreter = next(filter(_can_nobody_run, (sys.executable, "/usr/bin/python3")), "")
        if not interpreter:
            pytest.skip("no Python here that an ordinary user can run")
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    told = subprocess.run(
        [interpreter, str(SCRIPT)],
        input=json.dumps({"programs": programs, "namespaces": namespaces}).encode(),
        capture_output=True,
        check=True,
        timeout=100,
        cwd="/",
        env={},
        **identity,  # type: ignore[call-overload]
    )
    return json.loads(told.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("namespaces", [True, False], ids=["with namespaces where allowed", "without namespaces"])
def test_an_ordinary_user_has_a_jail_that_holds(namespaces: bool) -> None:
    names = [*CONTAINED, *VIOLATIONS, *HONEST]
    programs = [*map(hostile_program, (CONTAINED | VIOLATIONS).values()), *HONEST.values()]
    told = _run(programs, namespaces=namespaces)
    assert told["uid"] != 0
    assert told["refusal"] is None
    assert told["layers"]["system calls"] == "on"
    outputs = dict(zip(names, told["runs"], strict=True))
    assert {name: outputs[name] for name in CONTAINED} == {name: ["exited", "contained\n"] for name in CONTAINED}
    assert {name: outputs[name][0] for name in VIOLATIONS} == dict.fromkeys(VIOLATIONS, "violation")
    assert {name: outputs[name][1].strip() for name in HONEST} == dict.fromkeys(HONEST, "42")
    assert told["report"]["num_passed"] == 1
