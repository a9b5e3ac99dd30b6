"""Every pattern and parser that reads an answer takes time linear in it.

Work is processor time of this thread, the least of several tries, so that a busy machine changes little. Eight times
the text may take less than sixteen times as long; a quadratic step takes sixty-four times.
"""

import gc
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

import services.verifier
import shared.protocol.thought
from services.verifier.checks.check import LONG_RESPONSE
from services.verifier.checks.choice import find_choice
from services.verifier.checks.code.extraction import find_code_blocks, find_program
from services.verifier.checks.code.outcome import shorten
from services.verifier.checks.code.output import Whitespace, outputs_match
from services.verifier.checks.final_answer import FinalAnswer, extract_final_answer
from services.verifier.checks.math.decision import decide
from services.verifier.checks.math.reading.parsed_answer import parse_answer
from services.verifier.config import ChoiceExtraction, MathExtraction
from services.verifier.json_items import cut_batch
from shared.errors import InvalidInput
from shared.protocol.thought import find_opened_thought, strip_thinking
from tests.verifier.hostile_texts import families, fragments_of, text_of

# Start sympy, or run only inside the jail.
SKIPPED = ("math_verify_function", "worker_function", ".child.", ".fork_server", "unjailed")
SHORT, FACTOR, MOST_GROWTH = 800, 8, 16
# Of twice the text; a quadratic step takes four times as long.
MOST_GROWTH_OF_TWICE = 2.7
# Of one text; the event loop lets others in after every few milliseconds. Busy neighbours slow a processor down, too.
MOST_SECONDS = 0.03
# A linear step takes microseconds for a short text.
CLEARLY_LINEAR_SECONDS = 0.001
ENDLESS_SECONDS = 5.0
# How a pattern is used, and what does the same work.
_METHODS = {name: name for name in ("search", "match", "fullmatch")} | dict.fromkeys(
    ("finditer", "findall", "sub", "split"), "findall"
)


@contextmanager
def ended_if_endless() -> Iterator[None]:
    """Raises TimeoutError after seconds of work, also within a pattern's."""

    def stop(*_: Any) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def work(run: Callable[[Any], object], text: Any, tries: int = 1) -> float:
    """The least processor time of several tries."""
    least = float("inf")
    gc.disable()  # a collection takes longer than many a text
    try:
        for _ in range(tries):
            start = time.thread_time()
            run(text)
            least = min(least, time.thread_time() - start)
    finally:
        gc.enable()
    return least


def growth(run: Callable[[Any], object], text: Callable[[int], Any], length: int) -> float:
    """How much longer a text of eight times the length takes; 0 where a shorter look shows that it is linear."""
    with ended_if_endless():
        short = text(length)
        if work(run, short) < CLEARLY_LINEAR_SECONDS or work(run, short, 3) < CLEARLY_LINEAR_SECONDS:
            return 0.0
        if work(run, text(2 * length), 2) < MOST_GROWTH_OF_TWICE * work(run, short, 3):
            return 0.0
        return work(run, text(FACTOR * length), 3) / work(run, short, 5)


def _patterns() -> dict[str, tuple[re.Pattern[Any], str]]:
    """Every compiled pattern of a module of the verifier, and how it is used, by its name."""
    modules = [shared.protocol.thought]
    for found in pkgutil.walk_packages(services.verifier.__path__, "services.verifier."):
        if not any(part in found.name for part in SKIPPED):
            modules.append(importlib.import_module(found.name))
    found_patterns: dict[str, tuple[re.Pattern[Any], str]] = {}
    for module in modules:
        source = Path(module.__file__ or "").read_text()
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                for used in re.findall(rf"\b{name}\.({'|'.join(_METHODS)})\b", source):
                    where = module.__name__.removeprefix("services.verifier.")
                    found_patterns[f"{where}.{name}:{_METHODS[used]}"] = value, _METHODS[used]
    return found_patterns


PATTERNS = _patterns()
CHOICE_WAYS, MATH_WAYS = get_args(ChoiceExtraction), get_args(MathExtraction)
GOLD = parse_answer("x^2+\\sqrt{2}")


def _decide(text: str) -> object:
    return decide(GOLD, FinalAnswer((text,), (text,)))


