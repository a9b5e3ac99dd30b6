"""What a tree must keep to, beyond its form, before anything is computed from it."""

from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw

# e^-700 is about the least that a double holds; a little above 0 is an engine's rounding
_LEAST_LOGPROB, _MOST_LOGPROB = -700.0, 0.1


def unsoundness_of(tree: ScoredTree, vocab_size: int) -> str | None:
    """Why the learner cannot use the tree, which may come from a defective engine or a stranger; None when it can."""
    most = tree.task.growth.sampler.num_draws
    if len(tree.draws) > most:
        return f"{len(tree.draws)} draws, over the {most} of the sampler"
    faults = (_fault_of(draw, tree.task.growth.max_tokens, vocab_size) for draw in tree.draws)
    return next((f"draw {number}: {fault}" for number, fault in enumerate(faults) if fault), None)


def _fault_of(draw: Draw, max_tokens: int, vocab_size: int) -> str | None:
    if draw.end > max_tokens:
        return f"{draw.end} tokens, over the {max_tokens} of the task"
    if max(draw.token_ids) >= vocab_size:
        return f"token {max(draw.token_ids)} is outside the vocabulary of {vocab_size}"
    for logprob in (min(draw.logprobs), max(draw.logprobs)):
        if not _LEAST_LOGPROB <= logprob <= _MOST_LOGPROB:
            return f"{logprob:g} is no log-probability of a sampled token"
    return None
