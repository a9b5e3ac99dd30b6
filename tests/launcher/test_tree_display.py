"""Trees as lists of nodes, in the terminal and on the page of the report."""

import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from services.demo.task import checkpoint_directory
from services.launcher.commands.show import show_file, show_run
from services.launcher.display.node_views import describe_nodes
from services.launcher.display.tree_svg import draw_page, render_tree_svg
from services.launcher.display.tree_view import render_tree
from services.launcher.report.page import write_report
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees, load_tree
from services.launcher.runs.model_files import TokenTable
from services.launcher.runs.run_dir import RunDirectory
from services.learner.held_out.results import Header, ResultsFile
from shared.errors import InvalidInput
from shared.protocol.figures import RunSummary, Shown, StepFigures, figures_in
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.ib_score import IBSettings
from shared.tree.samplers import AnySampler, IBSampler, RandomSampler
from tests.learner.evaluations import make_evaluation, result

VOCABULARY = TokenTable((b"a", b"b", b"\n\n", b"<script>", b"<eos>"), frozenset())
A, B, BREAK, MARKUP, EOS = range(5)


def draw(
    parent: int | None, cut: int, tokens: tuple[int, ...], reward: float | None, finish: Finish = Finish.STOP
) -> Draw:
    """A draw whose steps end at its breaks and at its end, each token of probability 1/2."""
    breaks = {cut + nth + 1 for nth, token in enumerate(tokens) if token == BREAK}
    return Draw(
        parent=parent,
        cut=cut,
        token_ids=tokens,
        logprobs=(math.log(0.5),) * len(tokens),
        step_ends=tuple(sorted({*breaks, cut + len(tokens)})),
        spans=(VersionSpan(WeightVersion(1, 4), 0, len(tokens)),),
        finish=finish,
        reward=reward,
    )


def make_tree(*draws: Draw, beta: float = 5.0, sampler: AnySampler | None = None) -> ScoredTree:
    task = Task(
        run="mine",
        id="0-0",
        problem_id="p",
        prompt_ids=(A, MARKUP),
        kind="exact",
        answer_key={"gold": "b"},
        growth=Growth(sampler=sampler or IBSampler(initial_draws=2, rounds=1, score=IBSettings(beta=beta))),
        score=IBSettings(beta=beta),
        seed=0,
    )
    return ScoredTree(task=task, replica="rollout-1", draws=draws, usage=TreeUsage(generated_tokens=8))


TREE = make_tree(
    draw(None, 0, (A, BREAK, B, EOS), 1.0),
    draw(None, 0, (B, BREAK, MARKUP), 0.0, Finish.LENGTH),
    draw(0, 2, (A, EOS), 0.0),
)


def test_every_node_is_described_with_its_figures() -> None:
    nodes = describe_nodes(TREE, "a?", VOCABULARY)
    assert [(node.guide, node.text, node.draw) for node in nodes] == [
        ("", "a?", None),
        ("├─ ", "a\n\n", 0),
        ("│  ├─ ", "b", None),
        ("│  └─ ", "a", 2),
        ("└─ ", "b\n\n", 1),
        ("   ", "<script>", None),
    ]
    root, first, right, *_ = nodes
    assert root.value == pytest.approx(1 / 3)
    assert first.value == pytest.approx(1 / 2)
    assert first.eta1 == pytest.approx(1.5 - 1.2)
    assert first.eta2 == pytest.approx(0.5)
    assert first.ib_score == pytest.approx(6 / 2 * (0.5 * (2 - 1.2) + 0.5 * (0 - 1.2)))
    assert (right.value, right.reward, right.ib_score, right.num_leaves) == (1.0, 1.0, None, 1)
    assert root.num_leaves == 3


def test_a_tree_that_was_not_judged_is_rendered_without_values() -> None:
    nodes = describe_nodes(make_tree(draw(None, 0, (A, EOS), None), draw(None, 0, (B, EOS), None)), "a?", VOCABULARY)
    assert [node.text for node in nodes] == ["a?", "a", "b"]
    assert all(node.value is None and node.ib_score is None and node.reward is None for node in nodes)
    assert [node.eta2 for node in nodes[1:]] == pytest.approx([0.5, 0.5])


