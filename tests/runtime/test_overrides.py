"""Which key a `key=value` argument means: short names, old names, and wrong ones."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import tomli_w
from pydantic import BaseModel

from services.launcher.settings.plan import SECTIONS
from shared.errors import InvalidInput
from shared.protocol.task import Growth
from shared.runtime.config import (
    ConfigError,
    find_keys,
    load_config,
    load_sections,
    resolve_overrides,
    walk_keys,
)
from shared.runtime.config.renamed import MOVED, RENAMED, Renamed

Sections: TypeAlias = Mapping[str, type[BaseModel]]


def resolved(*overrides: str) -> list[str]:
    return [one for section in resolve_overrides(overrides, SECTIONS).values() for one in section]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("seed=1", "learner.seed=1"),
        ("sampler=ib", "learner.growth.sampler=ib"),
        ("rounds=4", "learner.growth.sampler.rounds=4"),
        ("sampler.score.beta=2", "learner.growth.sampler.score.beta=2"),
        ("advantage=grpo", "learner.advantage=grpo"),
        ("max_tokens=9", "learner.growth.max_tokens=9"),
        ("advantage.lam=0.2", "learner.advantage.lam=0.2"),
        ("lr=1e-4", "learner.optimizer.lr=1e-4"),
        ("replicas=3", "launcher.replicas=3"),
        ("verifier.math.workers=1", "verifier.math.workers=1"),
        ("kinds.mine.url=http://a", "verifier.kinds.mine.url=http://a"),
        ("learner.growth.temperature = 0.7", "learner.growth.temperature=0.7"),
    ],
)
def test_a_key_is_found_where_only_one_place_has_it(given: str, full: str) -> None:
    assert resolved(given) == [full]


@pytest.mark.parametrize(("section", "override"), [(one, f"{one}.grace_seconds=3") for one in ("rollout", "verifier")])
def test_one_service_finds_its_keys_as_a_whole_run_does(section: str, override: str) -> None:
    alone = {section: SECTIONS[section]}
    assert resolve_overrides(["grace_seconds=3"], alone) == {section: [override]}
    assert resolve_overrides(["learner.lr=1"], alone) == {section: []}


def test_a_short_name_reaches_any_depth_of_one_service() -> None:
    given = ["model=m", "data=d", "max_generated_tokens=9", "sampler=ib", "rounds=2", "lr=1e-4", "every=7"]
    learner = load_config(SECTIONS["learner"], "learner", None, given).model_dump()
    assert learner["optimizer"]["lr"] == 1e-4
    assert learner["growth"]["sampler"]["rounds"] == 2
    assert learner["evaluation"]["every"] == 7


def test_a_key_that_two_services_have_is_refused_with_the_choice() -> None:
    with pytest.raises(InvalidInput, match=r"'grace_seconds' could be learner.grace_seconds or rollout.grace_seconds"):
        resolved("grace_seconds=3")


def test_a_misspelt_key_is_refused_with_the_closest_names() -> None:
    with pytest.raises(InvalidInput, match=r"unknown key samplr; did you mean sampler"):
        resolved("samplr=ib")


def test_the_order_of_overrides_is_kept() -> None:
    assert resolve_overrides(["sampler=random", "sampler.rounds=2", "seed=1"], SECTIONS)["learner"] == [
        "learner.growth.sampler=random",
        "learner.growth.sampler.rounds=2",
        "learner.seed=1",
    ]


def test_keys_are_found_by_name_with_what_is_in_them() -> None:
    assert [key.path for key in find_keys("lr", SECTIONS)] == ["learner.optimizer.lr"]
    assert {"learner.optimizer.lr", "learner.optimizer.betas"} < {key.path for key in find_keys("optimizer", SECTIONS)}
    assert {key.path for key in find_keys("grace_seconds", SECTIONS)} == {
        f"{section}.grace_seconds" for section in ("learner", "rollout", "verifier")
    }
    with pytest.raises(ConfigError, match=r"unknown key lrr; did you mean lr"):
        find_keys("lrr", SECTIONS)


# --- old names

OLD = [pytest.param(one, id=f"{one.old} {' '.join(one.kinds)}") for one in RENAMED]


def old_value(one: Renamed) -> Any:
    return {"levels": 9, "merge": True, "divisor": "token"}.get(one.old.rpartition(".")[2], 3)


def refusal(preset: Path, *overrides: str, models: Sections = SECTIONS) -> str:
    with pytest.raises(ConfigError) as caught:
        load_sections(models, preset, overrides)
    return str(caught.value)


@pytest.fixture
def new_preset(tmp_path: Path) -> Path:
    return tmp_path / "new.toml"


@pytest.mark.parametrize("one", OLD)
def test_an_old_key_is_refused_in_every_spelling_with_what_to_write(one: Renamed, new_preset: Path) -> None:
    value, names = old_value(one), one.old.split(".")
    kind = [f"sampler.kind={one.kinds[0]}"] if one.kinds else []
    new_preset.write_text("")
    section = one.new.partition(".")[0]
    models = {section: SECTIONS[section]}
    spelled = {".".join(names[start:]) for start in range(len(names))} - {"every"}  # that is an evaluation's now
    messages = {refusal(new_preset, *kind, f"{name}={str(value).lower()}", models=models) for name in spelled}

    table: dict[str, Any] = {names[-1]: value} | ({"kind": one.kinds[0]} if one.kinds else {})
    for name in reversed(names[:-1]):
        table = {name: table}
    if not one.old.startswith("local."):
        new_preset.write_text(tomli_w.dumps(table))
        messages.add(refusal(new_preset, models=models))
    assert len(messages) == 1
    message = messages.pop()
    assert message.startswith(f"{one.old} was renamed to ")
    written = message.partition(": write ")[2]
    assert tomllib.loads(written)
    assert written.partition("=")[0] in (one.new, one.new.rpartition(".")[2])


@pytest.mark.parametrize("one", OLD)
def test_a_new_name_is_a_key(one: Renamed) -> None:
    section = one.new.partition(".")[0]
    kinds = {key.kind for key in walk_keys(section, SECTIONS[section]) if key.path == one.new}
    assert kinds
    assert set(one.kinds) <= kinds


def test_levels_become_one_round_fewer(new_preset: Path) -> None:
    new_preset.write_text("")
    assert refusal(new_preset, "sampler=ib", "levels=9") == (
        "learner.growth.sampler.levels was renamed to rounds, one fewer: write rounds=8"
    )
    with pytest.raises(ConfigError, match="write rounds=4"):
        load_config(Growth, "growth", None, ["sampler=ib", "levels=5"])


def test_an_old_name_that_is_still_a_key_elsewhere_is_taken_there(new_preset: Path) -> None:
    growth = load_config(Growth, "growth", None, ["sampler=fixed-width", "width=5"])
    assert growth.sampler.num_draws == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[learner.method]\nkappa = 2.0", "learner.method.kappa is a setting of values"),
        ("[learner.growth.sampler]\nscore = { kappa = 2.0 }", "learner.growth.sampler.score.kappa is a setting"),
        ("[learner.objective]\nbatch_std = false", "learner.objective.batch_std is a setting of advantage"),
    ],
)
def test_a_key_that_a_saved_run_has_elsewhere_is_named_with_its_place(new_preset: Path, text: str, says: str) -> None:
    new_preset.write_text(text)
    assert refusal(new_preset).startswith(says)


@pytest.mark.parametrize(
    ("kind", "gone"),
    [("nodes", ""), ("grpo", " and leave out lam, prior"), ("treerl", " and leave out lam, prior, std, epsilon")],
)
def test_all_old_keys_of_a_saved_run_are_one_message(new_preset: Path, kind: str, gone: str) -> None:
    """What it says to write and to leave out then loads."""
    advantage = {"global_term": kind, "lam": 0.0, "prior": "sampling", "std": "population", "epsilon": 1e-6}
    saved: dict[str, Any] = {
        "method": {"beta": 5.0, "kappa": 2.0},
        "advantage": advantage,
        "objective": {"batch_std": False, "clip_low": 0.2},
    }
    new_preset.write_text(tomli_w.dumps({"learner": saved}))
    new = "ibtpo" if kind == "nodes" else kind
    shrunk = MOVED["learner.method.kappa"]
    assert refusal(new_preset).split("; ") == [
        f"learner.method.kappa is {shrunk}",
        "learner.advantage.global_term was renamed to kind, whose table has the settings of that kind alone: write "
        f'kind="{new}"{gone}',
        'learner.objective.batch_std is a setting of advantage="dr-grpo" now: write it in that table, or leave it out',
    ]
    left_out = [*gone.removeprefix(" and leave out ").split(", "), "global_term"]
    kept = {"kind": new} | {name: value for name, value in advantage.items() if name not in left_out}
    now = {"method": {"beta": 5.0}, "advantage": kept, "objective": {"clip_low": 0.2}}
    needed = {"model": "m", "data": "d.jsonl", "growth": {"sampler": "independent"}, "total_steps": 1}
    new_preset.write_text(tomli_w.dumps({"learner": now | needed}))
    load_sections({"learner": SECTIONS["learner"]}, new_preset)


def test_an_old_section_is_refused(new_preset: Path) -> None:
    new_preset.write_text("[local]\nrollouts = 2\n")
    assert refusal(new_preset) == "[local] was renamed to [launcher]"
    new_preset.write_text("")
    assert refusal(new_preset, "local.stop_seconds=9").endswith("write launcher.stop_seconds=9")


# --- every key


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_meaning(section: str) -> None:
    keys = list(walk_keys(section, SECTIONS[section]))
    assert len(keys) > 10
    assert [f"{key.path} {key.kind}" for key in keys if not key.description.strip()] == []


def test_services_find_each_other_by_their_defaults() -> None:
    default = {key.path: key.default for section in SECTIONS for key in walk_keys(section, SECTIONS[section])}
    assert default["rollout.verifier_url"] == f"http://{default['verifier.host']}:{default['verifier.port']}"
    assert [default[f"{one}.port"] for one in ("rollout", "verifier", "learner")] == [8001, 8002, 8003]
