"""The figures of a step and of a whole run, from those of their trees."""

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from services.learner.config import LearnerConfig
from services.learner.metrics import Phase
from services.learner.record.state import SavedProgress, sum_usage
from services.learner.record.step_watch import warn_of_run
from services.learner.training.trajectories import BuiltTree
from shared.hub import describe_model
from shared.protocol.figures import RunSummary, SamplingFigures, SetFigures, StepFigures, UpdateFigures
from shared.protocol.status import AccuracyFigures, Evaluation, SetAccuracy
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.credit import CREDITS
from shared.tree.diagnostics import TreeFigures, ValuesOf, merge
from shared.tree.samplers import SAMPLERS
from shared.tree.values import node_values


def measure_trees(trees: Sequence[BuiltTree], values_of: ValuesOf = node_values) -> tuple[TreeFigures, TreeUsage]:
    """The diagnostics of all these trees, and what growing them took."""
    figures = merge([tree.scored.figures(tree.nodes, values_of) for tree in trees])
    return figures, sum_usage(tree.scored.usage for tree in trees)


def sampling_figures(figures: TreeFigures, usage: TreeUsage, seconds: float) -> SamplingFigures:
    """The figures of trees that so many seconds of training sampled and used."""
    return SamplingFigures(
        root_value=figures.root_value,
        avg_rate=figures.avg_rate,
        eff_rate=figures.mixed.value,
        all_right_share=figures.all_right.value,
        all_wrong_share=figures.all_wrong.value,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
        cov_eta_nodes=figures.covariances.count,
        trajectories_per_1k_tokens=_share(1000 * figures.rewards.count, usage.generated_tokens),
        cache_hit_share=_share(usage.cached_tokens, usage.prompt_tokens),
        tokens_per_second=_share(usage.generated_tokens, seconds),
        truncated_share=figures.truncated.value,
        answer_tokens=figures.answer_tokens.value,
        answer_tokens_max=figures.longest_answer or None,
        trees_without_values=figures.without_values,
        trees=figures.trees,
        trajectories=figures.rewards.count,
        generated_tokens=usage.generated_tokens,
    )


def step_figures(
    step: int,
    sampling: SamplingFigures,
    update: UpdateFigures,
    trees: Sequence[tuple[ScoredTree, int]],
    seconds: Mapping[Phase, float],
) -> StepFigures:
    """The figures of a step, from those of its trees and of its update, and its trees, each with its staleness."""
    lengths = sorted(draw.end for tree, _ in trees for draw in tree.draws)
    return StepFigures(
        step=step,
        staleness=fmean(staleness for _, staleness in trees),
        answer_tokens_p95=lengths[max(0, math.ceil(0.95 * len(lengths)) - 1)],
        trained_tokens_per_second=_share(update.trained_tokens, seconds[Phase.UPDATE]) or None,
        **{f"{phase}_seconds": spent for phase, spent in seconds.items()},
        **dict(sampling),
        **update.model_dump(include=set(UpdateFigures.model_fields)),
    )


def summary(config: LearnerConfig, progress: SavedProgress) -> RunSummary:
    totals, updates = progress.totals, progress.version.number
    before, after = progress.evaluation_at(0), progress.evaluation_at(progress.step)
    if before and not _is_of(config, before):
        before = None  # pass@k of another k is another figure
    sampling = sampling_figures(totals.figures, totals.usage, totals.training_seconds)
    return RunSummary(
        run=config.run,
        sampler=SAMPLERS.kind_of(config.growth.sampler),
        method=CREDITS.kind_of(config.advantage),
        advantage=json.dumps(CREDITS.dump(config.advantage)),
        lr=config.optimizer.lr,
        seed=config.seed,
        model=describe_model(config.model),
        data=tuple(map(str, config.data)),
        held_out=tuple(map(str, config.held_out.values())),
        version=version("ibtpo"),
        commit=source_commit(),
        warning=warn_of_run(progress.step, updates, sampling.truncated_share),
        steps=progress.step,
        updates=updates,
        k=after.k if after else before.k if before else config.evaluation.k,
        sets=_sets(before, after),
        wall_seconds=totals.wall_seconds,
        **_held_out(before, after),
        **dict(sampling),
    )


def _held_out(before: AccuracyFigures | None, after: AccuracyFigures | None) -> dict[str, float | None]:
    """The fields of HeldOutFigures."""
    return {
        f"{measure}_{when}": getattr(accuracy, measure, None)
        for measure in ("avg_at_k", "standard_error", "pass_at_k", "maj_at_k")
        for when, accuracy in (("before", before), ("after", after))
    }


def _is_of(config: LearnerConfig, evaluation: Evaluation) -> bool:
    """Whether its sets had as many answers as they are to have now."""
    planned = {plan.name: plan.k for plan in config.held_out_plans}
    return all(one.k == planned.get(one.name, config.evaluation.k) for one in evaluation.sets)


def _sets(before: Evaluation | None, after: Evaluation | None) -> tuple[SetFigures, ...]:
    """In the order of the last evaluation."""
    first, last = ({one.name: one for one in evaluation.sets} if evaluation else {} for evaluation in (before, after))
    return tuple(_set_figures(first.get(name), last.get(name)) for name in dict.fromkeys((*last, *first)))


def _set_figures(before: SetAccuracy | None, after: SetAccuracy | None) -> SetFigures:
    """Of one set that was measured before, after or both times."""
    known = after or before
    assert known is not None
    return SetFigures(name=known.name, k=known.k, problems=known.problems, **_held_out(before, after))


def source_commit() -> str:
    """The commit of the checkout that this code is in; empty where it is none, or git is missing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=10)  # noqa: S603
        return ran.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
