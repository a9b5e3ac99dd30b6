"""Which answers are the same: as the verifier says."""

from collections.abc import Sequence

from services.learner.held_out.voting import count_votes
from services.learner.queue.problems import EncodedProblem
from shared.clients import VerifierClient
from shared.errors import Unreachable
from shared.tree.draw import Draw, Finish, VersionSpan
from tests.learner.synthetic import V0
from tests.verifier.serving import open_verifier


def draw(reward: float | None, answer: str | None, finish: Finish = Finish.STOP) -> Draw:
    return Draw(None, 0, (1,), (-1.0,), (1,), (VersionSpan(V0, 0, 1),), finish, reward, final_answer=answer)


def problem(kind: str = "math") -> EncodedProblem:
    return EncodedProblem("p", (1,), kind, {"gold": "4"})


ANSWERS = [(1.0, "4"), (1.0, "8/2"), (0.0, "0.5"), (0.0, r"\frac{1}{2}"), (0.0, "5"), (0.0, "6"), (0.0, "50\\%")]


async def test_the_verifier_says_which_wrong_answers_are_the_same() -> None:
    async with open_verifier() as http:
        votes = await count_votes(problem(), [draw(*one) for one in ANSWERS], VerifierClient(http, ""))
    assert votes == (0, 0, 1, 1, 2, 3, votes[6])
    assert len({votes[4], votes[5], votes[6]}) == 3


async def test_without_a_verifier_equal_texts_are_the_same() -> None:
    draws = [draw(0.0, "0.5"), draw(0.0, "1/2"), draw(0.0, "0.5"), draw(1.0, "x")]
    assert await count_votes(problem(), draws, None) == (1, 2, 1, 0)


async def test_a_verifier_that_is_away_costs_no_more_than_the_comparison() -> None:
    class Away(VerifierClient):
        def __init__(self) -> None: ...

        async def judge(self, items: Sequence[object], *seconds: float) -> None:  # type: ignore[override]
            raise Unreachable("it is away")

    assert await count_votes(problem(), [draw(0.0, "0.5"), draw(0.0, "1/2")], Away()) == (1, 2)


async def test_what_was_cut_or_not_judged_or_states_nothing_does_not_vote() -> None:
    draws = [draw(0.0, None, Finish.LENGTH), draw(None, None), draw(0.0, ""), draw(0.0, "5")]
    assert await count_votes(problem(), draws, None) == (None, None, None, 1)


async def test_an_answer_that_cannot_be_a_gold_is_like_no_other() -> None:
    async with open_verifier() as http:
        odd = [draw(0.0, " "), draw(0.0, r"\frac{"), draw(0.0, "0.5"), draw(0.0, "1/2")]
        assert await count_votes(problem(), odd, VerifierClient(http, "")) == (1, 2, 3, 3)
