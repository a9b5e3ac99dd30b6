"""The thinking part of a response, also one that the prompt has opened."""

import pytest

from shared.protocol.thought import find_opened_thought, strip_thinking

OPENING = [
    "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "<｜User｜>q<｜Assistant｜><think>\n",
    "A conversation. The reasoning stands in <think> </think>.\nUser: q\nAssistant: <think>",
    "<|im_start|>assistant\n<think>\nOkay, x < 3 and",
    "<|im_start|>user\n<think>a</think>b<|im_end|>\n<|im_start|>assistant\n<think>\n",
]
NOT_OPENING = [
    "",
    "<|im_start|>assistant\n",
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "<|im_start|>user\nBegin with <think>.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\n<think>\nis a tag<|im_end|>\n<|im_start|>assistant\n",
    "[INST]\n<think>\nis a tag[/INST]",
    "Say <think> first. Assistant:",
    "Write <think> </think>, then the answer.",
]


@pytest.mark.parametrize("prompt", OPENING)
def test_a_template_that_opens_a_thought_is_seen(prompt: str) -> None:
    assert find_opened_thought(prompt) == "<think>"


@pytest.mark.parametrize("prompt", NOT_OPENING)
def test_a_tag_that_is_closed_or_only_mentioned_opens_none(prompt: str) -> None:
    assert find_opened_thought(prompt) == ""


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_other_templates_tags_count_alike(start: str, end: str) -> None:
    assert find_opened_thought(f"q {start}\n") == start
    assert find_opened_thought(f"q {start}\n{end}\n") == ""
    assert strip_thinking(f"{start}a{end}b") == "b"
    assert strip_thinking(f"{start}a") is None


def test_what_follows_the_last_thought_is_kept() -> None:
    assert strip_thinking("<think>a</think>b</think>c") == "c"
    assert strip_thinking("a") == "a"
    assert strip_thinking("<think>a</think>b<think>c") is None
