"""The policy's tokens: their bytes, where reasoning steps end, text to ids and back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from shared.errors import InvalidInput
from shared.tree.prompt import prompt_ids
from shared.tree.samplers import SAMPLERS, Sampler
from shared.tree.segmentation import Segmenter
from shared.tree.vocabulary import bytes_of_tokens
from shared.weights import stop_token_ids

_MAX_PREPARED = 64
_BEFORE = "\n"
"""A text that others come after."""
VOCABULARY_FILES = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "generation_config.json",
        "config.json",
    }
)
"""Of equal files the vocabularies are equal."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of one policy bundle."""

    bytes_of_token: tuple[bytes, ...]
    stop_ids: frozenset[int]
    segmenter: Segmenter
    tokenizer: Tokenizer
    _prepared: dict[str, Sampler] = field(default_factory=dict)

    @classmethod
    def load(cls, bundle: Path) -> "Vocabulary":
        """Reads tokenizer.json and the stop tokens of an HF-layout directory; InvalidInput if they are missing."""
        try:
            text = (bundle / "tokenizer.json").read_text(encoding="utf-8")
            table = bytes_of_tokens(json.loads(text))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"the bundle in {bundle} has no usable tokenizer.json: {error!r}") from error
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise InvalidInput(f"the tokenizer.json in {bundle} makes no tokenizer: {error}") from error
        tokenizer.no_truncation()  # whatever its file says: the learner's tokenizer does neither
        tokenizer.no_padding()
        stop_ids = stop_token_ids(bundle, len(table), tokenizer.token_to_id)
        return cls(table, stop_ids, Segmenter(table, stop_ids), tokenizer)

    def prepare(self, sampler: Sampler) -> Sampler:
        """The sampler with what it needs to know of these tokens, computed once for equal samplers."""
        wanted = repr(SAMPLERS.dump(sampler))  # a sampler of the user's own need not be hashable
        if wanted not in self._prepared:
            if len(self._prepared) >= _MAX_PREPARED:
                self._prepared.clear()
            self._prepared[wanted] = sampler.for_vocabulary(self.bytes_of_token)
        return self._prepared[wanted]

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text as a prompt, by the rule of `prompt_ids`."""
        return prompt_ids(*(self._encode(text, with_specials=with_specials) for with_specials in (False, True)))

    def encode_continuation(self, text: str) -> tuple[int, ...]:
        """The ids of a text as what comes after other text: without special tokens around it, and without the space
        that some tokenizers put before a text that begins."""
        plain = self._encode(text, with_specials=False)
        if self._bytes_of(plain) == text.encode():
            return tuple(plain)
        before = self._encode(_BEFORE, with_specials=False)
        behind = self._encode(_BEFORE + text, with_specials=False)[len(before) :]
        return tuple(behind if self._bytes_of(behind) == text.encode() else plain)

    def _encode(self, text: str, *, with_specials: bool) -> list[int]:
        # a batch of one: unlike `encode` it lets other threads run meanwhile
        ids: list[int] = self.tokenizer.encode_batch([text], add_special_tokens=with_specials)[0].ids
        return ids

    def _bytes_of(self, token_ids: Iterable[int]) -> bytes:
        table = self.bytes_of_token
        return b"".join(table[i] for i in token_ids if 0 <= i < len(table))

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The text of the tokens without stop tokens; bytes that are not UTF-8 become U+FFFD."""
        return self._bytes_of(i for i in token_ids if i not in self.stop_ids).decode("utf-8", "replace")
