"""What a forward and backward pass takes on one CPU core, estimated: trajectories are computed in the cheapest way.

The constants are measured on a CPU; what counts is how they compare. An estimate is a pure function of model and rows,
so that it is the same wherever it is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from services.learner.model.attention.plan import COST, AttentionCost, Form, plan_blocks
from services.learner.model.prefix_rows import PrefixTrie

_SECONDS_PER_WEIGHT = 6e-11
"""Of a column: six operations at a hundred thousand million in a second."""
_SECONDS_PER_UNIT = 2e-7
"""Of a column, a layer and a hidden unit: norms, activations, rotations, and their gradients."""
_STACKED = 0.5
"""What a masked block costs in a batch of them, against one by itself."""
_PADDING = 0.08
"""Of small trees that are padded to the longest of a batch."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """Of a model: seconds of one column in all that is no attention, and the sizes of its attention."""

    per_column: float
    num_layers: int
    width: int
    """Heads times units of a head."""
    attends_to_trees: bool = True
    """Rather than to masks."""
    attention: AttentionCost = COST

    @classmethod
    def of(cls, module: PreTrainedModel, *, attends_to_trees: bool) -> "PassCost":
        config = module.config.get_text_config()
        num_heads = getattr(config, "num_attention_heads", None) or 1
        num_units = getattr(config, "head_dim", None) or config.hidden_size // num_heads
        embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
        num_weights = sum(one.numel() for one in module.base_model.parameters() if id(one) not in embeddings)
        return cls(
            _SECONDS_PER_WEIGHT * num_weights + _SECONDS_PER_UNIT * config.num_hidden_layers * config.hidden_size,
            config.num_hidden_layers,
            num_heads * num_units,
            attends_to_trees,
        )

    def of_tries(self, tries: Sequence[PrefixTrie]) -> float:
        """Seconds of a micro-batch with these rows."""
        if all(trie.is_chain for trie in tries):
            return self.of_sequences([len(trie) for trie in tries])
        if self.attends_to_trees and len(tries) == 1:
            return self._seconds(len(tries[0]), plan_blocks(tries[0].exits, self.width, self.attention).seconds)
        num_columns = max(map(len, tries))
        return self._seconds(len(tries) * num_columns, len(tries) * self._of_stacked_row(num_columns))

    def prefers_mask(self, trie: PrefixTrie) -> bool:
        """Whether a tree is better padded and masked in a batch of such trees than joined to others in one row."""
        plan = plan_blocks(trie.exits, self.width, self.attention)
        if any(block.form is not Form.MASKED for block in plan.blocks):
            return False
        saved = self.num_layers * (plan.seconds - self._of_stacked_row(len(trie)))
        return saved > _PADDING * self.per_column * len(trie)

    def of_sequences(self, lengths: Sequence[int]) -> float:
        """Seconds of sequences in rows of their own, padded to the longest."""
        num_columns = max(lengths)
        of_row = self.attention.seconds(Form.CAUSAL, num_columns, num_columns, self.width)
        calls = (len(lengths) - 1) * self.attention.causal.per_call  # one for all rows
        return self._seconds(len(lengths) * num_columns, len(lengths) * of_row - calls)

    def _of_stacked_row(self, num_columns: int) -> float:
        return _STACKED * self.attention.seconds(Form.MASKED, num_columns, num_columns, self.width)

    def _seconds(self, num_columns: int, of_attention: float) -> float:
        return self.per_column * num_columns + self.num_layers * of_attention
