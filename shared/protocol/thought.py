"""The thinking part of a response: between tags, of which a chat template may write the first into the prompt."""

import re

# Those of DeepSeek, Qwen and most others; of Magistral, Seed-OSS, Kimi, OpenThinker, Command A and gpt-oss.
_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
# Each tag contains one of them; most responses contain none.
_PARTS = ("think>", "think▷", "thinking>", "thought", "reasoning>", "THINK", "<|channel|>")
# What begins or ends a turn in chat templates, also the closing tag of a thought.
_MARKER = re.compile(r"<[|｜/]?[\w:]+[|｜]?>|<[|｜][^<>\n]{1,40}[|｜]>|\[/?[A-Z_]{3,20}\]|◁[^◁▷\n]{1,20}▷")


def _may_have_tags(text: str) -> bool:
    for part in _PARTS:  # noqa: SIM110 - twice as fast as any()
        if part in text:
            return True
    return False


def strip_thinking(response: str) -> str | None:
    """What follows the last closing tag; None if the response is still thinking."""
    if not _may_have_tags(response):
        return response
    start = max(at + len(end) if (at := response.rfind(end)) >= 0 else 0 for _, end in _TAGS)
    return None if any(response.find(tag, start) >= 0 for tag, _ in _TAGS) else response[start:]


def find_opened_thought(prompt: str) -> str:
    """The opening tag of the thought that a response to this prompt continues; "" if it begins outside.

    The prompt ends with the tag, or with the first words of a thought; a tag that is mentioned earlier opens none.
    """
    text = prompt.rstrip()
    if not _may_have_tags(text):
        return ""
    for tag, _ in _TAGS:
        before, found, words = text.rpartition(tag)
        is_at_start = before[-1:] in ("", "\n", ">", "]", "▷")
        if found and (not words or (is_at_start and _MARKER.search(words) is None)):
            return tag
    return ""
