"""Which special tokens a text becomes a prompt with: one rule, whatever tokenizes it."""

from collections.abc import Sequence


def prompt_ids(plain: Sequence[int], with_specials: Sequence[int]) -> tuple[int, ...]:
    """The ids of a prompt, from those of its text without and with the tokenizer's special tokens.

    What the tokenizer puts before a text belongs to the prompt, once: a text that a template has rendered may begin
    with it. What it puts behind a text, such as an end token, does not: the answer goes on there.
    """
    plain, with_specials = tuple(plain), tuple(with_specials)
    added = len(with_specials) - len(plain)
    starts = (start for start in range(added + 1) if with_specials[start : start + len(plain)] == plain)
    lead = with_specials[: next(starts, 0)]
    return plain if plain[: len(lead)] == lead else lead + plain