def test_the_terminal_shows_order_ends_and_figures() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_tree(TREE, "a?", VOCABULARY))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("#1 a⏎", "b ✔", "#3 a ✘", "<script> ✂", "0.33", "+0.30", "ib tree of 3 answers", "policy v4"):
        assert part in text, part


@pytest.mark.parametrize("width", [50, 80])
def test_a_small_terminal_shows_all_numbers_and_cuts_texts(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(render_tree(TREE, "a long question " * 20, VOCABULARY))
    console.print(render_tree(TREE, "a long question " * 20, VOCABULARY, is_full=True))
    cut, whole = console.file.getvalue().split("#n: the n-th")[:2]  # type: ignore[attr-defined]
    root = next(line for line in cut.splitlines() if "question" in line)
    assert root.startswith("0.33              -1.350 3 a long question")
    assert root.rstrip().endswith("…")
    assert "".join(whole.split()).count("question") == 20


SPECIAL = {name: number for number, name in enumerate(("<s>", "<start>", "<end>", "<user>"))}
TEXTS = ("user\n", "user", "\n\n", "You help.", "2+3?", "assistant\n", "\n", "system\n")


@pytest.mark.parametrize(
    "prompt",
    [
        ("<start>", "system\n", "You help.", "<end>", "\n", "<start>", "user\n", "2+3?", "<end>", "\n", "<start>",
         "assistant\n"),
        ("<s>", "<start>", "user", "<end>", "\n\n", "2+3?", "<end>", "<start>", "assistant\n", "<end>", "\n\n"),
        ("<s>", "<user>", "2+3?", "<end>"),
        ("2+3?",),
    ],
    ids=["chatml", "llama", "by role tokens", "text"],
)  # fmt: skip
def test_a_chat_prompt_is_shown_by_its_users_message(prompt: tuple[str, ...]) -> None:
    table = [*SPECIAL, *TEXTS]
    task = TREE.task.model_copy(update={"prompt_ids": tuple(table.index(part) for part in prompt)})
    scored = TREE.model_copy(update={"task": task})
    kept = KeptTree(Path("x"), scored, TokenTable(tuple(text.encode() for text in table), frozenset(SPECIAL.values())))
    assert kept.message == "2+3?"
    assert kept.prompt == "".join(prompt)


def test_the_picture_is_well_formed_and_holds_no_foreign_markup() -> None:
    svg = ElementTree.fromstring(render_tree_svg(describe_nodes(TREE, "a?", VOCABULARY)))
    boxes = [rectangle for rectangle in svg.iter("rect") if rectangle.get("rx") == "6"]
    assert len(boxes) == 6
    assert not list(svg.iter("script"))
    texts = ["".join(text.itertext()) for text in svg.iter("text")]
    assert "<script> ✂" in texts


def test_a_saved_picture_stands_alone() -> None:
    text = draw_page(describe_nodes(TREE, "a?", VOCABULARY))
    svg = ElementTree.fromstring(text)
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert "monospace" in "".join(svg.itertext())
    assert svg[1].get("fill") == "#fff"


def test_boxes_do_not_overlap() -> None:
    svg = ElementTree.fromstring(render_tree_svg(describe_nodes(TREE, "a?", VOCABULARY)))
    areas = [
        tuple(float(rectangle.get(name, "")) for name in ("x", "y", "width", "height"))
        for rectangle in svg.iter("rect")
        if rectangle.get("rx") == "6"
    ]
    for number, (x, y, width, height) in enumerate(areas):
        for other_x, other_y, *_ in areas[number + 1 :]:
            assert abs(other_x - x) >= min(width, 1) or abs(other_y - y) >= height


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has trained for a few steps and kept two trees and a broken file."""
    run = RunDirectory(tmp_path / "runs" / "mine")
    run.make()
    run.trees.mkdir()
    run.policy.mkdir()
    source = checkpoint_directory() / "tokenizer.json"
    (run.policy / "tokenizer.json").write_bytes(source.read_bytes())
    run.config.write_text("[learner]\nmodel = 'gone'\n[verifier.kinds.own]\ntoken = 's3cret'\nurl = '<script>'\n")
    for name in ("last-0", "sample-0"):
        (run.trees / f"{name}.msgpack").write_bytes(TREE.pack())
    (run.trees / "last-1.msgpack").write_bytes(b"half")
    figures = [StepFigures(step=step, trees=24, eff_rate=0.5, entropy=0.2, avg_rate=0.4) for step in (1, 2, 3)]
    run.metrics.write_text("".join(f"{one.model_dump_json()}\n" for one in figures))
    return run


def test_kept_trees_are_found_and_a_broken_file_is_ignored(run: RunDirectory) -> None:
    assert sorted(kept.path.stem for kept in load_kept_trees(run)) == ["last-0", "sample-0"]


def test_a_runs_trees_are_listed_and_rendered(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_run(run.root.parent, "mine", None) == 0
    assert "sample-0" in capsys.readouterr().out
    assert show_run(run.root.parent, "mine", "sample-0") == 0
    assert "ib tree of 3 answers" in capsys.readouterr().out
    assert show_file(run.trees / "last-0.msgpack", run.policy) == 0
    assert "ib tree of 3 answers" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="no tree '9': give a number from 1 to 2"):
        show_run(run.root.parent, "mine", "9")


@pytest.mark.parametrize("width", [40, 80])
def test_no_number_of_a_list_is_cut_off(
    run: RunDirectory, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show_run(run.root.parent, "mine", None)
    head, row, *_ = capsys.readouterr().out.splitlines()[1:]
    assert head.split()[:3] == ["file", "root", "IB-Score"]
    figures = TREE.figures()
    assert row.split()[2:4] == [f"{figures.root_value:.2f}", f"{figures.ib_score:+.3f}"]


@pytest.mark.parametrize("sampler", [None, RandomSampler(initial_draws=2, rounds=1)])
def test_list_tree_page_and_picture_score_with_the_trees_own_settings(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], sampler: AnySampler | None
) -> None:
    tree = ScoredTree.unpack(make_tree(*TREE.draws, beta=2.0, sampler=sampler).pack())
    for name in ("last-0", "sample-0"):
        (run.trees / f"{name}.msgpack").write_bytes(tree.pack())
    root, first, *_ = describe_nodes(tree, "a?", VOCABULARY)
    score_of_first = 3 / 2 * (0.5 * (2 - 1.5) + 0.5 * (0 - 1.5))
    score_of_root = 3 / 2 * (0.5 * (1.5 - 1.5) + 0.5 * (0 - 1.5))
    assert (root.ib_score, first.ib_score) == pytest.approx((score_of_root, score_of_first))
    assert tree.figures().ib_score == pytest.approx((score_of_root + score_of_first) / 2)
    mean = f"{tree.figures().ib_score:+.3f}"
    show_run(run.root.parent, "mine", None)
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[2:4]] == [mean, mean]
    show_run(run.root.parent, "mine", "last-0")
    assert f"IB-Score {mean}" in capsys.readouterr().out
    page = write_report(run).read_text()
    assert page.count(f"IB-Score {mean}") == 2
    assert page.count(f"IB-Score {root.ib_score:+.3f}") == 2


def test_a_tree_of_another_model_is_shown_as_far_as_its_tokens_are_known(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TREE.task.model_copy(update={"prompt_ids": (A, 10_000)})
    (run.trees / "other.msgpack").write_bytes(TREE.model_copy(update={"task": task}).pack())
    assert show_file(run.trees / "other.msgpack", run.policy) == 0
    assert "ib tree of 3 answers" in capsys.readouterr().out


def test_a_file_that_is_no_tree_is_refused(run: RunDirectory) -> None:
    with pytest.raises(InvalidInput, match="not a scored tree"):
        load_tree(run.trees / "last-1.msgpack", run.policy)


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": null}', '{"model": {"vocab": {}}, "added_tokens": [1]}'])
def test_a_tree_is_not_shown_with_a_file_that_is_no_tokenizer(run: RunDirectory, text: str) -> None:
    (run.policy / "tokenizer.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"policy has no tokenizer.json that can be read \(.*give a model directory"):
        load_tree(run.trees / "last-0.msgpack", run.policy)


def test_the_report_stands_alone(run: RunDirectory) -> None:
    page = write_report(run).read_text()
    assert "broken off: it has not taken its last step" in page
    assert page.count('<svg class="tree"') == 2
    assert page.count("<figure>") == len(list(run.plots.glob("*.svg"))) >= 3
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http" not in page
    assert "s3cret" not in page
    assert "<script>" not in page, "the texts of trees and settings are escaped"


def test_the_report_of_a_finished_run_tells_its_summary(run: RunDirectory) -> None:
    numbers = dict.fromkeys(figures_in(RunSummary), 0.375)
    facts = {"sampler": "ib", "method": "grpo", "lr": 5e-4, "data": ["a.jsonl", "b.jsonl"], "commit": "abc123"}
    summary = {"seed": 3, "k": 8, **numbers, **facts}
    run.summary.write_text(json.dumps(summary))
    page = write_report(run).read_text()
    cards = figures_in(RunSummary, Shown.CARD)
    for name, figure in cards.items():
        assert f"<b>{figure.text(numbers[name])}</b><span>{figure.title}</span>" in page, name
    facts = page.partition("How it went")[0]
    for name, shown in (("method", "grpo"), ("lr", "0.0005"), ("data", "a.jsonl, b.jsonl"), ("commit", "abc123")):
        assert f'<tr><th scope="row">{name}</th><td class="wide">{shown}</td></tr>' in facts


def test_the_report_begins_with_accuracy_before_and_after_of_each_set(run: RunDirectory) -> None:
    version = WeightVersion(1, 0)
    lines = [
        make_evaluation({"a": [[1.0, 0.0], [0.0, 0.0]], "b": [[0.0, 0.0]]}, 0, version, 2),
        make_evaluation({"a": [[1.0, 1.0], [1.0, 0.0]], "b": [[1.0, 0.0]]}, 9, version, 2),
    ]
    run.metrics.write_text("".join(f"{json.dumps(line.flat())}\n" for line in lines))
    for step, rewards in ((0, ((1.0, 0.0), (0.0, 0.0))), (9, ((1.0, 1.0), (1.0, 0.0)))):
        file = ResultsFile(run.evaluations / str(step), "a")
        file.begin(Header(set="a", weights=""), {str(n): result(n, one) for n, one in enumerate(rewards)})
    rows = re.findall(r"<tr>.*?</tr>", write_report(run).read_text().partition("<h2>Evaluations")[0], re.DOTALL)
    cells = [re.sub(r"\s*<[^>]*>\s*", "|", row).strip("|") for row in rows]
    found = [re.sub(r"\|+", "|", row) for row in cells]
    for expected in (
        "average|2|0.125 ± 0.125|0.625 ± 0.125|–|0.625 ± 0.125|0.250 → 1.000|3|9",
        "a|2|0.250 ± 0.250|0.750 ± 0.250|+0.500 ± 0.000|0.750 ± 0.250|0.500 → 1.000|2|9",
        "b|2|0.000 ± 0.000|0.500 ± 0.000|–|0.500 ± 0.000|0.000 → 1.000|1|9",
    ):
        assert expected in found


def test_the_report_says_what_it_means_that_pass_at_k_falls(run: RunDirectory) -> None:
    version = WeightVersion(1, 0)
    lines = [
        make_evaluation({"a": [[1.0, 0.0], [1.0, 0.0]]}, 0, version, 2),
        make_evaluation({"a": [[1.0, 1.0], [0.0, 0.0]]}, 5, version, 2),
        make_evaluation({"a": [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]}, 9, version, 2),
    ]
    for number, is_said in ((1, False), (2, False), (3, False)):
        run.metrics.write_text("".join(f"{line.model_dump_json()}\n" for line in lines[:number]))
        assert ("settles on fewer" in write_report(run).read_text()) == is_said
    better = make_evaluation({"a": [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]}, 9, version, 2)
    run.metrics.write_text("".join(f"{line.model_dump_json()}\n" for line in (lines[0], better)))
    assert "settles on fewer" in write_report(run).read_text()
