"""The learner's Prometheus series."""

from services.learner.metrics import LearnerMetrics, StepResult
from shared.protocol.figures import Shown, StepFigures, figures_in
from tests.learner.evaluations import make_evaluation
from tests.learner.synthetic import V0


def test_every_declared_series_has_the_value_of_the_step_and_its_help() -> None:
    metrics = LearnerMetrics()
    values = {name: number for number, name in enumerate(figures_in(StepFigures))}
    metrics.record_step(StepFigures(**values), StepResult.UPDATED)
    helps = {metric.name: metric.documentation for metric in metrics.registry.collect()}
    for where, suffix in ((Shown.GAUGE, ""), (Shown.COUNTER, "_total")):
        for name, figure in figures_in(StepFigures, where).items():
            assert metrics.registry.get_sample_value(f"ibtpo_learner_{name}{suffix}") == values[name], name
            assert helps[f"ibtpo_learner_{name}"] == figure.help


def test_loss_terms_of_ones_own_have_series_up_to_a_bound() -> None:
    metrics = LearnerMetrics()
    own_terms = {f"my_pkg.terms:Term {number}": number / 2 for number in range(40)}
    metrics.record_step(StepFigures(step=1, own_terms=own_terms), StepResult.UPDATED)
    (family,) = (one for one in metrics.registry.collect() if one.name == "ibtpo_learner_own_term")
    assert {one.labels["term"]: one.value for one in family.samples} == dict([*own_terms.items()][:16])


def test_the_engine_gap_is_shown_though_evaluations_alone_have_one() -> None:
    metrics = LearnerMetrics()
    metrics.record_step(StepFigures(step=1), StepResult.UPDATED)
    assert metrics.registry.get_sample_value("ibtpo_learner_engine_gap") is None
    evaluation = make_evaluation({"held_out": [[1.0, 0.0]]}, 1, V0, 2)
    metrics.record_evaluation(evaluation.model_copy(update={"engine_gap": 0.25}))
    assert metrics.registry.get_sample_value("ibtpo_learner_engine_gap") == 0.25


def test_every_held_out_set_has_its_accuracy_and_their_average_is_of_all_of_them() -> None:
    metrics = LearnerMetrics()
    metrics.record_evaluation(make_evaluation({"a": [[1.0, 0.0], [1.0, 1.0]], "b": [[0.0, 0.0]]}, 1, V0, 2))
    for labels, value in (
        ({"set": "a", "measure": "avg_at_k"}, 0.75),
        ({"set": "a", "measure": "standard_error"}, 0.25),
        ({"set": "a", "measure": "pass_at_k"}, 1.0),
        ({"set": "b", "measure": "avg_at_k"}, 0.0),
    ):
        assert metrics.registry.get_sample_value("ibtpo_learner_held_out_set_accuracy", labels) == value
    assert metrics.registry.get_sample_value("ibtpo_learner_held_out_accuracy", {"measure": "avg_at_k"}) == 0.375
    some = make_evaluation({"a": [[0.0, 0.0]]}, 2, V0, 2).model_copy(update={"is_partial": True})
    metrics.record_evaluation(some)
    assert metrics.registry.get_sample_value("ibtpo_learner_held_out_accuracy", {"measure": "avg_at_k"}) == 0.375
    assert (
        metrics.registry.get_sample_value("ibtpo_learner_held_out_set_accuracy", {"set": "a", "measure": "avg_at_k"})
        == 0.0
    )
