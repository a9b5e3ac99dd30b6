"""The table of figures: complete, and without contradictions."""

import pytest

from shared.protocol.figures import Figure, HeldOutFigures, RunSummary, Shown, StepFigures, charts, figures_in
from shared.protocol.message import Message

NO_FIGURES = {
    *("step", "steps", "sampler", "seed", "run", "advantage", "lr", "model", "data", "held_out", "version", "commit"),
    *("warning", "k", "method", "sets", "time", "run_seconds", "own_terms"),
    *HeldOutFigures.model_fields,  # of evaluations, which the view and the report show themselves
}
MESSAGES = (StepFigures, RunSummary)
FIGURES = [
    pytest.param(figure, id=f"{message.__name__}.{name}")
    for message in MESSAGES
    for name, figure in figures_in(message).items()
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_number_is_a_figure(message: type[Message]) -> None:
    assert message.model_fields.keys() - figures_in(message).keys() <= NO_FIGURES


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_shown_somewhere_and_explained(figure: Figure) -> None:
    assert figure.shown
    assert figure.label
    assert figure.help
    assert not figure.help.endswith("."), "panels and plots put sentences together"
    assert figure.text(0.25)
    assert figure.text(None) == "–"


@pytest.mark.parametrize("figure", FIGURES)
def test_a_panel_has_a_series(figure: Figure) -> None:
    if figure.shown & (Shown.BALANCE | Shown.THROUGHPUT):
        assert Shown.GAUGE in figure.shown


@pytest.mark.parametrize("where", [Shown.PLOT, Shown.BALANCE, Shown.THROUGHPUT])
def test_figures_of_one_chart_have_one_unit_and_one_style(where: Shown) -> None:
    shown = list(charts(where))
    assert {name for chart in shown for name in chart.figures} == figures_in(StepFigures, where).keys()
    assert len({chart.title for chart in shown}) == len(shown)
    for chart in shown:
        assert len({(figure.unit, figure.style) for figure in chart.figures.values()}) == 1
        for figure in chart.figures.values():
            assert figure.help in chart.description


def test_a_value_is_written_with_its_label_and_unit() -> None:
    figures = figures_in(StepFigures)
    assert figures["tokens_per_second"].phrase(5120.4) == "throughput 5,120 tokens/s"
    assert figures["eff_rate"].phrase(0.75) == "Eff-Rate 0.750"
    assert (figures["entropy"].title, figures["eff_rate"].title) == ("entropy, nats/token", "Eff-Rate")


def test_the_schema_of_a_status_explains_its_figures() -> None:
    schema = StepFigures.model_json_schema()["properties"]["kl"]
    assert (schema["title"], schema["description"]) == ("KL, nats/token", f"{figures_in(StepFigures)['kl'].help}.")
