"""Special tokens around a prompt."""

import pytest

from shared.tree.prompt import prompt_ids

BOS, EOS = 1, 2


@pytest.mark.parametrize(
    ("plain", "with_specials", "expected"),
    [
        ((5, 6), (5, 6), (5, 6)),
        ((5, 6), (BOS, 5, 6), (BOS, 5, 6)),
        ((5, 6), (BOS, 5, 6, EOS), (BOS, 5, 6)),
        ((5, 6), (5, 6, EOS), (5, 6)),
        ((BOS, 5, 6), (BOS, BOS, 5, 6), (BOS, 5, 6)),
        ((BOS, 5, EOS), (BOS, BOS, 5, EOS, EOS), (BOS, 5, EOS)),
        ((5, 5), (5, 5, 5), (5, 5)),
    ],
)
def test_a_prompt_has_what_comes_before_its_text_once_and_nothing_behind(
    plain: tuple[int, ...], with_specials: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert prompt_ids(plain, with_specials) == expected
