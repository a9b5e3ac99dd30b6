"""Messages at random, for the tests of the protocol."""

import struct
from itertools import pairwise

from hypothesis import strategies as st

from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.likelihood import LikelihoodForm, LikelihoodSettings
from shared.tree.samplers import IBSampler, IndependentSampler, RandomSampler

counts = st.integers(0, 2**31 - 1)
texts = st.text(max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)
samplers = st.sampled_from([IBSampler(), IndependentSampler(initial_draws=3), RandomSampler()])
origins = st.just("") | st.text("0123456789abcdef", min_size=1, max_size=16)
versions = st.builds(WeightVersion, counts, counts, origins)
float32s = st.floats(-1000, 0, width=32).map(lambda value: struct.unpack("f", struct.pack("f", value))[0])

tasks = st.builds(
    Task,
    run=texts,
    id=texts,
    attempt=counts,
    problem_id=texts,
    prompt_ids=st.lists(counts, min_size=1, max_size=8).map(tuple),
    kind=texts,
    answer_key=json_objects,
    growth=st.builds(
        Growth,
        sampler=samplers,
        merge_equal_draws=st.booleans(),
        likelihood=st.none() | st.builds(LikelihoodSettings, opener=texts, form=st.sampled_from(LikelihoodForm)),
    ),
    seed=counts,
)


@st.composite
def draws(draw: st.DrawFn, parents: tuple[Draw, ...] = ()) -> Draw:
    """A draw from the prompt, or one that continues one of `parents`."""
    long_enough = [-1, *(index for index, parent in enumerate(parents) if len(parent.token_ids) > 1)]
    index = draw(st.sampled_from(long_enough))
    parent = None if index < 0 else parents[index]
    cut = 0 if parent is None else draw(st.integers(parent.cut + 1, parent.end - 1))
    num_tokens = draw(st.integers(1, 6))
    ends = draw(st.sets(st.integers(cut + 1, cut + num_tokens)))
    edges = sorted({0, num_tokens, *draw(st.sets(st.integers(0, num_tokens), max_size=2))})
    step_ends = tuple(sorted({*ends, cut + num_tokens}))
    some = st.lists(float32s, min_size=num_tokens, max_size=num_tokens).map(tuple)
    return Draw(
        parent=None if parent is None else index,
        cut=cut,
        token_ids=tuple(draw(st.lists(counts, min_size=num_tokens, max_size=num_tokens))),
        logprobs=draw(some),
        sampling_logprobs=draw(st.none() | some),
        step_ends=step_ends,
        spans=tuple(VersionSpan(draw(versions), a, b) for a, b in pairwise(edges)),
        finish=draw(st.sampled_from(Finish)),
        reward=draw(st.none() | st.floats(0, 1)),
        entropies=draw(st.none() | some),
        given=draw(st.sampled_from([(), ((0, num_tokens),), ((0, 1),)])),
        step_likelihoods=draw(st.none() | st.tuples(*[st.floats(0, 1, width=32) for _ in step_ends])),
    )


@st.composite
def records(draw: st.DrawFn) -> tuple[Draw, ...]:
    """The record of a growth: each draw from the prompt or from an earlier draw."""
    record: tuple[Draw, ...] = ()
    for _ in range(draw(st.integers(1, 5))):
        record = (*record, draw(draws(record)))
    return record


scored_trees = st.builds(
    ScoredTree,
    task=tasks,
    replica=texts,
    draws=records(),
    usage=st.builds(TreeUsage, generated_tokens=counts, seconds=st.floats(0, 1e6)),
)
