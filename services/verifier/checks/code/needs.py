"""What must be here for a problem to be judged: packages, and a folder for files."""

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

# Judges of contests provide these without an import.
_PACKAGE_OF_NAME = dict.fromkeys(("SortedDict", "SortedList", "SortedSet"), "sortedcontainers")
_FILE_WORDS = re.compile(
    r"(?<![.\w])open\(|\bsqlite3\.connect\((?!\s?[\"']:memory:)|\b(?:shutil|tempfile|Image\.open|ZipFile|tarfile|pathlib)\b"
    r"|\bos\.(?:remove|unlink|mkdir|makedirs|rmdir|listdir|path\.exists|path\.isfile)\b"
)


class Files(Enum):
    """Whether program and tests share a folder for files."""

    NO = "no"
    MENTIONED = "mentioned"
    """The tests mention files."""
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Needs:
    """The packages that a problem needs besides the standard library, and its files."""

    packages: tuple[str, ...] = ()
    files: Files = Files.NO


NO_NEEDS = Needs()


def find_needs(reference: str) -> dict[str, Any]:
    """The fields `packages` and `files` of a problem's answer key, as its reference solution tells them.

    Only for references: what an *answer* imports must not decide whether it is judged. Raises SyntaxError for what is
    no Python.
    """
    imported = {name for node in ast.walk(ast.parse(reference)) for name in _packages_in(node)}
    packages = sorted(imported - sys.stdlib_module_names)
    return {**({"packages": packages} if packages else {}), **({"files": True} if mention_files([reference]) else {})}


def mention_files(codes: Iterable[str]) -> bool:
    """Whether a code mentions what opens, makes or removes files."""
    return any(map(_FILE_WORDS.search, codes))


def _packages_in(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.partition(".")[0]]
        case ast.Name(id=name, ctx=ast.Load()) if name in _PACKAGE_OF_NAME:
            return [_PACKAGE_OF_NAME[name]]
        case _:
            return []