def _cut(text: str) -> None:
    with suppress(InvalidInput):
        list(cut_batch(text.encode(), 100))


READ = LONG_RESPONSE
RESPONSE = [
    *[
        r"\boxed{4}",
        r"\boxed",
        r"\boxed{",
        r"\fbox{",
        r"}",
        r"{}",
        r"4",
        r"A",
        r"(B)",
        r",",
        r".",
        r":",
        r"####",
        r"<think>",
        r"</think>",
        r"<answer>",
        r"</answer>",
        r"answer",
        r"**",
        r"or",
        r"not",
    ],
    "\n",
    " ",
]
LATEX = r"""\frac{ \sqrt{ \sqrt[ ( ) [ ] { } + - ^ _ ! / \times \pm | x 1 12 1.5 , = \le \cup \text{ \pi \lfloor \sin \%
    & \\ e""".split()  # noqa: SIM905
CODE = [
    *["```", "~~~", "a;", "def", "(", "[", "{", "'", "\\", "#", "lambda:", "-", "not", "x,"],
    "\n",
    " ",
    "```python\n",
    '"""',
    "def f():",
]
OUTPUT = [*["1", "1.5", "1e5", ".", "e", "-", "x", "1.", "0"], " ", "\n", "\t", "\r"]
JSON = ['"', "\\", "{", "}", "[", "]", ",", ":", "1", "\\u00e9", '"items":[', '{"id":"', "]}"]
# What runs, on which short text, and on which longest one on the event loop (0: it runs beside it), of which fragments.
PARSERS: dict[str, tuple[Callable[[str], object], int, int, list[str]]] = {
    "thought": (strip_thinking, 8_000, READ, RESPONSE),
    "thought in a prompt": (find_opened_thought, 8_000, READ, RESPONSE),
    "final answer": (lambda text: extract_final_answer(text, 10_000, MATH_WAYS), SHORT, READ, RESPONSE),
    "choice": (lambda text: find_choice(text, CHOICE_WAYS), SHORT, READ, RESPONSE),
    "mathematics": (_decide, 200, 192, LATEX),
    "program": (find_program, SHORT, 2_000, CODE),
    "code blocks": (find_code_blocks, SHORT, 2_000, CODE),
    "outputs": (lambda text: outputs_match(text.encode(), text.encode() + b"1.5"), SHORT, 0, OUTPUT),
    "words of outputs": (
        lambda text: outputs_match(text.encode(), text.encode() + b"2", Whitespace.WORDS),
        SHORT,
        0,
        OUTPUT,
    ),
    "reason": (shorten, 8_000, READ, RESPONSE),
    "batch": (_cut, SHORT, 0, JSON),
}


# Of the families of each pattern and parser, so many are tried quickly; `make test-full` tries all.
NUM_TRIED = 24
ALL_OF_THEM = [NUM_TRIED, pytest.param(10**9, marks=pytest.mark.slow)]


def _some_families(fragments: Sequence[str], number: int) -> Iterator[tuple[str, str]]:
    """Every so many-th of the families."""
    found = list(families(fragments))
    yield from found[:: max(1, len(found) // number)]


@pytest.mark.parametrize("number", ALL_OF_THEM)
@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_is_linear_in_the_text(name: str, number: int) -> None:
    run, short, _, fragments = PARSERS[name]
    for family in _some_families(fragments, number):
        assert growth(run, partial(text_of, family), short) < MOST_GROWTH, family


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_the_longest_text_that_is_read_on_the_event_loop_takes_milliseconds(name: str) -> None:
    run, _, longest, fragments = PARSERS[name]
    for family in families(fragments):
        assert (
            work(run, text_of(family, longest)) < MOST_SECONDS or work(run, text_of(family, longest), 5) < MOST_SECONDS
        )


@pytest.mark.parametrize("number", ALL_OF_THEM)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear_in_the_text(name: str, number: int) -> None:
    pattern, method = PATTERNS[name]
    is_of_bytes = isinstance(pattern.pattern, bytes)
    for family in _some_families(fragments_of(pattern), number):

        def text(length: int, family: tuple[str, str] = family) -> str | bytes:
            found = text_of(family, length)
            return found.encode("latin-1") if is_of_bytes else found

        assert growth(getattr(pattern, method), text, SHORT) < MOST_GROWTH, family
