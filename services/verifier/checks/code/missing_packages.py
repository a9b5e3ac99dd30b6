"""Packages that a program wanted and that are not here: what fails for that says nothing about the answer."""

import re

# An answer cannot leave its judging by naming just anything: these are what honest programs import.
_WELL_KNOWN = frozenset(
    {"bs4", "docx", "gensim", "gmpy2", "lxml", "matplotlib", "more_itertools", "mpmath", "networkx", "nltk", "numba"}
    | {
        "numpy",
        "openpyxl",
        "pandas",
        "PIL",
        "PyPDF2",
        "pytz",
        "regex",
        "requests",
        "scipy",
        "sklearn",
        "sortedcontainers",
    }
    | {"sympy", "tensorflow", "torch", "tqdm", "yaml"}
)
_MISSING = re.compile(r"ModuleNotFoundError: No module named '(\w++)[\w.]*+'")
# What contests provide without an import, and only this package has.
_SORTED = re.compile(r"NameError: name 'Sorted(?:Dict|List|Set)' is not defined")
_MAX_READ = 2_000


def find_missing_package(stderr: bytes) -> str | None:
    """The well-known package whose absence ended a program, by its last lines; None if it ended otherwise."""
    lines = stderr[-_MAX_READ:].decode("utf-8", "replace").strip().splitlines()
    if lines and _SORTED.search(lines[-1]):
        return "sortedcontainers"
    found = _MISSING.search(lines[-1]) if lines else None
    return found[1] if found and found[1] in _WELL_KNOWN else None


def explain_missing(package: str) -> str:
    """What to do about it."""
    return f"the program needs {package}, which is not here; name it in code.packages"
