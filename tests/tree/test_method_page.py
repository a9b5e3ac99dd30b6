"""The page that names the function of every formula names what exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([a-z_]+)\.(\w+)`", PAGE)))


@pytest.mark.parametrize(
    ("module", "name"), [pair for pair in NAMES if pair[0] not in {"loss", "trajectories", "tokenizer", "growth"}]
)
def test_what_the_page_names_exists(module: str, name: str) -> None:
    room = "protocol" if module == "act_probe" else "tree"
    assert hasattr(importlib.import_module(f"shared.{room}.{module}"), name)


def test_the_loss_functions_exist() -> None:
    source = (ROOT / "services" / "learner" / "training" / "loss.py").read_text(encoding="utf-8")
    named = [name for module, name in NAMES if module == "loss"]
    assert len(named) == 9
    assert all(f"def {name}(" in source for name in named)


@pytest.mark.parametrize(
    "label",
    [
        "V1",
        "V2",
        "V3",
        "V4",
        "V4-c",
        "V-Φ",
        "IB-1",
        "IB-1x",
        "A-1",
        "A-2",
        "A-3",
        "A-b",
        *(f"A-{n}" for n in range(4, 10)),
        *(f"A-{letter}" for letter in "GDLRw"),
        *(f"O-{n}" for n in range(1, 14)),
        *("S-1", "S-2", "S-2b", "S-3", "S-4", "S-4t", "S-5", "S-6", "S-7"),
        *(f"P-{n}" for n in range(1, 7)),
        *(f"W-{n}" for n in range(1, 4)),
    ],
)
def test_every_label_has_its_row(label: str) -> None:
    assert re.search(rf"^\| {label}†? \|", PAGE, re.MULTILINE)
