"""An import: what is taken, what is dropped and why, and that it is all or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from services.learner.data.prompting import INSTRUCTIONS, PromptModel
from services.learner.data.report import ImportReport
from services.learner.data.run_files import import_to_file, is_problem_file, problem_files
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

GSM8K = {"question": "How much is 2 + 3?", "answer": "It is 2 + 3 = <<2+3=5>>5.\n#### 5"}
OURS = {"id": "a", "prompt": "w0 w1", "kind": "math", "answer_key": {"gold": "1"}}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def take(path: Path, *sources: Any, held_out: Any = ()) -> tuple[list[dict[str, Any]], ImportReport]:
    out = path / "out.jsonl"
    given, kept = ([DataSource.model_validate(one) for one in some] for some in (sources, held_out))
    report = import_to_file(given, out, None, kept)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], report


def dropped(report: ImportReport, number: int = 0) -> dict[str, int]:
    return {one.reason: one.count for one in report.sources[number].dropped}


def test_rows_of_a_known_form_become_problems(tmp_path: Path) -> None:
    rows, report = take(tmp_path, str(write(tmp_path / "gsm8k.jsonl", GSM8K)))
    assert rows == [
        {
            "id": "gsm8k/1",
            "prompt": [
                {
                    "role": "user",
                    "content": f"How much is 2 + 3?\n\n{INSTRUCTIONS['math']}",
                }
            ],
            "kind": "math",
            "answer_key": {"gold": "5"},
        }
    ]
    assert (report.sources[0].format, report.rows, report.taken) == ("gsm8k", 1, 1)


def test_problems_of_ours_are_read_where_they_are(tmp_path: Path) -> None:
    ours, other = write(tmp_path / "a.jsonl", OURS), write(tmp_path / "b.jsonl", GSM8K)
    broken = write(tmp_path / "c.jsonl", "{", {"id": "a"})
    sources = [DataSource(source=str(path)) for path in (ours, other, broken, tmp_path / "none.jsonl")]
    assert list(map(is_problem_file, sources)) == [True, False, True, True]
    assert problem_files(sources[:1], tmp_path / "data", "train", lambda: None) == (ours,)
    assert not (tmp_path / "data").exists()


def test_what_was_imported_for_a_run_is_not_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k.jsonl", GSM8K)
    source = DataSource(source=str(path))
    (first,) = problem_files([source], tmp_path / "data", "train", lambda: None)
    path.unlink()

    def load() -> None:
        raise AssertionError("the model is not needed")

    assert problem_files([source], tmp_path / "data", "train", load) == (first,)
    with pytest.raises(InvalidInput, match="there is no"):
        problem_files([source.model_copy(update={"limit": 1})], tmp_path / "data", "train", lambda: None)


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[{"question": "1?", "answer": "no gold"}] * 2, GSM8K | {"answer": "#### "})
    with pytest.raises(InvalidInput, match=r"no row of .*rows.jsonl can be taken"):
        take(tmp_path, {"source": str(path), "format": "gsm8k"})
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


def problem(number: int, text: str = "", gold: str = "1") -> dict[str, Any]:
    return {"problem": text or f"How much is {number} + 0?", "answer": gold}


def test_a_problem_that_came_before_is_dropped_also_from_another_source(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", problem(1), problem(1), problem(2, "What is $ 2+3 $?", "5"))
    second = write(tmp_path / "b.jsonl", problem(3, "WHAT is  2 + 3?", "5"), problem(1, gold="7"), problem(4))
    rows, report = take(tmp_path, str(first), str(second))
    assert [row["id"] for row in rows] == ["a/1", "a/3", "b/3"]
    assert dropped(report) == {"the same problem came before": 1}
    assert dropped(report, 1) == {
        "the same problem came before, written otherwise": 1,
        "the same problem came before, with another answer": 1,
    }
    kept, _ = take(tmp_path, {"source": str(first), "deduplicate": False})
    assert len(kept) == 3


@pytest.mark.parametrize("pair", [("x + 1", "x - 1"), ("1 2", "12"), ("f(x)", "f(y)"), ("x_1", "x_2"), ("a b", "ab")])
def test_what_differs_in_meaning_is_no_duplicate(pair: tuple[str, str], tmp_path: Path) -> None:
    rows, _ = take(tmp_path, str(write(tmp_path / "a.jsonl", *(problem(0, f"Find {text}.") for text in pair))))
    assert len(rows) == 2


LONG = "A train leaves the station at noon and runs for three hours at the same speed as another one"


def test_problems_of_a_held_out_set_are_dropped_also_in_part_and_behind_an_instruction(tmp_path: Path) -> None:
    held = write(
        tmp_path / "held.jsonl", problem(1, LONG + ". How far?"), OURS | {"prompt": f"2?\n\n{INSTRUCTIONS['math']}"}
    )
    rows = write(tmp_path / "a.jsonl", problem(1, f"Say: {LONG}!"), problem(2, " 2 ?"), problem(3, LONG[:40]))
    held_out = [{"source": str(held), "fields": {"prompt": "problem", "gold": "answer"}}]
    taken, report = take(
        tmp_path, str(rows), held_out=[*held_out, str(write(tmp_path / "h2.jsonl", OURS | {"prompt": "2?"}))]
    )
    assert [row["id"] for row in taken] == ["a/3"]
    assert [one.partition(" the held-out")[0] for one in dropped(report)] == ["shares 13 words in a row with", "is in"]
    all_of_them, _ = take(tmp_path, {"source": str(rows), "decontaminate": False}, held_out=held_out)
    assert len(all_of_them) == 3
    by_equality, _ = take(tmp_path, {"source": str(rows), "overlap_words": 0}, held_out=held_out)
    assert [row["id"] for row in by_equality] == ["a/1", "a/2", "a/3"]


def test_a_phrase_that_many_held_out_problems_share_makes_none_of_them_a_copy(tmp_path: Path) -> None:
    phrase = "Let n be a positive integer such that the following statement holds for all real numbers x"
    held = write(tmp_path / "held.jsonl", *(problem(0, f"{phrase}: {number}?") for number in range(12)))
    taken, _ = take(
        tmp_path, str(write(tmp_path / "a.jsonl", problem(1, f"{phrase} and y: what is n?"))), held_out=[str(held)]
    )
    assert len(taken) == 1


def test_a_sample_depends_on_seed_and_rows_alone_and_keeps_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *map(problem, range(200)))
    ids = [
        [row["id"] for row in take(tmp_path, {"source": str(path), "limit": 20, "seed": seed})[0]] for seed in (0, 0, 1)
    ]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == sorted(ids[0], key=lambda one: int(one.partition("/")[2]))
    assert (
        take(tmp_path, {"source": str(path), "limit": 20})[1].sources[0].notes[0]
        == "20 of 200 are chosen by limit and seed 0"
    )


def test_ids_of_ones_own_are_kept_and_come_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "q,a,i", "1?,1,x", "2?,2,x", "3?,3,", "4?,4,y")
    rows, report = take(tmp_path, {"source": str(path), "fields": {"prompt": "q", "gold": "a", "id": "i"}})
    assert [row["id"] for row in rows] == ["x", "a/3", "y"]
    assert dropped(report) == {"its id came before": 1}


ASKS = 'Answer it. The last line of your response should be of the form "Answer: X".'


@pytest.mark.parametrize(
    ("source", "row", "end", "key"),
    [
        ({}, problem(0, "P?"), INSTRUCTIONS["math"], {}),
        ({}, problem(0, r"P? Put it into \boxed{}."), r"\boxed{}.", {}),
        ({}, problem(0, f"P? {ASKS}"), 'X".', {"extraction": ["answer_is", "box"]}),
        ({"instruction": ""}, problem(0, "P?"), "P?", {}),
        ({"instruction": "Be quick."}, problem(0, "P?"), "\n\nBe quick.", {}),
        ({"extraction": ["last_number"]}, problem(0, "P?"), "P?", {"extraction": ["last_number"]}),
        ({}, {"question": "P?", "choices": ["a", "b"], "answer": 0}, INSTRUCTIONS["choice"], {"options": ["a", "b"]}),
        ({}, {"text": "P.", "test_list": ["assert f()"]}, INSTRUCTIONS["function"], None),
        ({}, {"problem": "P.", "tests": '{"inputs": ["1"], "outputs": ["2"]}'}, INSTRUCTIONS["stdio"], None),
    ],
)
def test_an_instruction_stands_behind_what_does_not_ask_itself(
    source: dict[str, Any], row: dict[str, Any], end: str, key: dict[str, Any] | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", row)
    ((taken,), _) = take(tmp_path, {"source": str(path)} | source)
    assert taken["prompt"][-1]["content"].endswith(end)
    assert key is None or {name: one for name, one in taken["answer_key"].items() if name != "gold"} == key


SYSTEM = "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + ' ' }}{% endfor %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + SYSTEM
SILENT = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] + ' ' }}{% endfor %}"


def model(template: str | None, most: int = 1000) -> PromptModel:
    """A token for each byte."""
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    return PromptModel.of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template), most)


@pytest.mark.parametrize(
    ("template", "roles", "noted"),
    [(SYSTEM, ["system", "user"], False), (NO_SYSTEM, ["user"], True), (SILENT, ["user"], True), (None, [], True)],
)
def test_a_system_prompt_reaches_every_model(
    template: str | None, roles: list[str], noted: bool, tmp_path: Path
) -> None:
    path, out = write(tmp_path / "a.jsonl", problem(1)), tmp_path / "out.jsonl"
    source = DataSource(source=str(path), system_prompt="Be brief.")
    report = import_to_file([source], out, model(template))
    prompt = json.loads(out.read_text())["prompt"]
    assert ([] if isinstance(prompt, str) else [one["role"] for one in prompt]) == roles
    assert "Be brief." in (prompt if isinstance(prompt, str) else prompt[0]["content"])
    assert any("system" in note or "plain text" in note for note in report.sources[0].notes) == noted


def test_prompts_that_are_too_long_or_that_the_template_refuses_are_dropped(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", problem(1), problem(2, "long " * 60)), tmp_path / "out.jsonl"
    report = import_to_file([DataSource(source=str(path), instruction="")], out, model(SYSTEM, 60))
    assert dropped(report) == {"its prompt has more than 60 tokens": 1}
    assert report.prompts[0].tokens == len("[user] How much is 1 + 0? ")
    assert report.prompts[0].text == "[user] How much is 1 + 0? "
    with pytest.raises(InvalidInput, match=r"2 × the chat template refuses these messages: never"):
        import_to_file([DataSource(source=str(path))], out, model("{{ raise_exception('never') }}"))


def test_chat_is_refused_where_the_model_has_no_template(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", problem(1))
    with pytest.raises(InvalidInput, match="has no chat template: leave out chat"):
        import_to_file([DataSource(source=str(path), chat=True)], tmp_path / "out.jsonl", model(None))


def test_what_is_no_text_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"problem": "\\ud800?", "answer": "1"}', problem(1))
    rows, report = take(tmp_path, str(path))
    assert (len(rows), dropped(report)) == (1, {"holds half of a surrogate pair, which is no text": 1})


def test_what_shows_more_than_text_is_dropped(tmp_path: Path) -> None:
    text, picture = {"type": "text", "text": "How much is 3 + 3?"}, {"type": "image", "image": "a.png"}
    chats = [{"messages": [{"role": "user", "content": one}]} for one in ([text], [picture, text])]
    rows = [{"problem": "What is x?", "answer": "4", "images": [{"path": "a.png"}]}]
    rows += [{"problem": "How much is 2 + 2?", "answer": "4", "images": None}]
    taken, report = take(
        tmp_path,
        str(write(tmp_path / "rows.jsonl", *rows)),
        str(write(tmp_path / "chats.jsonl", *(one | {"ground_truth": "6", "dataset": "math"} for one in chats))),
    )
    assert [one["id"] for one in taken] == ["rows/2", "chats/1"]
    assert dropped(report) == {"shows a picture or a sound (images), and models read text": 1}
    assert dropped(report, 1) == {"a message of messages shows more than text (image), and models read text": 1}


@pytest.mark.parametrize("other", ["What is  $2 + 3$ ?", "What\n\nis 2+3?", "what is \\(2\\,+\\,3\\)?"])
def test_spacing_makes_no_new_problem(other: str, tmp_path: Path) -> None:
    rows = [{"question": text, "answer": "5"} for text in ("What is $2+3$?", other)]
    assert len(take(tmp_path, str(write(tmp_path / "sums.jsonl", *rows)))[0]) == 1
