"""The figures of a step and of a whole run, from those of their trees."""

from collections.abc import Sequence

from services.learner.config import LearnerConfig
from services.learner.record.state import SavedProgress, sum_usage
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.protocol.figures import RunSummary, StepFigures
from shared.protocol.tree import TreeUsage
from shared.tree.diagnostics import TreeFigures, merge


def measure_trees(trees: Sequence[BuiltTree]) -> tuple[TreeFigures, TreeUsage]:
    """The diagnostics of all these trees, and what growing them took."""
    figures = merge([tree.scored.figures(tree.nodes) for tree in trees])
    return figures, sum_usage(tree.scored.usage for tree in trees)


def step_figures(step: int, figures: TreeFigures, usage: TreeUsage, update: Update) -> StepFigures:
    """What a step shows of itself; times and staleness come with the steps' own clock."""
    return StepFigures(
        step=step,
        avg_rate=figures.avg_rate,
        root_value=figures.root_value,
        eff_rate=figures.eff_rate,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
        cov_eta_nodes=figures.cov_eta_nodes,
        advantage_global=update.advantage_global,
        advantage_local=update.advantage_local,
        entropy=update.entropy,
        kl=update.kl,
        clip_share=update.clip_share,
        grad_norm=update.grad_norm,
        loss=update.loss,
        learning_rate=update.learning_rate,
        engine_gap=update.engine_gap,
        trees=figures.trees,
        trajectories=figures.trajectories,
        generated_tokens=usage.generated_tokens,
        trajectories_per_1k_tokens=_share(1000 * figures.trajectories, usage.generated_tokens),
        cache_hit_share=_share(usage.cached_tokens, usage.prompt_tokens),
    )


def summary(config: LearnerConfig, progress: SavedProgress) -> RunSummary:
    """What the run came to."""
    totals = progress.totals
    is_of_8 = config.evaluation.k == 8
    before = progress.evaluation_at(0) if is_of_8 else None
    after = progress.evaluation_at(progress.step) if is_of_8 else None
    figures, usage = totals.figures, totals.usage
    return RunSummary(
        sampler=config.growth.sampler.kind,
        seed=config.seed,
        generated_tokens=usage.generated_tokens,
        trajectories=figures.trajectories,
        trees=figures.trees,
        steps=progress.step,
        avg_at_8_before=before and before.avg_at_k,
        avg_at_8_after=after and after.avg_at_k,
        pass_at_8_after=after and after.pass_at_k,
        eff_rate=figures.eff_rate,
        avg_rate=figures.avg_rate,
        root_value=figures.root_value,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
        cov_eta_nodes=figures.cov_eta_nodes,
        trajectories_per_1k_tokens=_share(1000 * figures.trajectories, usage.generated_tokens),
        tokens_per_second=_share(usage.generated_tokens, totals.training_seconds),
        cache_hit_share=_share(usage.cached_tokens, usage.prompt_tokens),
        wall_seconds=totals.wall_seconds,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
