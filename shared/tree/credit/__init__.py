"""Credit assignment: the advantage with which a node's tokens are trained, and their weight (METHOD, Advantages)."""

from typing import Annotated, TypeAlias

from shared.kinds import Kinds
from shared.tree.credit.baseline import BaselineCredit
from shared.tree.credit.credit import (
    Advantages,
    Credit,
    Deviation,
    NodeWeight,
    SideInformation,
    assign_advantages,
    node_weights,
)
from shared.tree.credit.grpo import DrGRPOCredit, GRPOCredit
from shared.tree.credit.ibtpo import IBTPOCredit, Method, Prior
from shared.tree.credit.treerl import TreeRLCredit

_HERE = "shared.tree.credit"
CREDITS: Kinds[Credit] = Kinds(
    "credit",
    Credit,  # type: ignore[type-abstract]
    {
        "ibtpo": f"{_HERE}.ibtpo:IBTPOCredit",
        "grpo": f"{_HERE}.grpo:GRPOCredit",
        "dr-grpo": f"{_HERE}.grpo:DrGRPOCredit",
        "treerl": f"{_HERE}.treerl:TreeRLCredit",
        "baseline": f"{_HERE}.baseline:BaselineCredit",
    },
    default="ibtpo",
)
AnyCredit: TypeAlias = Annotated[Credit, CREDITS]

__all__ = [
    "CREDITS",
    "Advantages",
    "AnyCredit",
    "BaselineCredit",
    "Credit",
    "Deviation",
    "DrGRPOCredit",
    "GRPOCredit",
    "IBTPOCredit",
    "Method",
    "NodeWeight",
    "Prior",
    "SideInformation",
    "TreeRLCredit",
    "assign_advantages",
    "node_weights",
]
