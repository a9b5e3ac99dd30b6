"""Which part of an answer is its program."""

# ruff: noqa: E501 - the programs are lines of their own

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.code.extraction import CodeBlock, find_code_blocks, find_program

PROGRAM = "def f(x):\n    return x * 2"
OTHER = "def f(x):\n    return x * 3"

ANSWERS = {
    "bare": PROGRAM,
    "one block": f"Here it is:\n\n```python\n{PROGRAM}\n```\nDone.",
    "no language": f"```\n{PROGRAM}\n```",
    "py": f"```py\n{PROGRAM}\n```",
    "Python with attributes": f'``` Python title="x"\n{PROGRAM}\n```',
    "tildes": f"~~~python\n{PROGRAM}\n~~~",
    "long fence around a short one": f"````python\n{PROGRAM}\n````",
    "last block counts": f"```python\n{OTHER}\n```\nBetter:\n```python\n{PROGRAM}\n```",
    "output after it does not": f"```python\n{PROGRAM}\n```\nOutput:\n```\n4\n6 8\nok then\n```",
    "a usage example after it does not": f"```python\n{PROGRAM}\n```\nUse:\n```python\nprint(f(2))\n```",
    "shell after it does not": f"```python\n{PROGRAM}\n```\nRun:\n```bash\npython x.py\n```",
    "another language before": f"```cpp\nint f();\n```\n```python\n{PROGRAM}\n```",
    "a draft that does not parse": f"```python\ndef f(x)\n```\n```python\n{PROGRAM}\n```",
    "cut off fence": f"```python\n{PROGRAM}",
    "after thinking": f"<think>\n```python\n{OTHER}\n```\n</think>\n```python\n{PROGRAM}\n```",
    "a block only in the thinking part": f"<think>\n```python\n{OTHER}\n```\n</think>\n{PROGRAM}",
    "windows lines": f"```python\r\n{PROGRAM}\r\n```\r\n".replace("\r\n", "\n").replace("\n", "\r\n"),
    "in a list": f"1. So:\n   ```python\n   {PROGRAM.replace(chr(10), chr(10) + '   ')}\n   ```",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_program_is_found(name: str) -> None:
    assert find_program(ANSWERS[name], "f").replace("\r\n", "\n").rstrip() == PROGRAM


def test_a_program_with_fences_in_its_strings_is_taken_whole() -> None:
    program = f'def f(x):\n    """Use:\n\n```\nf(2)\n```\n    """\n    return x * 2\n\nTEXT = """\n```python\n{OTHER}\n```\n"""\n'
    assert find_program(program, "f") == program.strip("\n")
    indented = '```python\ndef f(x):\n    """\n    ```\n    f(2)\n    ```\n    """\n    return x\n```'
    assert find_program(indented, "f").endswith("return x")


def test_an_answer_that_still_thinks_has_no_program() -> None:
    assert find_program(f"<think>\n```python\n{PROGRAM}\n```\n", "f") == ""
    assert find_program("", "f") == ""
    assert find_program("```python\n```", None).strip() in ("", "```python\n```")


def test_a_class_or_an_assigned_name_is_an_entry_point() -> None:
    for defining in ("class f:\n    pass", "f = lambda x: x", "async def f(x):\n    return x"):
        assert find_program(f"```python\n{defining}\n```\n```python\nprint(1)\n```", "f") == defining


def test_whole_programs_need_no_entry_point() -> None:
    assert find_program("```python\nprint(1)\n```\n```python\nprint(2)\n```") == "print(2)"


@pytest.mark.parametrize("sample", ["```\n2\n```", "~~~\n[1]\n~~~", "```text\n2\n```", "   ```\n   2\n   ```"])
def test_a_block_that_names_the_language_is_no_sample(sample: str) -> None:
    assert find_program(f"```python\nprint(1)\n```\nsample output:\n{sample}") == "print(1)"
    assert find_program(f"input:\n{sample}\n\n```py\nprint(1)\n```\n" + "```\n1\n```\n" * 20) == "print(1)"


@given(st.text(st.sampled_from("`~ \npy(")), st.sampled_from([None, "f"]))
def test_any_text_has_a_program_or_none(text: str, entry_point: str | None) -> None:
    assert find_program(text, entry_point) in ("", text.strip("\n")) or find_code_blocks(text)


def test_blocks_are_taken_apart() -> None:
    text = "a\n```x\n1\n```\n~~~\n```\n2\n~~~\n```\n3"
    assert find_code_blocks(text) == [CodeBlock("x", "1"), CodeBlock("", "```\n2"), CodeBlock("", "3")]
