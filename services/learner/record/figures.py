"""The figures of a step and of a whole run, from those of their trees."""

from collections.abc import Mapping, Sequence

from services.learner.config import LearnerConfig
from services.learner.metrics import Phase
from services.learner.record.state import SavedProgress, sum_usage
from services.learner.training.trajectories import BuiltTree
from shared.protocol.figures import RunSummary, SamplingFigures, StepFigures, UpdateFigures
from shared.protocol.tree import TreeUsage
from shared.tree.diagnostics import TreeFigures, merge


def measure_trees(trees: Sequence[BuiltTree]) -> tuple[TreeFigures, TreeUsage]:
    """The diagnostics of all these trees, and what growing them took."""
    figures = merge([tree.scored.figures(tree.nodes) for tree in trees])
    return figures, sum_usage(tree.scored.usage for tree in trees)


def sampling_figures(figures: TreeFigures, usage: TreeUsage, seconds: float) -> SamplingFigures:
    """The figures of trees that so many seconds of training sampled and used."""
    return SamplingFigures(
        root_value=figures.root_value,
        avg_rate=figures.avg_rate,
        eff_rate=figures.eff_rate,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
        cov_eta_nodes=figures.cov_eta_nodes,
        trajectories_per_1k_tokens=_share(1000 * figures.trajectories, usage.generated_tokens),
        cache_hit_share=_share(usage.cached_tokens, usage.prompt_tokens),
        tokens_per_second=_share(usage.generated_tokens, seconds),
        trees=figures.trees,
        trajectories=figures.trajectories,
        generated_tokens=usage.generated_tokens,
    )


def step_figures(
    step: int, sampling: SamplingFigures, update: UpdateFigures, staleness: float, seconds: Mapping[Phase, float]
) -> StepFigures:
    """The figures of a step, from those of its trees and of its update."""
    return StepFigures(
        step=step,
        staleness=staleness,
        **{f"{phase}_seconds": spent for phase, spent in seconds.items()},
        **dict(sampling),
        **update.model_dump(include=set(UpdateFigures.model_fields)),
    )


def summary(config: LearnerConfig, progress: SavedProgress) -> RunSummary:
    """The figures of the whole run."""
    totals = progress.totals
    is_of_8 = config.evaluation.k == 8
    before = progress.evaluation_at(0) if is_of_8 else None
    after = progress.evaluation_at(progress.step) if is_of_8 else None
    return RunSummary(
        sampler=config.growth.sampler.kind,
        seed=config.seed,
        steps=progress.step,
        avg_at_8_before=before and before.avg_at_k,
        avg_at_8_after=after and after.avg_at_k,
        pass_at_8_after=after and after.pass_at_k,
        wall_seconds=totals.wall_seconds,
        **dict(sampling_figures(totals.figures, totals.usage, totals.training_seconds)),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
