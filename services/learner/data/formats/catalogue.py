"""All named formats, and which one the rows of a source have."""

import difflib
from collections.abc import Sequence

from services.learner.data.formats.base import Format
from services.learner.data.formats.chat import CHAT_FORMATS
from services.learner.data.formats.choice import CHOICE_FORMATS, numbered
from services.learner.data.formats.code import CODE_FORMATS
from services.learner.data.formats.math import MATH_FORMATS
from services.learner.data.formats.own import own_format
from services.learner.data.reading.rows import Row
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

FORMATS: tuple[Format, ...] = (*CHAT_FORMATS, *MATH_FORMATS, *CHOICE_FORMATS, *CODE_FORMATS)


def find_format(source: DataSource, rows: Sequence[Row]) -> Format:
    """The format that the source names, or the one that its first rows have.

    InvalidInput names the columns that there are.
    """
    if source.fields:
        return _check_fits(own_format(source), source, rows)
    if source.format != "auto":
        return numbered(_by_name(source.format), rows)
    counts = {one.name: sum(map(one.fits, rows)) for one in FORMATS}
    most = max(counts.values(), default=0)
    fitting = [one for one in FORMATS if most and counts[one.name] == most]
    if len(fitting) == 1:
        return numbered(fitting[0], rows)
    if fitting:
        names = " or ".join(one.name for one in fitting)
        raise InvalidInput(f"{source} may be {names} by its columns {columns_of(rows)}: give format=…")
    raise InvalidInput(
        f"{source} has the columns {columns_of(rows)}, which no format has: name them, as "
        "fields = {prompt = …, gold = …}, or a format (`ibtpo data formats`)"
    )


def detect_format(rows: Sequence[Row]) -> Format | None:
    """The one format that these rows have, None where it is none or not clear."""
    fitting = [one for one in FORMATS if any(map(one.fits, rows))]
    return fitting[0] if len(fitting) == 1 else None


def _by_name(name: str) -> Format:
    found = next((one for one in FORMATS if one.name == name), None)
    if found is None:
        names = [one.name for one in FORMATS]
        close = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise InvalidInput(f"there is no format {name!r}; {remedy}")
    return found


def _check_fits(own: Format, source: DataSource, rows: Sequence[Row]) -> Format:
    if not any(map(own.fits, rows)):
        raise InvalidInput(f"{source}: fields ({own.columns}) fit no row; there are the columns {columns_of(rows)}")
    return own


def columns_of(rows: Sequence[Row]) -> str:
    """The columns of the first rows, one level deep."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            names.update(dict.fromkeys([f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]))
    shown = list(names)[:20]
    return ", ".join(shown) + (" …" if len(names) > len(shown) else "") if shown else "none"
