"""A run's status as it goes on: the live view, and a line per step."""

import io

import pytest
from rich.console import Console

from services.launcher.display.view import LineView, LiveView, choose_view, format_duration, format_step, render_status
from services.launcher.runs.history import History
from shared.protocol.figures import Shown, StepFigures, figures_in
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Accounts, Evaluation, RunState, RunStatus
from shared.tree.draw import WeightVersion


def evaluation(step: int, accuracy: float) -> Evaluation:
    version = WeightVersion(1, step)
    return Evaluation(
        step=step, version=version, k=8, avg_at_k=accuracy, pass_at_k=0.9, problems=200, standard_error=0.02
    )


def status(step: int, **changes: object) -> RunStatus:
    figures = StepFigures(
        step=step,
        trees=24,
        avg_rate=0.5,
        root_value=0.4,
        eff_rate=0.75,
        ib_score=-0.8,
        cov_eta=0.01,
        entropy=0.2,
        tokens_per_second=5120.4,
    )
    replicas = tuple(
        ReplicaInfo(name=name, url="http://x", state=state, version=version, trees_in_flight=7)
        for name, state, version in (
            ("rollout-1", ReplicaState.SERVING, WeightVersion(1, step)),
            ("rollout-2", ReplicaState.WAITING, None),
        )
    )
    values: dict[str, object] = {
        "run": "mine",
        "state": RunState.TRAINING,
        "version": WeightVersion(1, step),
        "step": step,
        "total_steps": 40,
        "seconds": 65.0,
        "eta_seconds": 3700.0,
        "figures": figures,
        "accounts": Accounts(fed=50, used=24, stale=2, outstanding=24),
        "evaluations": (evaluation(0, 0.25), evaluation(20, 0.5)),
        "replicas": replicas,
        "queued_tasks": 3,
    }
    return RunStatus.model_validate(values | changes)


def render(*statuses: RunStatus, width: int = 120) -> str:
    history = History()
    for one in statuses:
        history.add(one)
    console = Console(file=io.StringIO(), width=width)
    console.print(render_status(statuses[-1], history))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_status_shows_what_is_watched() -> None:
    text = render(status(1), status(2))
    for part in (
        "mine · training",
        "step 2 of 40",
        "1:05 elapsed · ETA 1:01:40",
        "Eff-Rate",
        "Cov(η₁, η₂)",
        "5,120",
        "rollout-2  waiting  –",
        "1.2",
        "50 = 24 used",
        "avg@8 0.500 ± 0.020, pass@8 0.900 (200 problems)",
        "from 0.250 before",
    ):
        assert part in text, part


def test_every_figure_declared_for_the_terminal_is_in_it() -> None:
    values = dict.fromkeys(figures_in(StepFigures), 0.5)
    shown = status(1, figures=StepFigures.model_construct(step=1, **values))
    screen, line = render(shown), format_step(shown)
    for figure in figures_in(StepFigures, Shown.VIEW).values():
        assert figure.title in screen
    for figure in figures_in(StepFigures, Shown.LINE).values():
        assert figure.phrase(0.5) in line


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_the_status_fits_any_terminal(width: int) -> None:
    assert max(map(len, render(status(1), width=width).splitlines())) <= width


def test_a_run_that_has_just_begun_is_rendered_too() -> None:
    assert "starting" in render(RunStatus(run="mine", state=RunState.STARTING))


def test_without_a_terminal_there_is_one_line_per_step_and_evaluation() -> None:
    console = Console(file=io.StringIO(), width=80)
    view = LineView(console)
    for one in (status(1, evaluations=()), status(1), status(2), status(2, state=RunState.FINISHED)):
        view.show(one)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line[9:].split(" · ")[0] for line in lines] == [
        "training",
        "step 1/40",
        "held out, step 0: avg@8 0.250 ± 0.020, pass@8 0.900 (200 problems)",
        "held out, step 20: avg@8 0.500 ± 0.020, pass@8 0.900 (200 problems)",
        "step 2/40",
        "finished",
    ]


@pytest.mark.parametrize(("terminal", "plain", "ci"), [(False, False, ""), (True, True, ""), (True, False, "1")])
def test_the_live_view_is_for_a_person(terminal: bool, plain: bool, ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert isinstance(choose_view(console, History(), plain=plain), LineView)


def test_the_live_view_renders_what_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    view = choose_view(console, History(), plain=False)
    assert isinstance(view, LiveView)
    view.say("starting redis")
    view.show(status(3))
    view.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "starting redis" in text
    assert "step 3 of 40" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3725, "1:02:05")]
)
def test_durations_read_as_clocks(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text
