"""Credit assignment: the advantage with which a node's tokens are trained, and their weight (METHOD, Advantages)."""

from typing import Annotated, TypeAlias

from shared.kinds import Kinds
from shared.tree.credit.baseline import BaselineCredit
from shared.tree.credit.credit import (
    NOTHING_MORE,
    Advantages,
    Credit,
    Deviation,
    NodeWeight,
    SideInformation,
    assign_advantages,
    node_weights,
    whiten,
)
from shared.tree.credit.grpo import DrGRPOCredit, GRPOCredit, RLOOCredit
from shared.tree.credit.grpo_on_trees import TEMPOCredit, TreeAdvCredit, TreeGRPOCredit
from shared.tree.credit.ibtpo import Baseline, IBTPOCredit, Method, Prior
from shared.tree.credit.siblings import SiblingScale, SiblingsCredit, SPOTreeCredit
from shared.tree.credit.treepo import TreePOCredit
from shared.tree.credit.treerl import TreeRLCredit

_HERE = "shared.tree.credit"
CREDITS: Kinds[Credit] = Kinds(
    "credit",
    Credit,  # type: ignore[type-abstract]
    {
        "ibtpo": f"{_HERE}.ibtpo:IBTPOCredit",
        "grpo": f"{_HERE}.grpo:GRPOCredit",
        "dr-grpo": f"{_HERE}.grpo:DrGRPOCredit",
        "rloo": f"{_HERE}.grpo:RLOOCredit",
        "treerl": f"{_HERE}.treerl:TreeRLCredit",
        "baseline": f"{_HERE}.baseline:BaselineCredit",
        "siblings": f"{_HERE}.siblings:SiblingsCredit",
        "spo-tree": f"{_HERE}.siblings:SPOTreeCredit",
        "treepo": f"{_HERE}.treepo:TreePOCredit",
        "tree-grpo": f"{_HERE}.grpo_on_trees:TreeGRPOCredit",
        "tempo": f"{_HERE}.grpo_on_trees:TEMPOCredit",
        "treeadv": f"{_HERE}.grpo_on_trees:TreeAdvCredit",
    },
    default="ibtpo",
)
AnyCredit: TypeAlias = Annotated[Credit, CREDITS]

__all__ = [
    "CREDITS",
    "NOTHING_MORE",
    "Advantages",
    "AnyCredit",
    "Baseline",
    "BaselineCredit",
    "Credit",
    "Deviation",
    "DrGRPOCredit",
    "GRPOCredit",
    "IBTPOCredit",
    "Method",
    "NodeWeight",
    "Prior",
    "RLOOCredit",
    "SPOTreeCredit",
    "SiblingScale",
    "SiblingsCredit",
    "SideInformation",
    "TEMPOCredit",
    "TreeAdvCredit",
    "TreeGRPOCredit",
    "TreePOCredit",
    "TreeRLCredit",
    "assign_advantages",
    "node_weights",
    "whiten",
]
