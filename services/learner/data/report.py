"""What an import took and dropped, and why: for the terminal, report.json and Markdown."""

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

MAX_EXAMPLES = 3
MAX_REASONS = 50
_SHOWN = 160


class Dropped(BaseModel):
    """The rows that were dropped for one reason."""

    reason: str
    count: int = 0
    examples: list[str] = []
    """Where the first of them are."""


class SourceReport(BaseModel):
    """What became of the rows of one source."""

    source: str
    format: str = ""
    rows: int = 0
    taken: int = 0
    kinds: dict[str, int] = {}
    dropped: list[Dropped] = []
    notes: list[str] = []

    def drop(self, reason: str, where: str) -> None:
        known = next((one for one in self.dropped if one.reason == reason), None)
        if known is None:
            if len(self.dropped) >= MAX_REASONS:
                reason = "other reasons"
                known = next((one for one in self.dropped if one.reason == reason), None)
            if known is None:
                known = Dropped(reason=reason)
                self.dropped.append(known)
        known.count += 1
        if len(known.examples) < MAX_EXAMPLES:
            known.examples.append(where)

    @property
    def num_dropped(self) -> int:
        return sum(one.count for one in self.dropped)

    def explain_dropped(self) -> str:
        """The reasons with their counts, the commonest first, in one line."""
        common = sorted(self.dropped, key=lambda one: -one.count)
        said = [f"{one.count:,} × {one.reason} (first {one.examples[0]})" for one in common[:5]]
        return "; ".join(said) + (f"; and {len(common) - 5} more reasons" if len(common) > 5 else "")


class RenderedPrompt(BaseModel):
    """A prompt exactly as the model will read it."""

    id: str
    text: str
    tokens: int | None = None
    first_tokens: list[tuple[int, str]] = []
    last_tokens: list[tuple[int, str]] = []
    answer: str = ""

    def describe_ends(self) -> str:
        """Its length, and the tokens that it begins and ends with."""
        if self.tokens is None:
            return "no model is given: chat messages or text, before any template"
        ends = (self.first_tokens, self.last_tokens)
        first, last = (" ".join(f"{text!r} ({token})" for token, text in tokens) for tokens in ends)
        return f"{self.tokens} tokens: {first} … {last}"


class LengthHistogram(BaseModel):
    """Lengths of prompts, of a sample of those taken."""

    unit: str
    measured: int
    median: int
    p95: int
    longest: int
    edges: list[int]
    counts: list[int]

    @classmethod
    def of(cls, lengths: Sequence[int], unit: str) -> "LengthHistogram":
        """Of at least one length; the bins double."""
        ordered = sorted(lengths)
        edges = [16]
        while edges[-1] < ordered[-1]:
            edges.append(edges[-1] * 2)
        bins = Counter(next(edge for edge in edges if length <= edge) for length in ordered)
        while len(edges) > 1 and not bins[edges[0]]:
            edges.pop(0)
        return cls(
            unit=unit,
            measured=len(ordered),
            median=ordered[len(ordered) // 2],
            p95=ordered[int(0.95 * (len(ordered) - 1))],
            longest=ordered[-1],
            edges=edges,
            counts=[bins[edge] for edge in edges],
        )

    def line(self) -> str:
        bars = " ▁▂▃▄▅▆▇█"
        most = max(self.counts)
        drawn = "".join(bars[-(-8 * count // most)] for count in self.counts)
        return (
            f"{self.unit} per prompt: median {self.median}, p95 {self.p95}, longest {self.longest}   "
            f"≤{self.edges[0]} {drawn} ≤{self.edges[-1]}"
        )


class ImportReport(BaseModel):
    """Of one import."""

    model_config = ConfigDict(extra="ignore")

    sources: list[SourceReport] = []
    held_out: dict[str, int] = Field({}, description="Problems of each held-out set that sources were checked against")
    prompts: list[RenderedPrompt] = []
    lengths: LengthHistogram | None = None
    vetting: str = ""

    @property
    def taken(self) -> int:
        return sum(one.taken for one in self.sources)

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.sources)

    def describe_formats(self) -> str:
        return ", ".join(f"{one.source} ({one.format})" for one in self.sources)

    def as_line(self) -> str:
        """For a log."""
        said = [f"{one.taken:,} of {one.rows:,} rows of {one.source} ({one.format})" for one in self.sources]
        return "; ".join(said)

    def as_markdown(self) -> str:
        lines = ["# Import of problems", "", f"{self.taken:,} problems of {self.rows:,} rows.", ""]
        lines += ["| source | format | rows | taken | dropped |", "|---|---|---|---|---|"]
        for one in self.sources:
            lines.append(f"| `{one.source}` | {one.format} | {one.rows:,} | {one.taken:,} | {one.num_dropped:,} |")
        for one in self.sources:
            lines += ["", f"## {one.source}", "", *(f"- {note}" for note in one.notes)]
            lines += [
                f"- dropped {reason.count:,}: {reason.reason} ({', '.join(reason.examples)}"
                f"{', …' if reason.count > len(reason.examples) else ''})"
                for reason in one.dropped
            ]
        for name, count in self.held_out.items():
            lines += ["", f"Checked against {count:,} held-out problems of `{name}`."]
        if self.lengths:
            lines += ["", self.lengths.line()]
        if self.vetting:
            lines += ["", self.vetting]
        for prompt in self.prompts:
            lines += [
                "",
                f"## Prompt {prompt.id}",
                "",
                prompt.describe_ends(),
                "",
                "````",
                prompt.text,
                "````",
                "",
                prompt.answer,
            ]
        return "\n".join(lines) + "\n"
