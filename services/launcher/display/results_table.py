"""What a policy answered to each problem of a held-out set, and how often."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from services.learner.held_out.measure import average_reward
from services.learner.held_out.results import ProblemResult
from shared.tree.draw import Finish, is_full_reward

_MAX_ANSWERS = 6
_MAX_CHARACTERS = 24


def render_results(title: str, results: Sequence[ProblemResult], earlier: Mapping[str, float]) -> Table:
    """A row per problem: mean reward, in `earlier` that of an earlier evaluation by problem id, and the answers."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, header_style="dim")
    table.add_column("problem", no_wrap=True, overflow="ellipsis", max_width=_MAX_CHARACTERS)
    for column in ("right", *(("before",) if earlier else ()), "tokens", "cut"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("answers", overflow="fold")
    for one in results:
        mean = f"{average_reward(one):.2f}" if one.judged else "–"
        before = (f"{earlier[one.id]:.2f}" if one.id in earlier else "–",) if earlier else ()
        tokens = f"{sum(one.tokens) / len(one.tokens):,.0f}"
        cut = str(sum(end != Finish.STOP.value for end in one.finish) or "")
        table.add_row(Text(one.id), mean, *before, tokens, cut, _count_answers(one))
    return table


def _count_answers(result: ProblemResult) -> Text:
    """The final answers, the most frequent first; right ones are bold."""
    found: Counter[tuple[str, bool]] = Counter()
    for answer, reward, end in zip(result.answers, result.rewards, result.finish, strict=True):
        found[_describe(answer, reward, end), reward is not None and is_full_reward(reward)] += 1
    text = Text()
    for (answer, is_right), count in found.most_common(_MAX_ANSWERS):
        shown = f"{answer[:_MAX_CHARACTERS]}{'…' if len(answer) > _MAX_CHARACTERS else ''}"
        text.append(
            f"{'  ' if text else ''}{shown}{' ✔' if is_right else ''} ×{count}", "bold green" if is_right else ""
        )
    rest = sum(found.values()) - sum(count for _, count in found.most_common(_MAX_ANSWERS))
    return text.append(f"  and {rest} more", "dim") if rest else text


def _describe(answer: str | None, reward: float | None, end: str) -> str:
    if reward is None:
        return "(not judged)"
    if end == Finish.LENGTH.value:
        return "(cut)"
    if answer is None:
        return "(right)" if is_full_reward(reward) else f"(reward {reward:.2g})"
    return answer or "(none)"
