"""Results of problems as files: what a killed process left is gone on with."""

from pathlib import Path

from services.learner.held_out import results as results_module
from services.learner.held_out.results import Header, ProblemResult, ResultsFile, differences, remove_old
from tests.learner.evaluations import result

HEADER = Header(set="gsm8k", weights="abc", settings={"k": 2, "temperature": 1.0})


def write(file: ResultsFile, *found: ProblemResult) -> None:
    file.begin(HEADER, {})
    for one in found:
        file.append(one)


def test_what_was_written_is_read_again_but_for_a_line_that_was_cut(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "3", "gsm8k")
    assert file.read() == (None, {})
    first, second = result(0, [1.0, None], ["1", None]), result(1, [0.0, 0.5])
    write(file, first, second)
    with file.path.open("a") as lines:
        lines.write('{"id": "2", "prob')
    assert file.read() == (HEADER, {"0": first, "1": second})
    file.begin(*file.read())  # type: ignore[arg-type]
    file.append(result(2, [1.0, 1.0]))
    assert list(file.read()[1]) == ["0", "1", "2"]


def test_a_file_of_something_else_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text('{"some": "row"}\n')
    assert ResultsFile(tmp_path, "gsm8k").read() == (None, {})


def test_a_complete_file_that_is_big_is_compressed_and_goes_on_all_the_same(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(results_module, "_BIG_BYTES", 100)
    file = ResultsFile(tmp_path, "gsm8k")
    write(file, result(0, [1.0, 0.0]))
    file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["gsm8k.jsonl.gz"]
    header, found = file.read()
    assert header == HEADER
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-12])
    assert file.read()[0] in (None, HEADER), "what is left of a file that was cut is no error"
    file.path.write_bytes(whole)
    file.begin(header, found)
    file.append(result(1, [1.0, 0.0]))
    assert [path.name for path in tmp_path.iterdir()] == ["gsm8k.jsonl"]
    assert list(file.read()[1]) == ["0", "1"]


def test_headers_say_what_differs() -> None:
    other = Header(set="gsm8k", weights="abd", settings={"k": 4, "temperature": 1.0})
    assert differences(HEADER, other) == ["model: abc there, abd now", "k: 2 there, 4 now"]
    assert differences(HEADER, HEADER) == []


def test_the_first_and_the_last_results_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 15, 20):
        (tmp_path / str(step)).mkdir()
    for keep, left in ((9, [0, 5, 10, 15, 20]), (3, [0, 15, 20]), (1, [0]), (0, [])):
        remove_old(tmp_path, keep)
        assert sorted(int(path.name) for path in tmp_path.iterdir()) == left
