"""Trees of given answers: their nodes, figures and credit, how they are drawn, saved and refused."""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ibtpo

HOSTILE = "</text><script>alert(1)</script>\x1b[2J\x00 & ‮"


@pytest.fixture
def tree() -> ibtpo.Tree:
    """Two answers share a first step, a third one does not; p̂ of the shared step is 1/2."""
    return ibtpo.Tree.from_answers(["a\n\nb", "a\n\nc", "d"], [1, 0, 0], prompt="which?")


def test_equal_beginnings_are_one_node(tree: ibtpo.Tree) -> None:
    assert [(node.text.strip(), node.parent, node.num_leaves) for node in tree.nodes] == [
        ("which?", None, 3),
        ("a", 0, 2),
        ("b", 1, 1),
        ("c", 1, 1),
        ("d", 0, 1),
    ]
    assert [answer.text for answer in tree.answers] == ["a\n\nb", "a\n\nc", "d"]
    assert [answer.nodes for answer in tree.answers] == [(1, 2), (1, 3), (4,)]
    assert (tree.rewards, tree.root_value, len(tree)) == ((1, 0, 0), pytest.approx(1 / 3), 3)


def test_a_step_without_a_probability_has_that_of_the_answers_which_take_it(tree: ibtpo.Tree) -> None:
    assert [node.eta2 for node in tree.nodes] == [None, *map(pytest.approx, (2 / 3, 1 / 2, 1 / 2, 1 / 3))]


def test_scores_are_those_of_the_formula(tree: ibtpo.Tree) -> None:
    scores = ibtpo.score(tree, beta=2)
    bound = 1 + 1 / 2
    assert scores["value"] == pytest.approx([1 / 3, 1 / 2, 1, 0, 0])
    assert scores["eta1"][1:] == pytest.approx([3 / 2 - bound, 2 - bound, -bound, -bound])
    draws_of_root = (2 * (3 / 2 - bound) * 2 / 3 + (-bound) / 3) / 3
    assert scores["ib_score"][0] == pytest.approx(3 * draws_of_root)
    assert scores["ib_score"][1] == pytest.approx(3 * ((2 - bound) / 2 + (-bound) / 2) / 2)
    assert scores["ib_score"][2:] == [None, None, None]


def test_what_is_not_given_is_as_the_tree_was_grown(tree: ibtpo.Tree) -> None:
    assert ibtpo.score(tree)["ib_score"] == [node.ib_score for node in tree.nodes]
    assert ibtpo.score(tree, confidence="joint")["eta2"] == ibtpo.score(tree)["eta2"]  # steps are tokens here


def test_credit_is_the_learners(tree: ibtpo.Tree) -> None:
    of_answers = ibtpo.credit(tree, "dr-grpo").advantages
    assert of_answers == ((pytest.approx(2 / 3),) * 2, (pytest.approx(-1 / 3),) * 2, (pytest.approx(-1 / 3),))
    steps = ibtpo.credit(tree, lam=0, epsilon=0).steps
    deviation = math.sqrt(2 / 9)
    assert [row["node"] for row in steps.rows] == [1, 2, 1, 3, 4]
    wanted = [(p - 1 / 3) / deviation for p in (1 / 2, 1, 1 / 2, 0, 0)]
    assert steps["advantage"] == pytest.approx(wanted, abs=1e-6)


def test_an_answer_that_was_not_judged_has_no_credit() -> None:
    tree = ibtpo.Tree.from_answers(["a", "b", "c"], [1, None, 0])
    credited = ibtpo.credit(tree)
    assert [one is None for one in credited.advantages] == [False, True, False]
    assert tree.answers[1].nodes == ()


def test_a_saved_tree_is_the_same_without_its_model(tree: ibtpo.Tree, tmp_path: Path) -> None:
    loaded = ibtpo.Tree.load(tree.save(tmp_path / "tree.msgpack"))
    assert [node.text for node in loaded.nodes] == [node.text for node in tree.nodes]
    assert [node.ib_score for node in loaded.nodes] == pytest.approx([node.ib_score for node in tree.nodes], abs=1e-6)
    with pytest.raises(ibtpo.InvalidInput, match="cannot write"):
        tree.save(tmp_path / "missing" / "tree.msgpack")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ibtpo.InvalidInput, match="not a scored tree"):
        ibtpo.Tree.load(tmp_path / "other")


def test_a_tree_is_plain_data(tree: ibtpo.Tree) -> None:
    data = json.loads(json.dumps(tree.to_dict()))
    assert (data["prompt"], len(data["nodes"]), data["answers"][0]["reward"]) == ("which?", 5, 1.0)


def test_what_models_write_acts_on_nothing(tmp_path: Path) -> None:
    tree = ibtpo.Tree.from_answers([HOSTILE, HOSTILE + "\n\nb"], [1, 0], prompt=HOSTILE)
    shown = (str(tree), tree._repr_html_(), ibtpo.score(tree)._repr_html_(), ibtpo.credit(tree)._repr_html_())
    for text in shown[1:]:
        assert "<script" not in text
    for text in shown[:2]:
        assert not re.search("[\x00\x1b\u202e]", text)
    ElementTree.fromstring(tree.save(tmp_path / "tree.svg").read_text(encoding="utf-8"))  # is XML


def test_a_tree_shows_itself(tree: ibtpo.Tree) -> None:
    assert "IB-Score" in str(tree)
    assert "#3 d" in str(tree)
    assert tree._repr_html_().startswith('<div class="ibtpo-tree">')
    assert "of 3 answers" in repr(tree)


@pytest.mark.parametrize(
    ("answers", "rewards", "reason"),
    [
        ([], [], "1 to 4096 answers"),
        (["a"], [1, 0], "answers: 1, rewards: 2"),
        (["a"], [2], r"a reward lies in \[0, 1\]"),
        (["a"], ["right"], r"a reward lies in \[0, 1\]"),
        ([""], [1], "an answer is a text, or the texts of its steps"),
        ([["a", ""]], [1], "an answer is a text, or the texts of its steps"),
    ],
)
def test_what_is_no_tree_is_refused(answers: list[str], rewards: list[float], reason: str) -> None:
    with pytest.raises(ibtpo.InvalidInput, match=reason):
        ibtpo.Tree.from_answers(answers, rewards)


def test_logprobs_of_steps_are_used_and_counted() -> None:
    tree = ibtpo.Tree.from_answers([["a", "b"], ["c"]], [1, 0], logprobs=[[-1.0, -2.0], [-3.0]])
    assert [node.eta2 for node in tree.nodes[1:]] == pytest.approx([math.exp(-1), math.exp(-2), math.exp(-3)])
    with pytest.raises(ibtpo.InvalidInput, match="logprobs"):
        ibtpo.Tree.from_answers(["a"], [1], logprobs=[[-1.0, -2.0]])
