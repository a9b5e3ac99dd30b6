"""Where steps end."""

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.segmentation import Segmenter
from tests.tree.records import quick

EOS = b"<eos>"
PIECES = [
    b"a",
    b"\n",
    b"\n\n",
    b" ",
    b".\n",
    b".\n\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\nb",
    b"b\n\nc\n\n",
    b"\t",
    b"",
    b"\r",
    b" \n  \n",
    b" \n  \nb",
    EOS,
]
SEGMENTER = Segmenter(PIECES, frozenset([PIECES.index(EOS)]))


BLANKS = [
    [b"\n", b" ", b"\n"],
    [b" ", b"\n", b" ", b"\t", b"\n"],
    [b" \n  \n"],
    [b"\r\n", b"\t", b"\r\n"],
    [b" \n  \nb"],
]


def ends(*pieces: bytes) -> tuple[int, ...]:
    return SEGMENTER.step_ends((), [PIECES.index(piece) for piece in pieces])


def slow_ends(token_ids: list[int]) -> tuple[int, ...]:
    """The definition, over the bytes of the whole: at which tokens a step that holds ink sees its second newline."""
    found, step = [], b""
    for end, token in enumerate(token_ids, 1):
        step += PIECES[token]
        ink = step.lstrip(b" \n\r\t\v\f")
        if PIECES[token] == EOS or re.search(rb"\n[ \r\t\v\f]*\n", ink):
            found.append(end)
            step = b""
    return tuple(sorted({*found, len(token_ids)}))


@pytest.mark.parametrize(
    "blank_line",
    [[b"\n\n"], [b"\n", b"\n"], [b"\r\n\r\n"], [b"\r\n", b"\r\n"], [b".\n\n"], [b".\n", b"\n"], [b"\n\nb"], *BLANKS],
)
def test_a_blank_line_closes_a_step_however_it_is_spelled(blank_line: list[bytes]) -> None:
    assert ends(b"a", *blank_line, b"a", b"a") == (1 + len(blank_line), 3 + len(blank_line))


def test_newlines_apart_are_no_blank_line() -> None:
    assert ends(b"a", b"\n", b"a", b"\n", b"a") == (5,)
    assert ends(b"a", b"\n", b" ", b"a", b"\t", b"\n", b"a") == (7,)


def test_a_step_of_white_space_does_not_close() -> None:
    assert ends(b"\n\n", b" ", b"\n\n", b"a", b"\n\n") == (5,)


def test_further_newlines_open_the_next_step() -> None:
    assert ends(b"a", b"\n\n", b"\n", b"\n\n", b"a", b"\n\n", b"a") == (2, 6, 7)


def test_text_after_the_blank_line_in_its_token_belongs_to_the_closed_step() -> None:
    assert ends(b"a", b"\n\nb", b"\n\n", b"a") == (2, 4)


def test_one_token_closes_one_step() -> None:
    assert ends(b"b\n\nc\n\n", b"a") == (1, 2)


def test_the_end_closes_whatever_is_open() -> None:
    assert ends(b"a", b"\n\n", b" ") == (2, 3)


def test_the_stop_token_closes_even_a_step_of_its_own() -> None:
    assert ends(b"a", b"\n\n", EOS) == (2, 3)


def test_ids_beyond_the_table_are_text() -> None:
    assert SEGMENTER.step_ends((), [999, 2, 2, 999, 2]) == (2, 5)


@given(st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=30))
@quick
def test_steps_end_where_they_are_defined_to(token_ids: list[int]) -> None:
    assert SEGMENTER.step_ends((), token_ids) == slow_ends(token_ids)


@given(st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=30), st.data())
@quick
def test_segmenting_a_prefix_and_its_branch_is_segmenting_the_whole(token_ids: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(token_ids) - 1))
    whole = SEGMENTER.step_ends((), token_ids)
    assert SEGMENTER.step_ends(token_ids[:cut], token_ids[cut:]) == tuple(end for end in whole if end > cut)


def test_steps_are_the_same_however_the_text_is_tokenized() -> None:
    """Ends in bytes agree, where no token holds more than a blank line and nothing after it."""
    text = b"one\n\ntwo \n three\r\n\r\n\n\nfour\n\n"
    rng = random.Random(0)
    letters = Segmenter([bytes([byte]) for byte in range(256)], frozenset())
    expected = letters.step_ends((), list(text))
    for _ in range(20):
        cuts = sorted({0, len(text), *expected, *rng.sample(range(len(text)), 8)})
        tokens = [text[a:b] for a, b in itertools.pairwise(cuts)]
        found = Segmenter(tokens, frozenset()).step_ends((), range(len(tokens)))
        assert [cuts[end] for end in found] == list(expected)
