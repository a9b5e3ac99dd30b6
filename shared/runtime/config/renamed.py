"""The keys that had another name or place: the old one is refused, and the new one named."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.runtime.config.errors import ConfigError

_SAMPLER = "learner.growth.sampler"


@dataclass(frozen=True, slots=True)
class Renamed:
    """`old` is `new` now; with `kinds`, only in a table of one of these. `value` turns an old value into a new one, and
    `gone` names the keys that the table may have beside an old value and not beside the new one."""

    old: str
    new: str
    kinds: tuple[str, ...] = ()
    note: str = ""
    value: Callable[[Any], Any] = lambda value: value
    gone: Callable[[Any], Collection[str]] = lambda value: ()


def _one_fewer(levels: Any) -> Any:
    return levels - 1 if isinstance(levels, int) else levels


def _keep(keeps: Any) -> Any:
    return "keep" if keeps is True else "drop"


def _kind(global_term: Any) -> Any:
    return "ibtpo" if global_term == "nodes" else global_term


def _gone_from_kind(global_term: Any) -> Collection[str]:
    """One table had the settings of every credit."""
    of_ibtpo = ("lam", "beta", "values", "confidence", "prior", "ib_on_ties")
    return {"nodes": (), "treerl": (*of_ibtpo, "std", "epsilon")}.get(global_term, of_ibtpo)


RENAMED = (
    Renamed("learner.batch", "learner.batch_size"),
    Renamed("learner.patience_seconds", "learner.straggler_seconds"),
    Renamed("learner.objective.kl_weight", "learner.objective.kl_coef"),
    Renamed("learner.objective.divisor", "learner.objective.loss_normalization"),
    Renamed(
        "learner.advantage.global_term",
        "learner.advantage.kind",
        note=", whose table has the settings of that kind alone",
        value=_kind,
        gone=_gone_from_kind,
    ),
    Renamed("learner.advantage.keep_ties", "learner.objective.ties", value=_keep),
    Renamed("learner.evaluation.rows_per_replica", "learner.evaluation.problems_per_replica"),
    Renamed("learner.growth.merge", "learner.growth.merge_equal_draws"),
    Renamed(f"{_SAMPLER}.first", f"{_SAMPLER}.initial_draws"),
    Renamed(f"{_SAMPLER}.levels", f"{_SAMPLER}.rounds", ("ib", "random"), ", one fewer", _one_fewer),
    Renamed(f"{_SAMPLER}.width", f"{_SAMPLER}.nodes_per_round", ("ib", "random")),
    Renamed(f"{_SAMPLER}.branches", f"{_SAMPLER}.draws_per_node", ("ib", "random")),
    Renamed(f"{_SAMPLER}.branches", f"{_SAMPLER}.draws_per_fork", ("entropy",)),
    Renamed(f"{_SAMPLER}.branches", f"{_SAMPLER}.branching_factor", ("fixed-width",)),
    Renamed(f"{_SAMPLER}.forks", f"{_SAMPLER}.forks_per_answer", ("entropy",)),
    Renamed(f"{_SAMPLER}.every", f"{_SAMPLER}.every_steps", ("fixed-width",)),
    Renamed("rollout.max_rows", "rollout.max_running_requests"),
    Renamed("verifier.code.places", "verifier.code.concurrency"),
    Renamed("local.rollouts", "launcher.replicas"),
)
RENAMED_SECTIONS = {"local": "launcher"}
_KAPPA = 'a setting of values="shrunk" now: write values={ kind = "shrunk", kappa = 2.0 }, or leave it out with others'
MOVED = {
    "learner.method.kappa": _KAPPA,
    "learner.advantage.kappa": _KAPPA,
    f"{_SAMPLER}.score.kappa": _KAPPA,
    "learner.objective.batch_std": 'a setting of advantage="dr-grpo" now: write it in that table, or leave it out',
}
"""What keys are that are no longer where files of an earlier release, as those of saved runs, have them."""


def old_paths(section: str) -> Iterator[str]:
    """The old paths of what is in a section now; `section` may also be the name of a table, as `growth` is."""
    for one in RENAMED:
        tables = one.new.split(".")[:-1]
        if section in tables:
            yield ".".join(one.old.split(".")[tables.index(section) :])


def refuse_old_section(name: str, key: str = "", value: Any = None) -> None:
    """ConfigError where a section had this name; says what to write for `key` of it."""
    new = RENAMED_SECTIONS.get(name)
    if new is None:
        return
    one = next((one for one in RENAMED if one.old == f"{name}.{key}"), Renamed(f"{name}.{key}", f"{new}.{key}"))
    table = {key.rpartition(".")[2]: value}
    raise ConfigError(_refusal(one, one.old, table) if key else f"[{name}] was renamed to [{new}]")


def refuse_old_keys(path: str, table: Mapping[str, Any]) -> None:
    """ConfigError that says of every key of `table`, and of the tables in it, where it is now if it was moved."""
    if found := [*_old_keys(path, table)]:
        raise ConfigError("; ".join(found))


def _old_keys(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        key = f"{path}.{name}"
        if key in MOVED:
            yield f"{key} is {MOVED[key]}"
        for one in RENAMED:
            is_it = one.old == key or one.old.endswith(f".{key}")
            if is_it and (not one.kinds or table.get("kind", one.kinds[0]) in one.kinds):
                yield _refusal(one, key, table)
        if isinstance(value, dict):
            yield from _old_keys(key, value)


def _refusal(one: Renamed, key: str, table: Mapping[str, Any]) -> str:
    """What to write for the key of this table."""
    same_table, value = one.old.rpartition(".")[0] == one.new.rpartition(".")[0], table[key.rpartition(".")[2]]
    new = one.new.rpartition(".")[2] if same_table else one.new
    written = json.dumps(one.value(value), ensure_ascii=False, default=str)
    gone = ", ".join(name for name in one.gone(value) if name in table)
    return f"{key} was renamed to {new}{one.note}: write {new}={written}{f' and leave out {gone}' if gone else ''}"
