"""A table of figures: columns by name, drawn in a notebook and in a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import import_module
from typing import Any, Self

from rich.table import Table as TerminalTable
from rich.text import Text

from ibtpo.notebook import to_text
from shared.errors import MissingPackage

MAX_SHOWN = 60


class Table(dict[str, list[Any]]):
    """Columns of equal length by their names: `table["value"]`, `pandas.DataFrame(table)`."""

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> Self:
        """The table of these rows; what a row lacks is None. `columns` come first, and stand also without rows."""
        every = list(rows)
        names = dict.fromkeys([*columns, *(name for row in every for name in row)])
        return cls({name: [row.get(name) for row in every] for name in names})

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.values()), []))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each row as a dictionary."""
        return [dict(zip(self, values, strict=True)) for values in zip(*self.values(), strict=True)]

    def to_pandas(self) -> Any:
        """A pandas DataFrame; MissingPackage without pandas."""
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise MissingPackage("pandas is not installed here: pip install pandas") from error
        return pandas.DataFrame(dict(self))

    def __repr__(self) -> str:
        return to_text(self)

    def __rich__(self) -> TerminalTable:
        table = TerminalTable(box=None, header_style="dim", pad_edge=False)
        for name, values in self.items():
            is_text = any(isinstance(value, str) for value in values)
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
        for row in self._shown():
            table.add_row(*map(Text, row))
        if self.num_rows > MAX_SHOWN:
            table.caption = f"{self.num_rows} rows"
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._shown())
        rest = f"<p>{self.num_rows} rows</p>" if self.num_rows > MAX_SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"

    def _shown(self) -> Iterator[list[str]]:
        """The cells of the first rows; of long tables, of the first and the last."""
        rows = list(zip(*self.values(), strict=True))
        half = MAX_SHOWN // 2
        shown = rows if len(rows) <= MAX_SHOWN else [*rows[:half], ["…"] * len(self), *rows[-half:]]
        return ([_format(value) for value in row] for row in shown)


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(str(value).split())
