"""The demo model's tokenizer, one token per symbol, in the files that Hugging Face libraries load."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2
SYMBOLS = (PAD, EOS, UNKNOWN, "\n\n", "\\boxed{", "}", "=", "+", "-", "*", *"0123456789")
CONTEXT_LENGTH = 256

# The two symbols of several characters, else any single character, so that an unknown one becomes one <unk>.
_SYMBOL_PATTERN = r"\n\n|\\boxed\{|[\s\S]"


def build_tokenizer() -> Tokenizer:
    """Every sequence of ids decodes to a text that encodes to the same ids; only <unk> loses its character.

    <unk> exists because servers warm up with prompts in plain English; no problem contains it.
    """
    tokenizer = Tokenizer(WordLevel({symbol: index for index, symbol in enumerate(SYMBOLS)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(_SYMBOL_PATTERN), behavior="isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (PAD, EOS, UNKNOWN)])
    return tokenizer


def write_tokenizer(directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    build_tokenizer().save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
