"""Tries the user's own parts before a run, in the processes and within the deadlines that the run has for them."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.launcher.check.trials import Imported, Surroundings, Trial, try_credit, try_sampler, try_term, try_values
from services.launcher.display.finding import Section
from services.launcher.settings.plan import RunPlan
from services.learner.loss_terms import SURROGATES, TERMS, Clip
from shared.errors import InvalidInput
from shared.kinds import Kinds, is_path, values_of_settings
from shared.plugins import OwnCodeFailed, OwnProcesses
from shared.tree.credit import CREDITS
from shared.tree.sample_trees import SAMPLE_TOKENS, Carried
from shared.tree.samplers import SAMPLERS, Sampler
from shared.tree.values import VALUES
from shared.tree.values.prior import NodePriors, PriorSource, priors_in
from shared.tree.vocabulary import bytes_of_tokens
from shared.weights import read_json_object

_AT_ONCE = 2
_ALL_KINDS: tuple[Kinds[Any], ...] = (SAMPLERS, CREDITS, VALUES, TERMS, SURROGATES)
_MEND = "mend it; `ibtpo check --quick` with the same settings tries it again"


@dataclass(frozen=True, slots=True)
class OwnPart:
    """One of the user's own."""

    kinds: Kinds[Any]
    part: Any
    seconds_key: str
    """The setting of the deadline that a run has for it."""
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.kinds.noun} {self.kinds.kind_of(self.part)}"

    def attempt(self, given: Surroundings) -> Trial:
        """Tries it in a process of its own."""
        with closing(OwnProcesses(self.seconds)) as processes:
            try:
                if self.kinds is SAMPLERS:
                    return processes.call(try_sampler, self.part, given)
                if self.kinds is CREDITS:
                    return processes.call(try_credit, self.part, given)
                if self.kinds is VALUES:
                    return processes.call(try_values, self.part, given)
                modules: Any = Imported("torch"), Imported("services.learner.training.own_terms")
                return processes.call(try_term, self.part, self.kinds.kind_of(self.part), given, *modules)
            except OwnCodeFailed as error:
                return Trial(f"{error}, on small {'trees' if self.kinds not in (TERMS, SURROGATES) else 'batches'}")


def own_parts(plan: RunPlan) -> list[OwnPart]:
    """Every part of the user's own that the run would use, each once, those among another's settings as well."""
    learner, rollout = plan.learner, plan.rollout
    at_replicas = "rollout.plugin_seconds", rollout.plugin_seconds
    at_learner = "learner.plugin_seconds", learner.plugin_seconds
    of_replicas = (learner.growth.sampler, learner.score)
    of_learner = (learner.advantage, learner.objective.surrogate, *learner.objective.terms)
    found: dict[str, OwnPart] = {}
    for whole, deadline in (*((one, at_replicas) for one in of_replicas), *((one, at_learner) for one in of_learner)):
        for kinds, part in _own_in(whole):
            key = json.dumps([kinds.noun, kinds.dump(part)], sort_keys=True, default=str)
            found.setdefault(key, OwnPart(kinds, part, *deadline))
    return list(found.values())


def _own_in(part: object) -> Iterator[tuple[Kinds[Any], Any]]:
    """The part, if it is the user's own, and those among its settings."""
    for kinds in _ALL_KINDS:
        if kinds.base in type(part).__mro__ and is_path(kinds.kind_of(part)):
            yield kinds, part
            break
    for value in values_of_settings(part).values():
        yield from _own_in(value)


def examine_own_parts(section: Section, plan: RunPlan, model: Path | None) -> None:
    """What each of them does with small trees or tensors, as the run would give it; `model` has the tokens."""
    parts = own_parts(plan)
    if parts:
        given = _surroundings(plan, model)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            trials = list(threads.map(lambda one: one.attempt(given), parts))
        for one, trial in zip(parts, trials, strict=True):
            _say(section, one, trial)
    _examine_priors(section, plan)


def _say(section: Section, one: OwnPart, trial: Trial) -> None:
    trial = trial.without(f"{TERMS.noun} {one.kinds.kind_of(one.part)} ")  # which the check of a term begins with
    if trial.failed:
        is_slow = "took longer than" in trial.failed
        remedy = f"make it faster, or give {one.seconds_key} more than {one.seconds:g}" if is_slow else _MEND
        section.failed(one.name, trial.failed, remedy)
    for warning in trial.warnings:
        section.warning(one.name, warning, _MEND)
    if not trial.failed and not trial.warnings:
        section.ok(one.name, "does its work on small " + ("batches" if one.kinds in (TERMS, SURROGATES) else "trees"))


def _surroundings(plan: RunPlan, model: Path | None) -> Surroundings:
    learner = plan.learner
    growth, objective = learner.growth, learner.objective
    return Surroundings(
        carried=Carried(
            entropies=_asks_entropies(growth.sampler),
            likelihoods=growth.likelihood is not None,
            priors=learner.value_head_plan is not None,
        ),
        max_tokens=growth.max_tokens,
        merges=growth.merge_equal_draws,
        bytes_of_token=_tokens(model),
        reads_reference=learner.needs_reference,
        clip=Clip(objective.clip_low, objective.clip_high, objective.dual_clip or math.inf),
    )


def _asks_entropies(sampler: Sampler) -> bool:
    try:
        return bool(sampler.asks_entropies)
    except Exception:  # noqa: BLE001 - of the user's own; its trial says so
        return False


def _tokens(model: Path | None) -> tuple[bytes, ...]:
    """The model's; those of the small trees where they cannot be read, which others say."""
    if model is None:
        return SAMPLE_TOKENS
    try:
        return tuple(bytes_of_tokens(read_json_object(model / "tokenizer.json")))
    except (InvalidInput, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return SAMPLE_TOKENS


def _examine_priors(section: Section, plan: RunPlan) -> None:
    """Whether a sampler takes likelihoods as they are."""
    for prior in priors_in(plan.learner.growth.sampler):
        if prior.source is PriorSource.LIKELIHOOD and (prior.a, prior.b) == (NodePriors().a, NodePriors().b):
            section.warning(
                "sampler's prior",
                "likelihoods are not calibrated (a = 1, b = 0): they may be far below any count, and the IB-Score, a "
                "ratio of values, then grows without bound",
                "give a and b that `python -m benchmarks.calibration runs/NAME` finds in an earlier run's trees, or "
                "sampler.score.values=counts",
            )
