"""Has an engine score the act-probe: what its weights say of a fixed sequence of tokens."""

from services.rollout.engines.engine import Engine, NotFinite, ScoreRequest
from shared.protocol.act_probe import ActReading, probe_tokens
from shared.tree.draw import WeightVersion


async def read_act(engine: Engine, version: WeightVersion) -> ActReading | None:
    """Of the served weights, `version` as far as is known before; None where the context is too short for the probe.
    Errors are those of `Engine.score`."""
    limits = engine.limits
    token_ids = probe_tokens(limits.vocab_size, limits.context_length)
    if len(token_ids) < 2:
        return None
    is_float32 = engine.computes_in_float32
    # all but the first token are a continuation, which no engine takes from its cache: present weights compute them
    try:
        scores = await engine.score(ScoreRequest(token_ids[:1], token_ids[1:]))
    except NotFinite:
        return ActReading(version=version, vocab_size=limits.vocab_size, logprob=None, is_float32=is_float32)
    return ActReading.of(scores.version, limits.vocab_size, scores.logprobs, is_float32=is_float32)
