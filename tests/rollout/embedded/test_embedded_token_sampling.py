"""Which tokens are sampled, how often, and with which log-probabilities."""

import math
import random

import pytest
import torch

from services.rollout.engines.embedded.token_sampling import sample_tokens
from services.rollout.engines.engine import Sampling

VOCAB_SIZE = 7
DRAWS = 20_000
CHI_SQUARE_999 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 1.5


def support(row: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    """The definition, written out: the probabilities that remain, by token."""
    probs = (row.double() / sampling.temperature).softmax(-1).tolist()
    order = sorted(range(VOCAB_SIZE), key=lambda token: -probs[token])[: sampling.top_k or VOCAB_SIZE]
    mass = sum(probs[token] for token in order)
    kept, cumulative = [], 0.0
    for token in order:
        if cumulative >= sampling.top_p * mass:
            break
        kept.append(token)
        cumulative += probs[token]
    return {token: probs[token] / cumulative for token in kept}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6),
        Sampling(top_k=3),
        Sampling(top_p=0.8),
        Sampling(temperature=1.7, top_p=0.7, top_k=4),
        Sampling(top_k=1),
        Sampling(top_p=1e-9),
        Sampling(top_k=100),
    ],
)
def test_tokens_are_drawn_with_the_probabilities_of_the_definition(sampling: Sampling) -> None:
    row, rng = logits(), random.Random(1)
    expected = support(row, sampling)
    drawn = sample_tokens(row.repeat(DRAWS, 1), [sampling] * DRAWS, [rng.random() for _ in range(DRAWS)])
    counts = {token: drawn.token_ids.count(token) for token in set(drawn.token_ids)}
    assert set(counts) <= set(expected)
    statistic = sum((counts.get(t, 0) - DRAWS * p) ** 2 / (DRAWS * p) for t, p in expected.items())
    assert len(expected) == 1 or statistic < CHI_SQUARE_999[len(expected) - 1]


@pytest.mark.parametrize("seed", range(30))
def test_supports_are_exact(seed: int) -> None:
    """A uniform that walks through [0, 1) meets every token that remains, and no other."""
    rng = random.Random(seed)
    sampling = Sampling(rng.choice([0.5, 1.0, 2.0]), rng.choice([1.0, 0.9, 0.5, 0.2]), rng.choice([0, 1, 2, 5]))
    row, steps = logits(seed), 4000
    drawn = sample_tokens(row.repeat(steps, 1), [sampling] * steps, [i / steps for i in range(steps)])
    likely = {token for token, prob in support(row, sampling).items() if prob > 2 / steps}
    assert likely <= set(drawn.token_ids) <= set(support(row, sampling))


def test_entropies_are_of_the_full_softmax_of_the_rows_that_are_asked() -> None:
    samplings = [Sampling(), Sampling(0.5), Sampling(0.7, top_p=0.1), Sampling(top_k=1), Sampling(0.0)]
    rows = torch.stack([logits(seed) for seed in range(5)])
    rows[1, 2] = -torch.inf
    drawn = sample_tokens(rows, samplings, [0.5] * 5, [1, 2, 4])
    for row in (1, 2, 4):
        probs = (rows[row].double() / (samplings[row].temperature or 1.0)).softmax(-1).tolist()
        assert drawn.entropies[row] == pytest.approx(-sum(p * math.log(p) for p in probs if p), abs=1e-5)
    assert drawn.entropies[0] == drawn.entropies[3] == 0.0


def test_logprobs_are_of_the_full_softmax_and_sampling_logprobs_of_what_remained() -> None:
    samplings = [Sampling(), Sampling(0.5), Sampling(0.7, top_p=0.8), Sampling(top_k=2), Sampling(0.0)]
    rows = torch.stack([logits(seed) for seed in range(5)])
    drawn = sample_tokens(rows, samplings, [0.3, 0.6, 0.2, 0.9, 0.5])
    for row, sampling, token, logprob, sampling_logprob in zip(
        rows, samplings, drawn.token_ids, drawn.logprobs, drawn.sampling_logprobs, strict=True
    ):
        scaled = (row / (sampling.temperature or 1.0)).log_softmax(-1)
        assert logprob == pytest.approx(float(scaled[token]), abs=1e-6)
        if sampling.temperature == 0:
            assert token == int(row.argmax())
            assert sampling_logprob == logprob
        else:
            assert sampling_logprob == pytest.approx(math.log(support(row, sampling)[token]), abs=1e-6)


def test_a_row_is_drawn_the_same_whatever_stands_beside_it() -> None:
    rng = random.Random(3)
    kinds = [Sampling(), Sampling(0.0), Sampling(0.8, top_p=0.9), Sampling(top_k=3)]
    samplings = [rng.choice(kinds) for _ in range(40)]
    rows, uniforms = torch.stack([logits(i) for i in range(40)]), [rng.random() for _ in range(40)]
    together = sample_tokens(rows, samplings, uniforms)
    alone = [sample_tokens(rows[i : i + 1], [samplings[i]], [uniforms[i]]).token_ids[0] for i in range(40)]
    assert together.token_ids == alone


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    row = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    uniforms = [0.0, 0.25, 0.5, 1 - 2**-53]
    drawn = sample_tokens(row.repeat(4, 1), [Sampling()] * 4, uniforms)
    assert drawn.token_ids == [1, 1, 3, 3]
