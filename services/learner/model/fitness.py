"""Whether a model computes what training takes for granted, tried on a toy tree.

Shapes: R rows of S columns, as in `prefix_rows.py`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from services.learner.model.prefix_rows import PrefixRows, PrefixTrie
from shared.errors import InvalidInput

LogprobsOf = Callable[[PrefixRows], Tensor]
"""[R, S], as `LanguageModel.statistics` has them."""

_MAX_TOKENS = 24
_ABSOLUTE, _RELATIVE = 1e-5, 2e-4
"""Two sound ways to compute a log-probability differ by rounding: less than this, and this share of their spread."""


@torch.no_grad()
def find_sharing_fault(logprobs_of: LogprobsOf, vocab_size: int, context_length: int) -> str:
    """Why sequences cannot share the columns of a common prefix; empty if they can.

    Compares sequences that share prefixes, and rows padded to one length, with each sequence by itself. InvalidInput
    where the model cannot compute a sequence, or where its log-probabilities depend on the others in the batch.
    """
    sequences = _toy_sequences(vocab_size, min(_MAX_TOKENS, context_length))
    try:
        alone = [logprobs for one in sequences for logprobs in _answers(logprobs_of, [[one]])]
        in_batch = _answers(logprobs_of, [[one] for one in sequences])
    except Exception as error:  # of whatever kind: the architecture is not ours
        raise InvalidInput(f"a forward pass fails: {_describe(error)}") from error
    if not all(bool(torch.isfinite(logprobs).all()) for logprobs in alone):
        raise InvalidInput("its log-probabilities are not finite")
    if error_in_batch := _excess(alone, in_batch):
        raise InvalidInput(
            f"the log-probabilities of a sequence change by up to {error_in_batch:.2g} with what else is in its batch"
        )
    try:
        error_shared = _excess(alone, _answers(logprobs_of, [sequences]))
    except Exception as error:  # noqa: BLE001 - likewise
        return f"a pass over a shared prefix fails: {_describe(error)}"
    return f"log-probabilities over a shared prefix are off by up to {error_shared:.2g}" if error_shared else ""


@torch.no_grad()
def agree(one: LogprobsOf, other: LogprobsOf, vocab_size: int, context_length: int, *, is_shared: bool = False) -> bool:
    """Whether `one` computes what `other` does, of sequences by themselves or over shared prefixes; not where it
    fails."""
    sequences = _toy_sequences(vocab_size, min(_MAX_TOKENS, context_length))
    rows = [sequences] if is_shared else [[sequence] for sequence in sequences]
    try:
        return not _excess(_answers(other, rows), _answers(one, rows))
    except Exception:  # noqa: BLE001 - likewise
        return False


def _toy_sequences(vocab_size: int, length: int) -> list[list[int]]:
    """Four sequences that fork after a third and after two thirds, of different lengths."""
    third = max(1, length // 3)

    def tokens(start: int, count: int) -> list[int]:
        return [(start + 5 * nth) % vocab_size for nth in range(count)]

    prompt, first = tokens(2, third), tokens(vocab_size // 2, third)
    rest = max(1, length - 2 * third)
    return [
        [*prompt, *first, *tokens(3, rest)],
        [*prompt, *first, *tokens(4, max(1, rest - 1))],
        [*prompt, *tokens(vocab_size // 2 + 1, third)],
        [*prompt, *tokens(vocab_size // 2 + 2, max(1, third - 1))],
    ]


def _answers(logprobs_of: LogprobsOf, rows: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """Of every sequence, in rows that each share what is equal, the log-probabilities of all tokens but the first."""
    packed = [PrefixTrie.of(row) for row in rows]
    logprobs_RS = logprobs_of(PrefixRows.collate([trie for trie, _ in packed]))
    return [logprobs_RS[row, columns[1:]] for row, (_, columns_of) in enumerate(packed) for columns in columns_of]


def _excess(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference, 0 where rounding explains it."""
    every, difference = torch.cat(list(expected)), torch.cat(list(found)) - torch.cat(list(expected))
    tolerance = _ABSOLUTE + _RELATIVE * float((every - every.mean()).abs().max())
    error = float(difference.abs().max())
    return 0.0 if error <= tolerance else error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
