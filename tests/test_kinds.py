"""Parts by name or by import path: every one that cannot be had is refused in one line with its remedy."""

import contextlib
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from shared import kinds
from shared.kinds import Kinds, Plugins, check_own_code, own_code, packages_of, permit_packages

HERE = __name__


class Shape(Protocol):
    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True)
class Square(Shape):
    side: Annotated[float, "Its side"] = 1.0

    def __post_init__(self) -> None:
        if self.side < 0:
            raise ValueError(f"a side is not negative: {self.side}")

    def area(self) -> float:
        return self.side**2


@dataclass(frozen=True)
class Holey(Shape):
    """Has no area."""


class Bare(Shape):
    def area(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Kinded(Shape):
    kind: str = "round"

    def area(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Moody(Shape):
    def __post_init__(self) -> None:
        raise RuntimeError("not today")

    def area(self) -> float:
        return 0.0


class Modelled(BaseModel):
    side: int = 2


SHAPES: Kinds[Shape] = Kinds("shape", Shape, {"square": f"{HERE}:Square"})  # type: ignore[type-abstract]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules of a user's own, in a directory that is on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    kinds._Permission.packages = None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("circle", "no shape is named 'circle': choose from square, or give package.module:Class"),
        ("a b:C", "'a b:C' is no import path: write package.module:Class"),
        ("my-pkg.shapes:Circle", "'my-pkg.shapes:Circle' is no import path"),
        ("my_pkg.shapes.Circle", "has no colon before its class: did you mean my_pkg.shapes:Circle?"),
        (f"{HERE}:Kinded", f"{HERE}:Kinded has a setting called kind"),
        (3, "a shape is a name, an import path or a table with its kind, not 3"),
        ({"side": 3}, "say which shape: kind = one of square, or package.module:Class"),
        ({"kind": 3}, "say which shape"),
        ("nowhere_at_all.shapes:Circle", "nowhere_at_all.shapes:Circle is not here"),
        (f"{HERE}:Circle", f"{HERE}:Circle is not there"),
        (f"{HERE}:HERE", f"{HERE}:HERE is no shape: write it as a class that subclasses"),
        (f"{HERE}:Modelled", f"{HERE}:Modelled is no shape"),
        (f"{HERE}:Holey", f"{HERE}:Holey lacks area, which every shape has"),
        (f"{HERE}:Bare", f"{HERE}:Bare has no schema of its settings: make it a dataclass"),
        (f"{HERE}:Moody", f"{HERE}:Moody cannot be made: RuntimeError: not today"),
        ({"kind": "square", "side": -1}, "a side is not negative: -1.0"),
        ({"kind": "square", "side": "long"}, "valid number"),
        ({"kind": "square", "edge": 1}, "unknown key"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_refused_with_its_remedy(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        SHAPES.make(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_whatever_is_given_a_part_or_a_value_error_comes_of_it(value: Any) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(SHAPES.make(value), Square)


@given(st.floats(0, 1e6))
def test_a_part_travels_as_a_table(side: float) -> None:
    part = SHAPES.make({"kind": "square", "side": side})
    assert SHAPES.dump(part) == {"kind": "square", "side": side}
    assert SHAPES.make(SHAPES.dump(part)) == part == SHAPES.make(part)
    assert SHAPES.kind_of(part) == "square"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def (", "cannot be imported: SyntaxError"),
        ("import nowhere_at_all", "needs nowhere_at_all, which is not here (No module named 'nowhere_at_all')"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_in_one_line(package: Path, source: str, reason: str) -> None:
    name = f"broken_{abs(hash(source))}"
    (package / f"{name}.py").write_text(source)
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        SHAPES.make(f"{name}:Shape")
    assert "\n" not in str(refused.value)


def test_a_package_that_is_not_permitted_is_not_imported(package: Path) -> None:
    (package / "never_run.py").write_text("raise KeyboardInterrupt")
    permit_packages(["tests"])
    with pytest.raises(ValueError, match=r"^never_run:Shape is not permitted here: .* plugins=never_run$"):
        SHAPES.make("never_run:Shape")
    assert SHAPES.make(f"{HERE}:Square") == Square()


def test_own_code_is_known_by_its_digest(package: Path) -> None:
    (package / "my_shape.py").write_text("from tests.test_kinds import Square as Mine\nclass Mine(Mine): pass\n")
    part = SHAPES.make("my_shape:Mine")
    assert packages_of([part, Square()]) == ("my_shape", "tests")
    digests = own_code(part)
    assert [*digests] == ["my_shape"]
    check_own_code(part, digests)
    with pytest.raises(ValueError, match=r"my_shape is here another version \(\w{12}\) than where the task was made"):
        check_own_code(part, {"my_shape": "0" * 12})
    with pytest.raises(ValueError, match=r"other is here another version \(none\).*install the same other everywhere"):
        check_own_code(part, {"other": "0" * 12})


def test_permitted_packages_are_names() -> None:
    plugins = TypeAdapter(Plugins)
    assert plugins.validate_python("my_pkg") == ("my_pkg",)
    assert plugins.validate_python(["a", "b"]) == ("a", "b")
    with pytest.raises(ValidationError, match=re.escape("'my_pkg.mine' is no package: give the first part")):
        plugins.validate_python("my_pkg.mine")
