"""Maps of one's own: which column holds what, by dotted paths."""

from typing import Any

from services.learner.data.formats.base import ConvertedRow, Format, Unusable, gold_of, json_of, messages_of
from services.learner.data.formats.choice import make_choice, options_of, right_option
from services.learner.data.formats.code import read_tests
from services.learner.data.reading.rows import Row
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

PARTS = ("prompt", "gold", "tests", "options", "system", "kind", "id")
"""What a map may name."""


def own_format(source: DataSource) -> Format:
    """The format of a source's `fields`. InvalidInput for a map that names no prompt, or parts that there are not."""
    unknown = sorted(source.fields.keys() - set(PARTS))
    if unknown:
        raise InvalidInput(f"{source}: fields has no {unknown[0]!r}; it maps {', '.join(PARTS)}")
    if "prompt" not in source.fields or not source.fields.keys() & {"gold", "tests"}:
        raise InvalidInput(f"{source}: fields must say where the prompt is, and the gold or the tests")

    def fits(row: Row) -> bool:
        return all(_look_up(row, source.fields[part]) is not None for part in _needed(source))

    def convert(row: Row) -> ConvertedRow:
        return _convert(row, source)

    columns = ", ".join(f"{part}: {path}" for part, path in source.fields.items())
    return Format("fields", "your own", columns, fits, convert)


def _needed(source: DataSource) -> list[str]:
    return [part for part in ("prompt", "gold", "tests") if part in source.fields]


def _look_up(row: Any, path: str) -> Any:
    """What is at `a.b.0` in a row; a column whose own name has dots counts first. JSON text is looked into."""
    if isinstance(row, dict) and path in row:
        return row[path]
    head, _, rest = path.partition(".")
    if not rest:
        if isinstance(row, list) and head.lstrip("-").isdecimal() and -len(row) <= int(head) < len(row):
            return row[int(head)]
        return None
    inner = row.get(head) if isinstance(row, dict) else _look_up(row, head)
    if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
        inner = json_of(inner, head)
    return _look_up(inner, rest)


def _convert(row: Row, source: DataSource) -> ConvertedRow:
    found = {part: _look_up(row, path) for part, path in source.fields.items()}
    for part in _needed(source):
        if found[part] in (None, ""):
            raise Unusable(f"nothing in {source.fields[part]} ({part})")
    prompt = _prompt(found)
    row_id = str(found.get("id") or "")
    kind = source.kind or str(found.get("kind") or "") or ("code" if "tests" in found else "math")
    if "tests" in found:
        tests = found["tests"]
        return ConvertedRow(prompt, kind, {"tests": tests if _is_ours(tests) else read_tests(tests)}, {}, row_id)
    if found.get("options") is not None:
        return _choice(prompt, found["options"], found["gold"], row, row_id)
    if source.kind and source.kind not in ("math", "choice", "exact"):  # a kind of one's own reads what it gets
        return ConvertedRow(prompt, kind, {"gold": found["gold"]}, {}, row_id)
    return ConvertedRow(prompt, kind, {"gold": gold_of(found["gold"])}, {}, row_id)


def _prompt(found: dict[str, Any]) -> Any:
    prompt, system = found["prompt"], found.get("system")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise Unusable("the prompt is empty")
        if not isinstance(system, str) or not system.strip():
            return prompt.strip()
        return ({"role": "system", "content": system}, {"role": "user", "content": prompt.strip()})
    return messages_of(prompt)


def _is_ours(tests: Any) -> bool:
    return isinstance(tests, dict) and "type" in tests


def _choice(prompt: Any, options: Any, gold: Any, row: Row, row_id: str) -> ConvertedRow:
    if not isinstance(prompt, str):
        raise Unusable("options stand behind a text, not behind messages")
    texts, labels = options_of(options)
    made = make_choice(prompt, texts, right_option(gold, texts, labels), row)
    return ConvertedRow(made.prompt, made.kind, made.answer_key, {}, row_id)
