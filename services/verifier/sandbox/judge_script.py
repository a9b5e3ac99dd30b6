"""What a judge process is given and what it reports. The service makes the script; the judge runs it."""

import ast
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class JudgeScript:
    """Tests of a solution: `setup` runs before them; `calls_check` tests end with `check(<entry point>)`.

    A script that is not `is_partial` ends at the first failure.
    """

    setup: str
    tests: tuple[str, ...]
    entry_point: str
    calls_check: bool
    is_partial: bool

    @property
    def num_characters(self) -> int:
        """Of all its code."""
        return sum(map(len, (self.setup, *self.tests)))

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes | str) -> "JudgeScript":
        fields = json.loads(data)
        return cls(**(fields | {"tests": tuple(fields["tests"])}))


@dataclass(slots=True)
class JudgeReport:
    """The results so far. Written after each test, so that a killed judge has reported what it knew.

    `failure` is the class name of the first exception that failed a test, or of the one that ended the tests.
    """

    num_tests: int
    num_passed: int = 0
    num_answers: int = 0
    is_done: bool = False
    failure: str = ""
    message: str = ""

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> "JudgeReport":
        return cls(**json.loads(data))


def has_assertion(tree: ast.AST) -> bool:
    """Whether the code can fail a solution: an `assert`, a `raise`, or a call of some `….assert…`."""
    return any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert"))
        for node in ast.walk(tree)
    )
