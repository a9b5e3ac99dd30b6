"""A run's status as it goes on: the live view, and a line per step."""

import io

import pytest
from rich.console import Console

from services.launcher.display.durations import format_duration, format_progress
from services.launcher.display.view import (
    LineView,
    LiveView,
    choose_view,
    format_step,
    render_status,
)
from services.launcher.display.waits import wait_lines
from services.launcher.runs.history import History
from shared.protocol.figures import Shown, StepFigures, figures_in
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Accounts, Evaluation, RunState, RunStatus, SetAccuracy
from shared.protocol.waiting import Waiting, WaitKind
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
        "rollout-2 waiting –",
        "rollout-1 serving v2, 7 trees",
        "50 = 24 used",
        "avg@8 0.500 ± 0.020, pass@8 0.900 (200 problems)",
        "from 0.250 before",
    ):
        assert part in text, part


def with_sets(accuracy: float) -> Evaluation:
    measured = {"avg_at_k": accuracy, "pass_at_k": 0.75, "maj_at_k": 0.625, "problems": 100, "standard_error": 0.05}
    sets = tuple(SetAccuracy(name=name, k=16, **measured) for name in ("gsm8k", "aime-2024-and-2025"))
    return evaluation(int(100 * accuracy), accuracy).model_copy(update={"k": None, "sets": sets})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_each_held_out_set_has_a_line(width: int) -> None:
    lines = render(status(2, evaluations=(with_sets(0.25), with_sets(0.5))), width=width).replace("│", " ")
    for part in (
        "average       avg@k 0.500 ± 0.020  pass@k 0.900 +0.250",
        "gsm8k         avg@16 0.500 ± 0.050  pass@16 0.750  maj@16 0.625 +0.250",
        "aime-2024-a…  avg@16 0.500 ± 0.050  pass@16 0.750  maj@16 0.625 +0.250",
    ):
        assert part in lines or (width < 80 and part.split()[0] in lines), part
    console = Console(file=io.StringIO(), width=width)
    LineView(console).show(status(1, evaluations=(with_sets(0.5),)))
    line = "gsm8k, step 50: avg@16 0.500 ± 0.050, pass@16 0.750, maj@16 0.625 (100 problems)\n"
    assert line in console.file.getvalue()  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("width", [40, 50, 80])
def test_a_small_terminal_shows_accuracy_and_the_books_first(width: int) -> None:
    text = " ".join(render(status(1), status(2), width=width).replace("│", " ").split("root value")[0].split())
    for part in ("avg@8 0.500 ± 0.020, pass@8 0.900 (200 problems)", "0 failed + 24 outstanding"):
        assert part in text
    assert "…" not in render(status(2), width=width)


def test_a_low_terminal_has_room_for_the_whole_status() -> None:
    assert len(render(status(1), status(2, message="waiting"), width=80).splitlines()) <= 24


def test_what_a_replica_loads_and_what_is_wrong_with_it_stands_beside_it() -> None:
    serving, waiting = status(1).replicas
    loading = serving.model_copy(update={"loading": WeightVersion(1, 2)})
    refused = waiting.model_copy(update={"problem": "the learner refuses its token"})
    text = " ".join(render(status(1, replicas=(loading, refused))).split())
    assert "rollout-1 serving v1, 7 trees, loads v2" in text
    assert "rollout-2 waiting –, 7 trees (the learner refuses its token)" in text


def test_many_replicas_are_counted_by_state() -> None:
    replica = status(1).replicas[0]
    many = tuple(replica.model_copy(update={"name": f"r{number}"}) for number in range(64))
    assert "64 serving" in render(status(1, replicas=many))
    lacking = [replica.model_copy(update={"name": f"bare-{n}", "problem": "my_pkg is not here"}) for n in range(5)]
    text = " ".join(render(status(1, replicas=(*many, *lacking)), width=200).split())
    assert "69 serving · bare-0 (my_pkg is not here) · bare-1 (my_pkg is not here) · bare-2" in text
    assert "2 more in trouble" in text


def waiting_for(**changes: object) -> Waiting:
    values: dict[str, object] = {
        "kind": WaitKind.EVALUATION,
        "what": "evaluation at step 0",
        "since": 1000.0,
        "moved": 1090.0,
        "done": 12,
        "total": 64,
        "unit": "problems",
        "eta_seconds": 70.0,
    }
    return Waiting.model_validate(values | changes)


def test_a_run_that_waits_says_for_what_since_when_and_what_helps() -> None:
    evaluating = status(0, state=RunState.EVALUATING, time=1094.6, waiting_for=waiting_for())
    assert list(wait_lines(evaluating)) == [
        "waits for evaluation at step 0: 12 of 64 problems, for 1:35, about 1:10 left"
    ]
    uncounted = waiting_for(moved=1000.0, done=None, eta_seconds=None)
    alone = uncounted.model_copy(update={"detail": "no replica has announced itself", "remedy": "start one"})
    stuck = status(0, replicas=(), time=1095.0, waiting_for=alone, message="3 rows are left out")
    assert list(wait_lines(stuck)) == [
        "waits for evaluation at step 0: for 1:35",
        "no replica has announced itself",
        "3 rows are left out",
        "start one",
    ]
    slow = status(0, state=RunState.STOPPING, time=1150.0, waiting_for=waiting_for())
    assert "stop requested, waits for" in next(wait_lines(slow))
    assert "the last 1:00 ago" in next(wait_lines(slow))
    short = status(3, time=1001.0, waiting_for=waiting_for())
    assert list(wait_lines(short)) == []
    assert list(wait_lines(status(3, message="Redis is away"))) == ["Redis is away"]
    assert list(wait_lines(status(0, replicas=()))) == ["no replica serves yet"]
    assert list(wait_lines(status(3, state=RunState.FINISHED, replicas=()))) == []


def test_a_learner_that_does_not_answer_is_said() -> None:
    lines = list(wait_lines(status(3, time=1000.0), now=1020.0))
    assert lines == ["the learner has not answered for 0:20; what it said last:"]


def test_a_long_wait_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: now)
    console = Console(file=io.StringIO(), width=80)
    view = LineView(console)
    view.say("starting learner")
    for now in range(1000, 1021):
        view.wait_for(f"starting learner {now - 1000} s: loading model")
    for now in range(1021, 1041):
        waiting = waiting_for(since=1021.0, moved=1021.0)
        view.show(status(1, state=RunState.EVALUATING, evaluations=(), time=float(now), waiting_for=waiting))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line[9:].split(",")[0] for line in lines if "learner" in line] == [
        "starting learner",
        *(f"starting learner {seconds} s: loading model" for seconds in (5, 10, 15, 20)),
    ]
    assert sum("12 of 64 problems" in line for line in lines) == 3


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [(3, 8, "trees", "3 of 8 trees"), (1.5e9, 6e9, "bytes", "1.5 of 6.0 GB"), (12, None, "bytes", "12.0 B")],
)
def test_progress_reads_as_amounts(done: float, total: float | None, unit: str, text: str) -> None:
    assert format_progress(done, total, unit) == text


def test_versions_read_as_counts() -> None:
    assert [WeightVersion(1, number).label for number in (1, 10, 100)] == ["v1", "v10", "v100"]
    assert WeightVersion(3, 12).label == "v12 of generation 3"


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(choose_view(console, History(), plain=False), LineView)


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
