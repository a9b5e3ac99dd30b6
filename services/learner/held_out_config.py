"""Which problems a policy is measured on, and how: `[learner.held_out]` and `[learner.evaluation]`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from services.learner.data.source import HUB, DataSource
from shared.protocol.task import MAX_DRAWS, Growth, Temperature
from shared.tree.samplers import IndependentSampler

_METRIC = re.compile(r"(avg|pass|maj)@(k|[1-9][0-9]{0,5})")
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")
_NOT_IN_NAME = re.compile(r"[^\w.-]+")
_OF_HUB = re.compile(r"[:@#]")


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


def _check_metrics(metrics: tuple[str, ...]) -> tuple[str, ...]:
    for metric in metrics:
        if not _METRIC.fullmatch(metric):
            raise ValueError(f"{metric!r} is no metric: give avg@k, pass@k (or pass@1, pass@4, …) and maj@k")
    return metrics


Metrics = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_check_metrics), Field(min_length=1)]


class EvaluationConfig(BaseModel):
    """Held-out accuracy, through the same replicas (METHOD, Probe). A set may have its own of most of these keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(0, ge=0, description="Steps between evaluations; 0: only before and after")
    k: int = Field(8, gt=0, le=MAX_DRAWS, description="Independent answers per problem")
    problems: int = Field(128, gt=0, description="How many problems of each held-out set, from the first on")
    temperature: Temperature | None = Field(None, description="None: as in training; 0: the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1, description="None: as in training")
    max_tokens: int | None = Field(None, gt=0, description="None: as in training")
    metrics: Metrics = Field(
        ("avg@k", "pass@k", "maj@k"),
        description="What is told of the answers; pass@k is also told for smaller k, pass@4 for 4 alone",
    )
    problems_per_replica: int = Field(8, gt=0, description="Problems in flight on one replica")
    deadline_seconds: float = Field(600.0, gt=0, description="Problems without an answer by then are left out")
    keep: int = Field(
        20, ge=0, description="Of how many evaluations the results of every problem are kept: the first and the last"
    )


class HeldOutSet(DataSource):
    """One set of problems to evaluate on. What is None is as in `[learner.evaluation]`."""

    deduplicate: bool = Field(False, description="Drop problems that came before")
    every: int | None = Field(None, ge=0, description="Steps between evaluations on it; 0: only before and after")
    k: int | None = Field(None, gt=0, le=MAX_DRAWS, description="Independent answers per problem")
    problems: int | None = Field(None, gt=0, description="How many of its problems, from the first on")
    temperature: Temperature | None = Field(None, description="Of token sampling; 0: the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1, description="Of token sampling")
    max_tokens: int | None = Field(None, gt=0, description="Token limit of an answer")
    metrics: Metrics | None = Field(None, description="What is told of the answers: avg@k, pass@k, maj@k")

    @property
    def data(self) -> DataSource:
        """Its problems alone, as what is stated of them names them."""
        stated = {name: getattr(self, name) for name in DataSource.model_fields if name in self.model_fields_set}
        return DataSource(**stated)


def name_sets(value: object) -> object:
    """The sets by name: of a table as it has them, of files by their names."""
    if isinstance(value, str | Path | HeldOutSet) or (isinstance(value, dict) and isinstance(value.get("source"), str)):
        value = (value,)
    if isinstance(value, list | tuple):
        sources = [str(one.get("source", "") if isinstance(one, dict) else one) for one in value]
        return dict(zip(_names_of(sources), value, strict=True))
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(f"a held-out set is named with letters, digits, '-', '_' and '.', not {name!r}")
    return value


def _names_of(sources: Iterable[str]) -> list[str]:
    """A name for each: the file's or the data set's, where several have one with its folder's before it."""
    paths = [_path_of(source) for source in sources]
    short = [_clean(path.stem if path.suffix in _SUFFIXES else path.name) for path in paths]
    count = Counter(short)
    names = [
        name if count[name] == 1 else _clean(f"{path.parent.name}-{name}")
        for name, path in zip(short, paths, strict=True)
    ]
    taken: Counter[str] = Counter()
    for number, name in enumerate(names):
        taken[name] += 1
        names[number] = name if taken[name] == 1 else f"{name}-{taken[name]}"
    return names


_SUFFIXES = {".jsonl", ".json", ".csv", ".parquet", ".gz"}


def _path_of(source: str) -> Path:
    if source.startswith(HUB):
        return Path(_OF_HUB.split(source.removeprefix(HUB))[0])
    path, _, split = source.rpartition("#")
    return Path(path if path and split else source)


def _clean(name: str) -> str:
    cleaned = _NOT_IN_NAME.sub("_", name).lstrip("_.-")[:64]
    return cleaned or "set"


HeldOutSets = Annotated[dict[str, HeldOutSet], BeforeValidator(name_sets)]


@dataclass(frozen=True, slots=True)
class SetPlan:
    """How one set is measured, with everything stated."""

    name: str
    source: HeldOutSet
    every: int
    k: int
    problems: int
    growth: Growth
    metrics: tuple[str, ...]

    def is_due(self, step: int) -> bool:
        """Whether it is measured after `step` steps, before the last; before the first step every set is."""
        return step == 0 or (self.every > 0 and step % self.every == 0)

    @property
    def settings(self) -> dict[str, Any]:
        """What answers to its problems depend on, beside the policy and the problems."""
        growth = self.growth
        return {
            "k": self.k,
            "temperature": growth.temperature,
            "top_p": growth.top_p,
            "top_k": growth.top_k,
            "max_tokens": growth.max_tokens,
            "judge_truncated": growth.judge_truncated,
        }


def plan_sets(held_out: Mapping[str, HeldOutSet], evaluation: EvaluationConfig, growth: Growth) -> tuple[SetPlan, ...]:
    """The sets with what they take from `evaluation` and, where that says nothing, from training's `growth`."""
    return tuple(_plan_set(name, one, evaluation, growth) for name, one in held_out.items())


def _plan_set(name: str, one: HeldOutSet, evaluation: EvaluationConfig, growth: Growth) -> SetPlan:
    def stated(key: str) -> Any:
        own = getattr(one, key)
        return getattr(evaluation, key) if own is None else own

    k, metrics = stated("k"), stated("metrics")
    check_sizes(name, metrics, k)
    changes = {key: stated(key) for key in ("temperature", "top_p", "max_tokens") if stated(key) is not None}
    changes |= {"sampler": IndependentSampler(initial_draws=k), "merge_equal_draws": False, "likelihood": None}
    return SetPlan(name, one, stated("every"), k, stated("problems"), growth.model_copy(update=changes), metrics)


def check_sizes(name: str, metrics: Iterable[str], k: int) -> None:
    """ValueError for a metric of another number of answers than there are."""
    for metric in metrics:
        what, _, size = metric.partition("@")
        if size != "k" and (int(size) > k or (what != "pass" and int(size) != k)):
            raise ValueError(f"held_out.{name}: {metric} is wanted of k = {k} answers; set k = {size}")
