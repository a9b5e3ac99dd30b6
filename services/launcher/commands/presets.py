"""`ibtpo presets`: which presets there are, and what each does."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.runtime.config import About, PresetKind, preset_names, preset_path, read_about

_TITLES = {PresetKind.METHOD: "methods, for any task", PresetKind.TASK: "tasks, for any method"}

_NEXT = (
    "`ibtpo train --config NAME` trains with one, `ibtpo config --config NAME` prints it whole, "
    "`ibtpo config --diff A B` says how two differ."
)


@dataclass(frozen=True, slots=True)
class PresetRow:
    """A preset in the list."""

    name: str
    path: str
    about: About

    @classmethod
    def read(cls, preset: str) -> "PresetRow":
        return cls(preset, str(preset_path(preset)), read_about(preset))


def list_presets(presets: Sequence[str], *, as_json: bool) -> int:
    """Prints these, names or files; without any, those that come with ibtpo."""
    rows = [PresetRow.read(preset) for preset in presets or preset_names()]
    if as_json:
        print(json.dumps([_describe(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    console = Console()
    for kind, title in _TITLES.items():
        if of_kind := [row for row in rows if row.about.kind is kind]:
            console.print(Text(title, "bold"), _render(of_kind), "", sep="\n")
    console.print(Text(_NEXT, "dim"))
    return 0


def _describe(row: PresetRow) -> dict[str, str]:
    return {"name": row.name, **row.about.model_dump(mode="json"), "path": row.path}


def _render(rows: Iterable[PresetRow]) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        sentence = " ".join(row.about.sentence.split())
        table.add_row(*map(Text, (row.name, sentence, row.about.reference)))
    return table
