"""What answers of the untrained model say about a run."""

from collections.abc import Sequence

import pytest

from services.launcher.check.answers import Sample, SampledAnswer, WayFound, examine_answers, examine_speed
from services.launcher.display.finding import Finding, Level, Section
from services.launcher.settings.plan import RunPlan, RunRequest, draft_plan
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from tests.launcher.test_plan import ROW


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> RunPlan:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mine.jsonl").write_text(ROW)
    return draft_plan(folder, RunRequest("mine", "demo", ()))


def answer(
    reward: float | None, *, tokens: int = 20, steps: int = 4, final: str = "1", cut: bool = False
) -> SampledAnswer:
    ends = tuple(tokens * (number + 1) // steps for number in range(steps))
    finish = Finish.LENGTH if cut else Finish.STOP
    spans = (VersionSpan(WeightVersion(0, 0), 0, tokens),)
    ids, logprobs = (5,) * tokens, (-1.0,) * tokens
    return SampledAnswer(
        "math", "so it is 12", Draw(None, 0, ids, logprobs, ends, spans, finish, reward, final_answer=final)
    )


def examine(plan: RunPlan, *groups: Sequence[SampledAnswer], ways: Sequence[WayFound] = ()) -> dict[str, Finding]:
    section = Section("answers")
    examine_answers(section, Sample(tuple(map(tuple, groups)), 10.0), ways, plan)
    return {finding.check: finding for finding in section.findings}


def test_a_base_rate_of_nothing_fails_and_says_that_nothing_will_be_learned(plan: RunPlan) -> None:
    found = examine(plan, [answer(0.0), answer(0.0)], [answer(0.0), answer(None)])["base rate"]
    assert (found.level, "none of 3 answers is right, so nothing will be learned" in found.found) == (
        Level.FAILED,
        True,
    )
    assert "easier problems" in found.remedy


def test_where_right_answers_are_found_elsewhere_the_setting_is_named(plan: RunPlan) -> None:
    silent = answer(0.0, final="")
    ways = (WayFound("box", 0, 0), WayFound("last_number", 4, 3), WayFound("response", 4, 1))
    found = examine(plan, [silent, silent], [silent, silent], ways=ways)
    assert "3 of them are right" in found["base rate"].remedy
    assert "math.extraction=last_number" in found["base rate"].remedy
    assert "4 of 4 answers end without a final answer" in found["final answers"].found
    assert "math.extraction=last_number (docs/verifier.md" in found["final answers"].remedy
    assert found["… one ends"].found == "'so it is 12'"
    assert found["by extraction"].found.endswith("last_number 4, 3 right, response 4, 1 right")


def test_answers_that_are_cut_are_the_cause_of_a_base_rate_of_nothing(plan: RunPlan) -> None:
    found = examine(plan, [answer(0.0, cut=True, final="")] * 4)
    assert found["base rate"].remedy.startswith("most are cut: a larger growth.max_tokens")
    assert (found["length"].level, "4 of 4 cut at 48" in found["length"].found) == (Level.WARNING, True)
    assert found["final answers"].level is Level.OK, "a cut answer could not state one"


@pytest.mark.parametrize(
    ("rewards", "level", "words"),
    [
        ([1.0, 1.0], Level.WARNING, "nothing left to learn"),
        ([0.0, 1.0], Level.OK, "0.500 ±"),
        ([None, None], Level.FAILED, "no answer was judged"),
    ],
)
def test_the_base_rate_is_judged(plan: RunPlan, rewards: list[float | None], level: Level, words: str) -> None:
    found = examine(plan, [answer(reward) for reward in rewards])["base rate"]
    assert (found.level, words in found.found) == (level, True)


def test_problems_with_right_and_wrong_answers_are_the_signal(plan: RunPlan) -> None:
    found = examine(plan, [answer(1.0), answer(0.0)], [answer(1.0), answer(1.0)])["signal"]
    assert found.found == "1 of 2 problems have right and wrong answers among 2; a tree has 12, and so more often"
    assert examine(plan, [answer(1.0)] * 2, [answer(0.0)] * 2)["signal"].level is Level.WARNING


def test_answers_of_one_step_leave_trees_no_place_to_branch(plan: RunPlan) -> None:
    found = examine(plan, [answer(1.0, steps=1), answer(0.0, steps=1)])["steps"]
    assert (found.level, "2 of 2 answers have one only: trees cannot branch" in found.found) == (Level.WARNING, True)
    assert "blank lines" in found.remedy
    found = examine(plan, [answer(1.0), answer(0.0)])["steps"]
    assert found.found == "4.0 an answer, of 5 tokens; 0 of 2 answers have one only"


def test_the_time_of_step_and_run_follows_from_the_rate(plan: RunPlan) -> None:
    section = Section("answers")
    examine_speed(section, Sample(((answer(1.0), answer(0.0)),), 0.4), plan)
    (found,) = section.findings
    # 24 trees of 12 answers of 20 tokens, and 600,000 tokens, at 100 tokens/s
    assert "100 tokens/s from 2 replicas; a step of 24 trees at most 58 s, the run 100.0 min" in found.found
