"""The bytes of tokens, against the tokenizers that write and read `tokenizer.json`."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from shared.tree.vocabulary import bytes_of_tokens, ids_containing

TEXT = "Let x be 3.\n\nThen x² + 1 = 10,\r\n\r\nso the Answer is\t\\boxed{10} — naïve, 好的, 🙂.\n\n"
SPECIAL = "<|im_end|>"


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def split_then_byte_level() -> Tokenizer:
    """As Qwen's: a sequence of pre-tokenizers, of which byte-level is one."""
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def metaspace_with_byte_fallback() -> Tokenizer:
    """As Llama's and Mistral's: `▁` for a space, `<0xNN>` for the bytes of letters that are not in the vocabulary."""
    letters = sorted(set("Letxb3.Thn+1=0,soAwri\\d{}") | {"▁"})
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {letter: 256 + nth for nth, letter in enumerate(["<unk>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([SPECIAL])
    return tokenizer


def symbols() -> Tokenizer:
    """As a small task's own: one token a symbol."""
    names = ["<unk>", "\n\n", "\\boxed{", *sorted(set(TEXT))]
    tokenizer = Tokenizer(models.WordLevel({name: nth for nth, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(SPECIAL, special=True)])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, split_then_byte_level, metaspace_with_byte_fallback, symbols])
def test_the_bytes_of_a_texts_tokens_are_the_texts(make) -> None:
    tokenizer = make()
    table = bytes_of_tokens(json.loads(tokenizer.to_str()))
    token_ids = tokenizer.encode(TEXT + SPECIAL, add_special_tokens=False).ids
    assert b"".join(table[token_id] for token_id in token_ids) == (TEXT + SPECIAL).encode()
    assert len(table) == tokenizer.get_vocab_size(with_added_tokens=True)
    assert table[tokenizer.token_to_id(SPECIAL)] == SPECIAL.encode()


def test_every_byte_has_its_letter() -> None:
    table = bytes_of_tokens(json.loads(byte_level().to_str()))
    assert {bytes([byte]) for byte in range(256)} <= set(table)


def test_unigram_pieces_are_numbered_by_their_place() -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    assert bytes_of_tokens(json.loads(tokenizer.to_str())) == (b"<unk>", b" a", b"b")


def test_suffixes_and_prefixes_of_words_are_read_as_their_decoders_do() -> None:
    suffixed = Tokenizer(models.BPE({"a</w>": 0, "b": 1}, [], end_of_word_suffix="</w>"))
    suffixed.decoder = decoders.BPEDecoder(suffix="</w>")
    assert bytes_of_tokens(json.loads(suffixed.to_str())) == (b"a ", b"b")
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "##a": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    assert bytes_of_tokens(json.loads(pieces.to_str()))[1] == b"a"


def test_ids_that_no_token_has_are_empty() -> None:
    assert bytes_of_tokens({"model": {"vocab": {"a": 0, "b": 3}}}) == (b"a", b"", b"", b"b")


def test_words_are_found_in_any_case_within_tokens() -> None:
    assert ids_containing([b" Answer", b"ans", b"Conclusions", b"swer"], ("answer", "conclusion")) == {0, 2}
