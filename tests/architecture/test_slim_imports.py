"""Each image installs only what its service needs: what a service imports, measured in a fresh interpreter."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "redis", "tokenizers", "math_verify", "sympy", "matplotlib", "numpy", "safetensors")


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("ibtpo", set()),
        ("shared.tree.credit", set()),
        ("shared.protocol.tree", set()),
        ("shared.weights", {"safetensors", "numpy"}),
        ("shared.runtime.serve", set()),
        ("services.verifier.wiring", set()),
        ("services.launcher.commands.doctor", set()),  # it is in every image
        ("services.rollout.app", {"tokenizers", "safetensors", "numpy"}),
        ("services.rollout.harvest", {"tokenizers", "redis", "safetensors", "numpy"}),
        ("services.rollout.wiring", {"tokenizers", "redis", "safetensors", "numpy"}),
        ("services.rollout.engines.sglang", {"safetensors", "numpy"}),
    ],
)
def test_a_room_loads_no_more_than_it_needs(module: str, allowed: set[str]) -> None:
    assert loaded_by(module) <= allowed


def test_the_command_line_starts_without_any_service() -> None:
    assert loaded_by("services.launcher.cli") == set()
