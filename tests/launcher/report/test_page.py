"""The report of several runs: what is beside what, and that it opens whatever their folders lack."""

import json
import re
from pathlib import Path

import pytest

from services.launcher.report.accuracy import differences, student_95
from services.launcher.report.groups import config_differences, read_groups
from services.launcher.report.page import write_page
from services.launcher.runs.run_state import FolderState, read_condition
from shared.errors import InvalidInput
from tests.launcher.conftest import Command
from tests.launcher.report.folders import write_run

LOW, MIDDLE, HIGH = [[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path) -> None:
    for name, seed, lr in (("ib-s0", 0, 1.0), ("ib-s1", 1, 1.0), ("other", 0, 2.0)):
        write_run(tmp_path / name, {0: LOW}, seed=seed, lr=lr, tracker=[name])
    groups = read_groups(tmp_path, ["ib-s0", "other", "ib-s1", str(tmp_path / "ib-s0")])
    assert [(group.label, [run.name for run in group.runs]) for group in groups] == [
        ("ib (2 runs)", ["ib-s0", "ib-s1"]),
        ("other", ["other"]),
    ]
    assert config_differences(groups) == {"learner.seed": ("0, 1", "0"), "learner.lr": ("1.0", "2.0")}


def test_where_a_run_lies_and_where_ibtpo_is_installed_part_no_runs(tmp_path: Path) -> None:
    for name, seed in (("a-0", 0), ("a-1", 1)):
        run = write_run(tmp_path / name, {0: LOW}, seed=seed, model=f"/{name}/services/demo/checkpoint")
        run.config.write_text(run.config.read_text() + '[launcher]\ntask = "demo"\n')
    (group,) = read_groups(tmp_path, ["a-0", "a-1"])
    assert group.label == "a (2 runs)"


def test_groups_are_named_as_the_user_says(tmp_path: Path) -> None:
    for name in ("x", "y", "a=b,c"):
        write_run(tmp_path / name, {0: LOW})
    groups = read_groups(tmp_path, ["both=x,y", "a=b,c"])
    assert [(group.name, len(group.runs)) for group in groups] == [("both", 2), ("a=b,c", 1)]
    for wrong in ("=x", "both=", "both=,"):
        with pytest.raises(InvalidInput, match="a group reads NAME=RUN,RUN"):
            read_groups(tmp_path, [wrong])


def test_differences_are_over_the_same_problems_and_over_seeds(tmp_path: Path) -> None:
    for name, last, seed in (("a-0", MIDDLE, 0), ("a-1", LOW, 1), ("b-0", HIGH, 0), ("b-1", HIGH, 1)):
        write_run(tmp_path / name, {0: LOW, 4: last}, seed=seed, lr=name[0])
    (difference,) = differences(read_groups(tmp_path, ["a-0", "a-1", "b-0", "b-1"]))
    # problem 0: (1/2 + 0)/2 → 1, problem 1: 1/2 → 1/2
    assert difference.over_problems is not None
    assert (difference.over_problems.value, difference.problems) == (0.375, 2)
    assert difference.over_problems.error == pytest.approx(0.375)
    assert difference.over_runs is not None
    assert difference.over_runs.value == pytest.approx(0.375)
    assert difference.over_runs.error == pytest.approx(0.125)
    assert difference.verdict == "no difference that these figures show"


def test_without_results_of_problems_the_difference_is_not_paired(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {0: LOW, 4: LOW}, lr=1)
    write_run(tmp_path / "b", {0: LOW, 4: HIGH}, lr=2)
    (run.evaluations / "4" / "a.jsonl").unlink()
    (difference,) = differences(read_groups(tmp_path, ["a", "b"]))
    assert difference.over_problems is None
    assert not difference.is_over_seeds
    assert difference.over_runs is not None
    assert difference.over_runs.error == pytest.approx((0.25**2 + 0.25**2) ** 0.5)
    page = write_page(read_groups(tmp_path, ["a", "b"]), tmp_path / "c.html").read_text()
    assert "+0.500 ± 0.354 (not paired)" in page


def test_intervals_over_few_runs_are_wide() -> None:
    assert [student_95(freedom) for freedom in (1, 2, 10)] == [12.71, 4.303, 2.228]
    assert student_95(100) == pytest.approx(1.984, abs=0.005)


def test_the_page_stands_alone_and_links_to_each_runs_own(tmp_path: Path, ibtpo: Command) -> None:
    for name, seed in (("ib 0", 0), ("ib 1", 1), ("<b>&", 2)):
        write_run(tmp_path / name, {0: LOW, 2: HIGH, 4: MIDDLE}, seed=seed, lr=0.5 if seed < 2 else 0.25)
    done = ibtpo("report", "ib 0", "ib 1", "<b>&", "--runs", str(tmp_path))
    assert (done.code, done.stdout.strip()) == (0, str(tmp_path / "comparison.html"))
    page = (tmp_path / "comparison.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {
        "ib%200/report.html", "ib%201/report.html", "%3Cb%3E%26/report.html"
    }  # fmt: skip
    assert "http" not in page
    assert "<script" not in page
    assert "<b>&" not in page
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(r"a?held out\s+ib \(2 runs\)\s+2\s+0\.250 ± 0\.000\s+0\.500 ± 0\.000", text)
    assert "learner.lr" in page
    assert (tmp_path / "ib 0" / "report.html").exists()


def test_what_is_left_of_a_run_is_shown(tmp_path: Path, ibtpo: Command) -> None:
    write_run(tmp_path / "whole", {0: LOW, 4: HIGH})
    write_run(tmp_path / "one-step", {0: LOW}, steps=1, finished=False)
    bare = write_run(tmp_path / "no-config", {})
    bare.config.unlink()
    empty = write_run(tmp_path / "no-metrics", {})
    empty.metrics.unlink()
    broken = write_run(tmp_path / "broken", {0: LOW}, finished=False)
    broken.config.write_text("[learner\n")
    broken.log("learner").write_text(json.dumps({"event": "run_failed", "error": "no <space> left"}) + "\nhalf")
    old = write_run(tmp_path / "old", {})
    old.summary.write_text('{"version": "0.0.1", "run": "old", "files": [{"file": "x"}]}')
    old.metrics.write_text('{"step": 0, "k": 8, "avg_at_k": 0.5, "new": 1}\n{"trees": "x"}\n[1]\n')
    names = sorted(path.name for path in tmp_path.iterdir())
    done = ibtpo("report", *names, "--runs", str(tmp_path), "--out", str(tmp_path / "out" / "page.html"))
    assert done.code == 0, done.stderr
    text = (tmp_path / "out" / "page.html").read_text()
    for said in (
        "it failed: no &lt;space&gt; left",
        "config.toml is missing",
        "config.toml cannot be read",
        "metrics.jsonl is missing",
        "broken off: it has not taken its last step",
        "it is of ibtpo 0.0.1",
    ):
        assert said in text, said
    for name in names:
        assert ibtpo("report", name, "--runs", str(tmp_path)).code == 0


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["run_stopped"], FolderState.STOPPED),
        (["run_failed"], FolderState.FAILED),
        (["run_failed", "lease_acquired", "step"], FolderState.BROKEN_OFF),
        ([], FolderState.BROKEN_OFF),
    ],
)
def test_a_runs_state_is_told_by_its_folder(tmp_path: Path, events: list[str], state: FolderState) -> None:
    run = write_run(tmp_path / "a", {}, finished=False)
    run.log("learner").write_text("".join(json.dumps({"event": event}) + "\n" for event in events))
    assert read_condition(run).state is state
    with run.lock():
        assert read_condition(run).state is FolderState.RUNNING


