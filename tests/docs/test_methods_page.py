"""The table of docs/methods.md is that of the presets."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.launcher.settings.difference import resolve
from services.launcher.settings.plan import RunRequest, make_run_plan
from shared.runtime.config import PresetKind, preset_names, preset_path, read_about
from tests.docs.shell import ROOT

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
METHODS = [name for name in preset_names() if read_about(name).kind is PresetKind.METHOD]
MEANS = {"trajectory": "mean over answers", "token": "mean over tokens", "constant": "sum over a constant"}
TIES = {"drop": "ties dropped", "keep": "ties kept", "refill": "ties replaced"}


def cells(table: str) -> dict[str, list[str]]:
    """The rows below the heading, by the preset that they name."""
    section = PAGE.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def describe(preset: str) -> Iterator[str]:
    """Sampler, credit, loss and data rule."""
    settings = {key.removeprefix("learner."): value for key, value in resolve(preset).items()}
    plan = make_run_plan(Path("nowhere"), RunRequest(None, preset, ("launcher.task=demo",)))
    yield f"`{settings['growth.sampler.kind']}`, {plan.learner.growth.sampler.num_draws} answers"
    yield f"`{settings['advantage.kind']}`"
    yield ", ".join(describe_loss({key.removeprefix("objective."): one for key, one in settings.items()}))
    yield ", ".join(describe_data(settings))


def describe_loss(objective: dict[str, Any]) -> Iterator[str]:
    low, high = objective["clip_low"], objective["clip_high"]
    yield f"weights up to {1 + high:g}" if objective["surrogate.kind"] == "cispo" else f"clip {low:g}, {high:g}"
    if bound := objective.get("dual_clip"):
        yield f"dual clip {bound:g}"
    if objective["ratio"] != "token":
        yield "ratio of the answer"
    if objective["minibatches"] > 1:
        yield f"{objective['minibatches']} updates"
    yield MEANS[objective["loss_normalization"]]
    for key, name in (
        ("kl_coef", "KL"),
        ("entropy_coef", "entropy"),
        ("entropy_advantage_coef", "entropy · advantage"),
    ):
        if objective[key]:
            yield f"{name} {objective[key]:g}"


def describe_data(settings: dict[str, Any]) -> Iterator[str]:
    yield TIES[settings["objective.ties"]]
    if settings["growth.merge_equal_draws"]:
        yield "equal draws merged"
    if (likely := settings.get("objective.mask_likely")) is not None:
        yield f"tokens under {likely:g}"
    if share := settings["objective.overlong_share"]:
        yield f"penalty over the last {share:.0%}"


@pytest.mark.parametrize("preset", METHODS)
def test_the_page_says_what_a_preset_is(preset: str) -> None:
    assert cells("What each sets").get(preset) == list(describe(preset))


def test_both_tables_have_every_method_and_no_other() -> None:
    assert list(cells("What each sets")) == METHODS
    assert list(cells("What is exact")) == METHODS


@pytest.mark.parametrize("preset", METHODS)
def test_what_a_preset_says_is_ours_or_unconfirmed_is_on_the_page(preset: str) -> None:
    text = Path(preset_path(preset)).read_text(encoding="utf-8")
    _, ours, unconfirmed = cells("What is exact")[preset]
    assert (ours != "–") == bool(re.search(r"\b[Oo]urs\b", text))
    assert (unconfirmed != "–") == ("nconfirmed" in text or "not disclosed" in text)
