"""What some answers of the untrained model say about a run: the base rate, and why answers are not judged right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from services.launcher.display.finding import Section
from services.launcher.settings.plan import RunPlan
from shared.protocol.tree import ScoredTree
from shared.tree.accuracy import standard_error
from shared.tree.draw import Draw, Finish, is_full_reward
from shared.tree.samplers import IndependentSampler

_RARE, _SURE = 0.02, 0.98
_MANY_CUT, _MANY_SILENT, _MANY_WHOLE = 0.2, 0.2, 0.5
_EXCERPTS, _EXCERPT = 3, 160
_KINDS = ("math", "choice", "exact")
"""Whose final answers may be looked for in several places."""


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One answer, and its text without stop tokens."""

    kind: str
    text: str
    draw: Draw

    @property
    def is_cut(self) -> bool:
        return self.draw.finish in (Finish.LENGTH, Finish.LENGTH_JUDGED)

    @property
    def is_right(self) -> bool:
        return self.draw.reward is not None and is_full_reward(self.draw.reward)

    @property
    def states_nothing(self) -> bool:
        """Whether it ended, and no final answer was found in it."""
        return self.draw.final_answer == "" and not self.is_cut


@dataclass(frozen=True, slots=True)
class WayFound:
    """Of a place where final answers are looked for: in how many answers one is, and how many are right by it."""

    way: str
    num_found: int
    num_right: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The answers to some problems, each problem's together."""

    groups: tuple[tuple[SampledAnswer, ...], ...]
    seconds: float

    @property
    def answers(self) -> list[SampledAnswer]:
        return [answer for group in self.groups for answer in group]

    @property
    def tokens_per_answer(self) -> float:
        return fmean(len(answer.draw.token_ids) for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        return sum(len(answer.draw.token_ids) for answer in self.answers) / max(self.seconds, 1e-9)


def examine_answers(section: Section, sample: Sample, ways: Sequence[WayFound], plan: RunPlan) -> None:
    """The base rate and its causes."""
    answers = sample.answers
    _examine_rewards(section, sample, ways, plan)
    _examine_cut(section, answers, plan.learner.growth.max_tokens)
    _examine_silent(section, answers, ways)
    _examine_steps(section, answers, is_branching=not isinstance(plan.learner.growth.sampler, IndependentSampler))


def _examine_rewards(section: Section, sample: Sample, ways: Sequence[WayFound], plan: RunPlan) -> None:
    rewards = _rewards(sample.answers)
    if not rewards:
        section.failed(
            "base rate", "no answer was judged", "is kind right for these problems? `ibtpo verify` judges one"
        )
        return
    rate, mixed = fmean(rewards), _num_mixed(sample)
    error = standard_error([fmean(one) for one in map(_rewards, sample.groups) if one])
    said = f"{rate:.3f} ± {error:.3f}, the mean reward of {len(rewards)} answers to {len(sample.groups)} problems"
    if not any(rewards):
        section.failed(
            "base rate",
            f"0: none of {len(rewards)} answers is right, so nothing will be learned: no answer is better than another",
            _remedy_of_none(sample, ways),
        )
    elif rate < _RARE:
        section.warning(
            "base rate", f"{said}: few trees will have a right answer", "easier problems, or more draws a tree"
        )
    elif rate > _SURE:
        section.warning("base rate", f"{said}: there is nothing left to learn", "harder problems")
    else:
        section.ok("base rate", said)
    words = f"{mixed} of {len(sample.groups)} problems have right and wrong answers among {len(sample.groups[0])}"
    if mixed:
        section.ok("signal", f"{words}; a tree has {plan.learner.growth.sampler.num_draws}, and so more often")
    elif any(rewards):
        section.warning("signal", words, "trees whose rewards are all equal teach nothing: other problems, more draws")


def _remedy_of_none(sample: Sample, ways: Sequence[WayFound]) -> str:
    best = _best(ways)
    if best is not None:
        where = _setting(sample.answers, best)
        return f"{best.num_right} of them are right where the final answer is looked for elsewhere: {where}"
    if 2 * sum(answer.is_cut for answer in sample.answers) > len(sample.answers):
        return "most are cut: a larger growth.max_tokens, or a shorter answer asked for"
    return "easier problems, a worked example in the prompt, or a better model; `ibtpo verify` judges an answer by hand"


def _best(ways: Sequence[WayFound]) -> WayFound | None:
    """Where most right answers are found; None where none is."""
    best = max(ways, key=lambda way: (way.num_right, -way.num_found), default=None)
    return best if best is not None and best.num_right else None


def _setting(answers: Sequence[SampledAnswer], way: WayFound) -> str:
    """The setting that looks there; what it risks stands on the verifier's page."""
    kinds = dict.fromkeys(answer.kind for answer in answers if answer.kind in _KINDS)
    named = " ".join(f"{kind}.extraction={way.way}" for kind in kinds)
    return f"{named} (docs/verifier.md says what that risks)"


def _rewards(group: Sequence[SampledAnswer]) -> list[float]:
    return [answer.draw.reward for answer in group if answer.draw.reward is not None]


def _num_mixed(sample: Sample) -> int:
    return sum(len(set(_rewards(group))) > 1 for group in sample.groups)


def _examine_cut(section: Section, answers: Sequence[SampledAnswer], max_tokens: int) -> None:
    lengths = sorted(len(answer.draw.token_ids) for answer in answers)
    num_cut = sum(answer.is_cut for answer in answers)
    said = (
        f"{fmean(lengths):.0f} tokens on average, 95% up to {lengths[round(0.95 * (len(lengths) - 1))]}; "
        f"{num_cut} of {len(answers)} cut at {max_tokens}"
    )
    if num_cut > _MANY_CUT * len(answers):
        section.warning(
            "length", said, "a larger growth.max_tokens, or a shorter answer asked for; cut answers get reward 0"
        )
    else:
        section.ok("length", said)


def _examine_silent(section: Section, answers: Sequence[SampledAnswer], ways: Sequence[WayFound]) -> None:
    silent = [answer for answer in answers if answer.states_nothing]
    said = f"{len(silent)} of {len(answers)} answers end without a final answer that is found"
    if len(silent) <= _MANY_SILENT * len(answers):
        section.ok("final answers", said)
    else:
        best, asked = _best(ways), "ask in the prompt for the place where it is looked for, such as \\boxed{}"
        section.warning("final answers", said, f"{_setting(answers, best)}, or {asked}" if best else asked)
        for answer in silent[:_EXCERPTS]:
            section.ok("… one ends", repr(answer.text[-_EXCERPT:]))
    if silent and ways:
        found = ", ".join(f"{way.way} {way.num_found}, {way.num_right} right" for way in ways if way.num_found)
        section.ok("by extraction", f"answers in which each finds something: {found or 'none'}")


def _examine_steps(section: Section, answers: Sequence[SampledAnswer], *, is_branching: bool) -> None:
    steps = [len(answer.draw.step_ends) for answer in answers]
    whole = sum(count == 1 for count in steps)
    tokens = fmean(len(answer.draw.token_ids) for answer in answers) / fmean(steps)
    said = f"{fmean(steps):.1f} an answer, of {tokens:.0f} tokens; {whole} of {len(steps)} answers have one only"
    if is_branching and whole > _MANY_WHOLE * len(steps):
        section.warning(
            "steps",
            f"{said}: trees cannot branch within those",
            "ask for steps that blank lines part, or show an example with them; else sampler=independent does as well",
        )
    else:
        section.ok("steps", said)


def examine_speed(section: Section, sample: Sample, plan: RunPlan) -> None:
    """How long the generation of a step, and of the run, will take at the rate of the sample."""
    learner, rate = plan.learner, sample.tokens_per_second
    step = learner.batch_size * learner.growth.sampler.num_draws * sample.tokens_per_answer
    replicas = f"{plan.launcher.replicas} replica{'s' * (plan.launcher.replicas != 1)}"
    said = (
        f"{rate:,.0f} tokens/s from {replicas}; a step of {learner.batch_size} trees at most {_duration(step / rate)}"
    )
    ends = []
    if learner.total_steps is not None:
        ends.append(learner.total_steps * step)
    if learner.max_generated_tokens is not None:
        ends.append(learner.max_generated_tokens)
    section.ok("generation", f"{said}, the run {_duration(min(ends) / rate)}; updates and evaluations come on top")


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


def answers_of(
    trees: Sequence[ScoredTree], texts: Mapping[int, Sequence[str]]
) -> tuple[tuple[SampledAnswer, ...], ...]:
    """Each tree's answers, with their texts."""
    return tuple(
        tuple(SampledAnswer(tree.task.kind, text, draw) for draw, text in zip(tree.draws, texts[number], strict=True))
        for number, tree in enumerate(trees)
    )
