"""IB-TPO from Python: grow trees of answers, score them, assign credit, train, evaluate (docs/python.md)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ibtpo.own_packages import load_own_packages

load_own_packages()

if TYPE_CHECKING:  # everything is loaded when it is first used: most of it needs seconds
    from ibtpo.evaluation import Evaluation, evaluate
    from ibtpo.run import Run, runs
    from ibtpo.scoring import CreditedTree, credit, score
    from ibtpo.session import Session, grow, verify
    from ibtpo.table import Table
    from ibtpo.training import train
    from ibtpo.tree import Answer, Tree
    from services.launcher.display.node_views import NodeView
    from shared.errors import (
        Conflict,
        DeadlineExceeded,
        IbtpoError,
        InvalidInput,
        MissingPackage,
        Unavailable,
    )
    from shared.protocol.verdict import Outcome, Verdict

__all__ = [
    "Answer",
    "Conflict",
    "CreditedTree",
    "DeadlineExceeded",
    "Evaluation",
    "IbtpoError",
    "InvalidInput",
    "MissingPackage",
    "NodeView",
    "Outcome",
    "Run",
    "Session",
    "Table",
    "Tree",
    "Unavailable",
    "Verdict",
    "__version__",
    "credit",
    "evaluate",
    "grow",
    "runs",
    "score",
    "train",
    "verify",
]

__version__: str
_HOMES = {
    **dict.fromkeys(("Evaluation", "evaluate"), "ibtpo.evaluation"),
    **dict.fromkeys(("CreditedTree", "credit", "score"), "ibtpo.scoring"),
    **dict.fromkeys(("Session", "grow", "verify"), "ibtpo.session"),
    **dict.fromkeys(("Run", "runs"), "ibtpo.run"),
    "Table": "ibtpo.table",
    "train": "ibtpo.training",
    **dict.fromkeys(("Answer", "Tree"), "ibtpo.tree"),
    "NodeView": "services.launcher.display.node_views",
    **dict.fromkeys(
        ("Conflict", "DeadlineExceeded", "IbtpoError", "InvalidInput", "MissingPackage", "Unavailable"), "shared.errors"
    ),
    **dict.fromkeys(("Outcome", "Verdict"), "shared.protocol.verdict"),
}
"""Where each public name is defined."""


if not TYPE_CHECKING:  # to whoever checks types, a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("ibtpo")
        if name not in _HOMES:
            raise AttributeError(f"module 'ibtpo' has no attribute {name!r}")
        from shared.errors import explain_missing_packages

        with explain_missing_packages():
            return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
