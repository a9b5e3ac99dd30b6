"""Public answers with known verdicts: no false positive, and every false negative has its reason."""

from services.verifier.checks.math.comparing.equivalence import Equivalence
from tests.verifier.judging import find, is_right, rows_of

# math-verify's expectations that are not met here, and why; docs/verifier-math.md has the reasons.
UNBOXED = "the answer is in the running text, not stated as final"
WITH_PROSE = "the box (put around the whole prediction for this test) holds a sentence"
CONTRADICTION = "a chain of equalities that contradicts itself"
NOT_MET = {
    "test_all::test_number_extraction[13]": WITH_PROSE,
    "test_all::test_number_extraction[15]": WITH_PROSE,
    "test_all::test_number_extraction[16]": WITH_PROSE,
    "test_all::test_latex_notation[0]": WITH_PROSE,
    "test_all::test_latex_notation[7]": WITH_PROSE,
    "test_all::test_latex_notation[8]": WITH_PROSE,
    "test_all::test_matrix_extraction[3]": WITH_PROSE,
    "test_all::test_matrix_extraction[4]": WITH_PROSE,
    "test_all::test_math_extraction_additional_cases[4]": WITH_PROSE,
    "test_all::test_latex_notation_math[3]": UNBOXED,
    "test_all::test_math_extraction_edge_cases[0]": UNBOXED,
    "test_all::test_math_extraction_edge_cases[2]": UNBOXED,
    "test_all::test_math_extraction_edge_cases[6]": UNBOXED,
    "test_all::test_math_extraction_additional_cases[2]": UNBOXED,
    "test_all::test_math_extraction_additional_cases[8]": UNBOXED,
    "test_all::test_math_extraction_additional_cases[14]": UNBOXED,
    "test_all::test_math_extraction_additional_cases[15]": UNBOXED,
    "test_all::test_relations_math[10]": CONTRADICTION,
    "test_all::test_relations_math[13]": CONTRADICTION,
    "test_all::test_relations_math[26]": CONTRADICTION,
    "test_all::test_matrix_extraction[5]": "a sum of matrices, left to its reader (and a sentence around it)",
    "test_all::test_complex_math_expressions[13]": "2.6667 for 8/3: rounded",
    "test_all::test_set_rel_assymetry[2]": "an inequality for a gold interval, which math-verify takes only if told to",
    "test_numina_cases::test_numina_cases[24]": "W(x) for a gold that names W(n)",
    "test_yujianll::test_string_extraction[9]": "1 + 1/e for 1 - 1/e: the expectation is wrong",
}
# Those that take a worker; the same rows are judged by workers in test_math_workers.py.
BY_WORKER = {
    "test_yujianll::test_string_extraction[4]",
}


def test_every_chain_of_gsm8k_is_right_and_no_other_number_is() -> None:
    rows = rows_of("gsm8k.jsonl.gz")
    golds = [row["gold"] for row in rows]
    assert len(rows) == 1319
    assert all(is_right(row["gold"], row["response"]) for row in rows)
    for gold, other in zip(golds, golds[1:] + golds[:1], strict=True):
        same = gold.replace(",", "") == other.replace(",", "")
        assert is_right(gold, rf"\boxed{{{other}}}") == same, (gold, other)


def test_every_solution_of_math500_is_right_and_no_other_answer_is() -> None:
    rows = rows_of("math500.jsonl.gz")
    golds = [row["gold"] for row in rows]
    assert len(rows) == 500
    assert [row["id"] for row in rows if not is_right(row["gold"], row["response"])] == []
    taken = {
        (gold, other)
        for shift in (1, 2, 3)
        for gold, other in zip(golds, golds[shift:] + golds[:shift], strict=True)
        if gold != other and is_right(gold, rf"\boxed{{{other}}}")
    }
    assert taken <= {("x=5", "5"), ("5", "x=5"), ("\\frac{14}{3}", "\\frac{14}{3}")}


def test_labelled_answers_of_a_model_are_judged_as_labelled() -> None:
    """But for nine that are right and labelled wrong: the time of day with its p.m., and 10000 for 10{,}000."""
    rows = rows_of("labelled_answers.jsonl.gz")
    differing = [row for row in rows if is_right(row["gold"], row["response"]) != row["right"]]
    assert len(rows) == 800
    assert {row["gold"] for row in differing} == {"\\text{4:30 p.m.}", "10{,}000"}
    assert not any(row["right"] for row in differing)


def test_math_verify_s_expectations_are_met_but_for_those_explained() -> None:
    not_met, false_positives, by_worker = set(), set(), set()
    for row in rows_of("math_verify_expectations.jsonl.gz"):
        prediction = row["pred"]
        if "\\boxed" not in prediction and len(prediction) < 120:
            prediction = rf"\boxed{{{prediction}}}"
        found = find(row["gold"], prediction)
        equivalence = Equivalence.DIFFERENT if found is None else found.equivalence
        if equivalence is Equivalence.UNKNOWN:
            by_worker.add(row["id"])
        elif equivalence is Equivalence.SAME and not row["expected"]:
            false_positives.add(row["id"])
        elif equivalence is Equivalence.DIFFERENT and row["expected"]:
            not_met.add(row["id"])
    assert false_positives == set()
    assert not_met == NOT_MET.keys()
    assert by_worker == BY_WORKER


def test_string_equality_s_expectations_are_met_but_for_the_order_of_lists() -> None:
    rows = rows_of("is_equiv_expectations.jsonl")
    differing = {row["id"] for row in rows if is_right(row["a"], rf"\boxed{{{row['b']}}}") != row["expected"]}
    assert differing == {"test_order", "test_decimals"}


def test_no_wrong_public_answer_is_accepted() -> None:
    rows = rows_of("public_answers.jsonl.gz")
    assert len(rows) == 992
    assert [row["id"] for row in rows if not row["right"] and is_right(row["gold"], row["response"])] == []


def test_competition_golds_accept_themselves_and_none_with_a_digit_changed() -> None:
    """But for some that take a worker: golds with dots, or with floors of variables."""
    differing = []
    for row in rows_of("competition_answers.jsonl.gz"):
        found = find(row["gold"], row["response"])
        if found is None or found.equivalence is not (Equivalence.SAME if row["right"] else Equivalence.DIFFERENT):
            differing.append(found and found.equivalence)
    assert differing.count(Equivalence.UNKNOWN) == len(differing) <= 15


def test_no_hostile_answer_is_rewarded_and_no_honest_one_refused() -> None:
    for row in rows_of("math_attacks.jsonl.gz"):
        found = find(row["gold"], row["payload"])
        is_rewarded = found is not None and found.equivalence is Equivalence.SAME
        assert is_rewarded == (row["expected"] == "accept"), row["id"]
        assert found is None or found.equivalence is not Equivalence.UNKNOWN, f"{row['id']} needs no worker"
