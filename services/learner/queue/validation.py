"""Checks the content of a tree before anything is computed from it."""

from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, Finish

# e^-700 is about the smallest double; engines round a little above 0
_MIN_LOGPROB, _MAX_LOGPROB = -700.0, 0.1


def reject_reason(tree: ScoredTree, vocab_size: int) -> str | None:
    """Why the tree cannot be used: a defective engine or another program sent it. None if it can."""
    max_draws = tree.task.growth.sampler.num_draws
    if len(tree.draws) > max_draws:
        return f"{len(tree.draws)} draws, over the {max_draws} of the sampler"
    if not tree.task.growth.judge_truncated and any(draw.finish is Finish.LENGTH_JUDGED for draw in tree.draws):
        return "an answer that the limit cut was judged, which the task does not ask for"
    reasons = (_reject_draw(draw, tree.task.growth.max_tokens, vocab_size) for draw in tree.draws)
    return next((f"draw {number}: {reason}" for number, reason in enumerate(reasons) if reason), None)


def _reject_draw(draw: Draw, max_tokens: int, vocab_size: int) -> str | None:
    if draw.end > max_tokens:
        return f"{draw.end} tokens, over the {max_tokens} of the task"
    if max(draw.token_ids) >= vocab_size:
        return f"token {max(draw.token_ids)} is outside the vocabulary of {vocab_size}"
    known = (*draw.of_sampled(draw.logprobs), *draw.of_sampled(draw.sampling_logprobs or draw.logprobs))
    for logprob in (min(known), max(known)):
        if not _MIN_LOGPROB <= logprob <= _MAX_LOGPROB:
            return f"{logprob:g} is no log-probability of a sampled token"
    return None
