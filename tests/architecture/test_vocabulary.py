"""One vocabulary: class names are unique, retired words stay away, some words have one home, folders stay small."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for room in ("ibtpo", "services", "shared") for path in (ROOT / room).rglob("*.py"))
MAX_MODULES_IN_A_FOLDER = 14

# Names of an earlier version, each with what says it now. They are part of no identifier in services or shared.
RETIRED = {
    "crew": "ranks",
    "curriculum": "task sequence",
    "desk": "on-demand trees",
    "doors": "middleware",
    "journal": "metrics log",
    "keeper": "supervisor",
    "leash": "die_with_parent",
    "patience": "a deadline, by what it bounds",
    "presence": "heartbeat",
    "shelf": "tree samples",
    "soundness": "validation",
    "tell": "broadcast, write, log or send",
    "told": "broadcast, write, log or send",
}

# Words that belong to one subject: an identifier that contains one stands in these places alone.
HOMES = {
    "credit": (
        "ibtpo",
        "shared/tree",
        "shared/protocol/figures.py",
        "services/learner/training",
        "services/learner/own_credit.py",
        "services/launcher/check/trials.py",
        "services/learner/config.py",
        "services/verifier/checks/code/key.py",  # `partial_credit`, the word of those who grade programs
    ),
    "draw": ("ibtpo", "shared/tree", "shared/protocol", "services/rollout", "services/learner", "services/launcher"),
    "lease": ("shared/streams", "services/learner"),
    "slot": ("services/rollout/engines/embedded",),
    "jail": ("services/verifier",),
}


@cache
def parse(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def identifiers(module: Path) -> Iterator[str]:
    """Every name that the module defines or binds: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def words(identifier: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case, as they stand and without a plural s."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return {word for part in parts for word in (part.lower(), part.lower().removesuffix("s"))}


def where(module: Path) -> str:
    return module.relative_to(ROOT).as_posix()


@cache
def names_by_word() -> dict[str, dict[str, set[str]]]:
    """For each word, by module, the identifiers that contain it; a module's own name counts."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module in MODULES:
        for identifier in (module.stem, *identifiers(module)):
            for word in words(identifier):
                found[word][where(module)].add(identifier)
    return found


def uses_of(word: str) -> dict[str, set[str]]:
    return dict(names_by_word().get(word, {}))


def test_no_two_public_classes_share_a_name() -> None:
    """Those of the Python interface apart: each may be called as what it stands for."""
    places = defaultdict(list)
    for module in (one for one in MODULES if not where(one).startswith("ibtpo/")):
        for node in parse(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(where(module))
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_is_in_no_name(word: str) -> None:
    assert uses_of(word) == {}, f"say {RETIRED[word]}"


@pytest.mark.parametrize("word", HOMES)
def test_a_word_of_one_subject_stays_at_home(word: str) -> None:
    strays = {module: names for module, names in uses_of(word).items() if not module.startswith(HOMES[word])}
    assert strays == {}, f"{word!r} belongs to {', '.join(HOMES[word])}"


def test_every_module_says_in_its_first_line_what_it_holds() -> None:
    silent = [where(m) for m in MODULES if m.stat().st_size and not ast.get_docstring(parse(m))]
    assert silent == []


def test_no_folder_holds_more_modules_than_one_can_survey() -> None:
    counts = Counter(where(module.parent) for module in MODULES if module.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES_IN_A_FOLDER} == {}