def test_a_run_that_is_not_there_is_refused(tmp_path: Path, ibtpo: Command) -> None:
    (tmp_path / "folder").mkdir()
    for name, said in (("gone", "there is no run 'gone'"), (str(tmp_path / "folder"), "is no run's folder")):
        done = ibtpo("report", name, "--runs", str(tmp_path))
        assert (done.code, said in done.stderr) == (2, True), done.stderr
    assert "there is no run under" in ibtpo("report", "--runs", str(tmp_path)).stderr


def test_runs_are_listed_with_how_to_go_on(tmp_path: Path, ibtpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "a-run-of-a-long-name-indeed", {0: LOW, 4: HIGH}, growth={"sampler": {"kind": "independent"}})
    write_run(tmp_path / "half", {0: LOW}, finished=False)
    (tmp_path / "mlruns").mkdir()
    monkeypatch.setenv("COLUMNS", "80")
    done = ibtpo("runs", "--runs", str(tmp_path), "--sort", "accuracy")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines[:3])) <= 80
    assert re.search(r"^a-run.* 4 0\.25 → 0\.75 +4\.0k +\ds", lines[1])
    assert f"go on with half: ibtpo train --run half --resume --runs {tmp_path}" in done.stdout
    rows = json.loads(ibtpo("runs", "--runs", str(tmp_path), "--json", "--sort", "name").stdout)
    assert [(row["name"], row["state"]) for row in rows] == [
        ("a-run-of-a-long-name-indeed", "finished"),
        ("half", "broken off"),
    ]
    assert "not by 'size'" in ibtpo("runs", "--runs", str(tmp_path), "--sort", "size").stderr
    assert "there is no run" in ibtpo("runs", "--runs", str(tmp_path / "none")).stderr
