"""Where a tree is drawn from next: the samplers (METHOD, Where to draw next)."""

from typing import Annotated, TypeAlias

from shared.kinds import Kinds
from shared.tree.samplers.active_path import ActivePathSampler
from shared.tree.samplers.entropy import EntropySampler
from shared.tree.samplers.fixed_width import FixedWidthSampler
from shared.tree.samplers.gains import ExpectedVarianceSampler, HitSampler, expected_variances, hit_gains
from shared.tree.samplers.independent import IndependentSampler
from shared.tree.samplers.nodes import IBSampler, RandomSampler
from shared.tree.samplers.sampler import Branch, Sampler, check_branches, choose_branches, prepare_sampler
from shared.tree.samplers.segments import SPOTreeSampler, TreeRPOSampler
from shared.tree.samplers.tokens import TokenScore, token_scores
from shared.tree.samplers.tree_grpo import TreeGRPOSampler
from shared.tree.samplers.treepo import TreePOSampler
from shared.tree.samplers.unseen import unseen_masses

_HERE = "shared.tree.samplers"
SAMPLERS: Kinds[Sampler] = Kinds(
    "sampler",
    Sampler,  # type: ignore[type-abstract]
    {
        "independent": f"{_HERE}.independent:IndependentSampler",
        "ib": f"{_HERE}.nodes:IBSampler",
        "random": f"{_HERE}.nodes:RandomSampler",
        "fixed-width": f"{_HERE}.fixed_width:FixedWidthSampler",
        "entropy": f"{_HERE}.entropy:EntropySampler",
        "active-path": f"{_HERE}.active_path:ActivePathSampler",
        "treerpo": f"{_HERE}.segments:TreeRPOSampler",
        "spo-tree": f"{_HERE}.segments:SPOTreeSampler",
        "treepo": f"{_HERE}.treepo:TreePOSampler",
        "tree-grpo": f"{_HERE}.tree_grpo:TreeGRPOSampler",
        "hit": f"{_HERE}.gains:HitSampler",
        "expected-variance": f"{_HERE}.gains:ExpectedVarianceSampler",
    },
)
AnySampler: TypeAlias = Annotated[Sampler, SAMPLERS]

__all__ = [
    "SAMPLERS",
    "ActivePathSampler",
    "AnySampler",
    "Branch",
    "EntropySampler",
    "ExpectedVarianceSampler",
    "FixedWidthSampler",
    "HitSampler",
    "IBSampler",
    "IndependentSampler",
    "RandomSampler",
    "SPOTreeSampler",
    "Sampler",
    "TokenScore",
    "TreeGRPOSampler",
    "TreePOSampler",
    "TreeRPOSampler",
    "check_branches",
    "choose_branches",
    "expected_variances",
    "hit_gains",
    "prepare_sampler",
    "token_scores",
    "unseen_masses",
]
