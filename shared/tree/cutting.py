"""Where draws are cut into nodes: at step ends, and where another draw forks."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from shared.tree.draw import Draw, trajectory


def node_ends(draws: Sequence[Draw], merge: bool) -> list[list[int]]:
    """For every draw, the ascending positions at which its nodes end, as far as draws that count run through it.

    Of a draw without a verdict only the part before a draw with one is kept, and it cuts nothing: where one draw alone
    continues that part, the node goes on from the one draw into the other. With `merge`, a fork
    inside a step cuts every trajectory that begins with the same tokens, so that equal ones stay equal.
    """
    forks: list[set[int]] = [set() for _ in draws]
    reach = [draw.cut if draw.counted_reward is None else draw.end for draw in draws]
    for draw_id in range(len(draws) - 1, -1, -1):
        draw = draws[draw_id]
        if draw.parent is not None:
            check_fork(draws, draw_id, draw.parent)
            if reach[draw_id] > draw.cut:
                forks[draw.parent].add(draw.cut)
                reach[draw.parent] = max(reach[draw.parent], draw.cut)
    _join_only_continuations(draws, forks, reach)
    if merge:
        _share_forks(draws, forks)
    return [
        _up_to(sorted(cuts.union(draw.step_ends)), end) for draw, cuts, end in zip(draws, forks, reach, strict=True)
    ]


def _up_to(positions: list[int], end: int) -> list[int]:
    return positions[: bisect_right(positions, end)]


def check_fork(draws: Sequence[Draw], draw_id: int, parent_id: int) -> None:
    """ValueError unless a draw continues an earlier one, from inside the tokens that this one sampled itself."""
    if not 0 <= parent_id < draw_id:
        raise ValueError(
            f"draw {draw_id} comes before the draw that it continues, {parent_id}: keep the order of growth"
        )
    cut, parent = draws[draw_id].cut, draws[parent_id]
    if not parent.cut < cut < parent.end:
        raise ValueError(
            f"draw {draw_id} forks at {cut}, but draw {parent_id} itself sampled ({parent.cut}, {parent.end}): "
            "name the draw that sampled the last token before the fork, and fork before its end"
        )


def _join_only_continuations(draws: Sequence[Draw], forks: list[set[int]], reach: Sequence[int]) -> None:
    """Removes the cut at the end of what is kept of an unjudged draw, where a single draw continues it there."""
    continuations = Counter((draw.parent, draw.cut) for draw, end in zip(draws, reach, strict=True) if end > draw.cut)
    for draw_id, draw in enumerate(draws):
        if draw.counted_reward is None and continuations[draw_id, reach[draw_id]] == 1:
            forks[draw_id].discard(reach[draw_id])


def _share_forks(draws: Sequence[Draw], forks: list[set[int]]) -> None:
    inside_steps = [
        (draw_id, cut) for draw_id, cuts in enumerate(forks) for cut in cuts - set(draws[draw_id].step_ends)
    ]
    for forked_id, cut in inside_steps:
        prefix = trajectory(draws, forked_id)[:cut]
        for draw_id, draw in enumerate(draws):
            if draw.cut < cut < draw.end and trajectory(draws, draw_id)[:cut] == prefix:
                forks[draw_id].add(cut)
