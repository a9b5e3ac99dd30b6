"""`ibtpo presets` lists what there is, and `ibtpo config --diff` says how two presets differ."""

import json
from pathlib import Path

import pytest

from services.launcher.settings.difference import SettingDifference, compare
from services.launcher.settings.method import METHOD_KEYS, take_method
from services.launcher.settings.plan import SECTIONS, RunRequest, StartMode, make_run_plan, preview
from shared.runtime.config import ConfigError, PresetKind, preset_names, read_about, read_preset
from tests.launcher.conftest import Command


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_says_what_it_does_and_where_it_is_published(preset: str) -> None:
    about = read_about(preset)
    assert about.sentence.endswith(".")
    assert len(about.sentence) < 120
    assert about.reference


@pytest.mark.parametrize("preset", [name for name in preset_names() if read_about(name).kind is PresetKind.METHOD])
def test_a_method_leaves_to_the_task_what_is_its(preset: str) -> None:
    """One that is a paper's whole recipe names its task, and gives way where another is asked for."""
    tables = read_preset(preset, SECTIONS)
    of_launcher = tables.pop("launcher", {})
    of_launcher.pop("demo", None)
    assert tables == take_method(tables) or of_launcher == {"task": "files"}


@pytest.mark.parametrize("preset", preset_names())
def test_a_method_of_several_updates_has_a_rate_of_its_own_for_the_demo(preset: str, tmp_path: Path) -> None:
    """The demo's is that of one update a step, and of larger steps than those of fixed-width."""
    learner = make_run_plan(tmp_path, RunRequest("mine", preset, ("launcher.task=demo",))).learner
    assert (learner.optimizer.lr < 5e-4) is (learner.objective.updates_per_step > 1 or preset == "fixed-width")


def test_a_methods_rate_for_the_demo_gives_way_to_any_that_is_stated(tmp_path: Path) -> None:
    def rate(preset: str, *settings: str) -> float:
        return make_run_plan(tmp_path, RunRequest("mine", preset, settings)).learner.optimizer.lr

    assert rate("gspo", "launcher.task=demo") == rate("gspo") == 2.5e-4
    assert rate("gspo", "lr=1e-3") == 1e-3
    assert rate("gspo", "launcher.demo.learning_rate=1e-3") == 1e-3
    own_task = ("launcher.task=files", "learner.model=m", "data=d.jsonl", "total_steps=1")
    assert rate("gspo", *own_task) == 1e-6, "of the demo's task alone"
    mine = "[learner.optimizer]\nlr = 3e-4\n[launcher.demo]\nlearning_rate = 1e-4\n"
    assert rate(write(tmp_path / "mine.toml", mine)) == 3e-4
    recipe = '[learner.optimizer]\nlr = 3e-4\n[launcher]\ntask = "files"\ndemo = { learning_rate = 1e-4 }\n'
    assert rate(write(tmp_path / "recipe.toml", recipe), "launcher.task=demo") == 1e-4


def test_a_run_of_the_demo_goes_on_with_the_rate_that_it_has(tmp_path: Path) -> None:
    begun = make_run_plan(tmp_path, RunRequest("mine", "gspo", ("lr=1e-3",)))
    begun.run.make()
    begun.run.config.write_text(begun.config_text, encoding="utf-8")
    assert make_run_plan(tmp_path, RunRequest("mine", "gspo", (), StartMode.RESUME)).learner == begun.learner


def test_presets_are_listed_within_eighty_columns(ibtpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = ibtpo("presets")
    lines = done.stdout.splitlines()
    assert done.code == 0
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.startswith(" ") and line[1] != " "} == set(preset_names())
    said = " ".join(done.stdout.split())
    assert "arXiv 2503.14476" in said
    assert "tasks, for any method demo" in said


def test_presets_are_listed_for_programs(ibtpo: Command) -> None:
    rows = {row["name"]: row for row in json.loads(ibtpo("presets", "--json").stdout)}
    assert list(rows) == preset_names()
    assert rows["gspo"]["reference"] == "arXiv 2507.18071"
    assert (rows["gspo"]["kind"], rows["demo"]["kind"]) == ("method", "task")


def test_a_file_of_ones_own_is_listed_with_and_without_about(ibtpo: Command, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.toml", "[learner]\nseed = 3\n")
    mine = write(tmp_path / "mine.toml", '[about]\nsentence = """Ours,\n  not [bold] yet."""\n[learner]\nseed = 3\n')
    done = ibtpo("presets", bare, mine)
    assert "Ours, not [bold] yet." in done.stdout
    assert "bare.toml" in done.stdout
    assert "grpo" not in done.stdout.replace("--config", "").partition("`ibtpo")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[about]\nsentance = "x"', r"mine\.toml: unknown key about\.sentance; did you mean sentence\?"),
        ('[about]\nkind = "recipe"', r"about\.kind = 'recipe': input should be 'method' or 'task'"),
        ("[about]\nsentence = 3", r"about\.sentence = 3: input should be a valid string"),
        ('about = "x"', r"about is a section, write \[about\]"),
        ('[abuot]\nsentence = "x"', r"unknown section \[abuot\]; did you mean about\?"),
    ],
)
def test_a_wrong_about_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "mine.toml", text)
    for read in (read_about, lambda one: read_preset(one, SECTIONS)):
        with pytest.raises(ConfigError, match=said):
            read(path)


def test_no_service_reads_about(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", '[about]\nsentence = "Ours."\n[learner]\nadvantage = "grpo"\n')
    assert set(read_preset(mine, SECTIONS)) == {"learner"}
    assert "about" not in preview(mine, ())


def found(before: str, after: str, *settings: str) -> dict[str, tuple[object, object]]:
    return {one.key.removeprefix("learner."): (one.before, one.after) for one in compare(before, after, settings)}


def test_only_what_differs_is_said() -> None:
    assert found("grpo", "grpo") == {}
    assert found("demo", "demo", "beta=5", "lr=5e-4", "sampler.rounds=8") == {}
    assert found("grpo", "gspo") == {
        "objective.ratio": ("token", "sequence"),
        "objective.clip_low": (0.2, 3e-4),
        "objective.clip_high": (0.2, 4e-4),
        "objective.kl_coef": (0.001, 0.0),
        "objective.minibatches": (1, 4),
        "launcher.demo.learning_rate": (None, 2.5e-4),
    }


def test_tables_of_different_kinds_differ_in_what_only_one_has() -> None:
    trees = found("grpo", "demo")
    assert trees["growth.sampler.kind"] == ("independent", "ib")
    assert trees["growth.sampler.initial_draws"] == (8, 4)
    assert trees["growth.sampler.rounds"] == (None, 8)
    assert trees["advantage.kind"] == ("grpo", "ibtpo")
    assert trees["optimizer.lr"] == (1e-6, 5e-4)
    order = list(trees)
    assert order.index("growth.sampler.score.form") < order.index("advantage.kind"), "beside the keys of its table"


def test_settings_count_for_the_second() -> None:
    assert found("grpo", "grpo", "clip_high=0.28") == {"objective.clip_high": (0.2, 0.28)}
    assert found("demo", "demo", "beta=3") == {"method.beta": (5.0, 3.0)}, "score and advantage take theirs from there"
    assert found("demo", "demo", "advantage.lam=0.3") == {"advantage.lam": (0.1, 0.3)}, "where the method's was"
    assert found("grpo", "demo", "advantage.lam=0.3")["advantage.lam"] == (None, 0.3)
    assert found("demo", "demo", "learner.deterministic=true")["max_staleness"] == (1, 0)


def test_files_are_compared_with_presets_however_little_they_state(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", "[learner.objective]\nclip_high = 0.28\n")
    assert compare("grpo", mine)[-1] == SettingDifference("learner.objective.clip_high", 0.2, 0.28)
    other = write(tmp_path / "other.toml", "[learner]\nmodel = 'm'\nheld_out = { a = { source = 'a.jsonl' } }\n")
    assert found(mine, other)["model"] == (None, "m")
    assert found(other, other) == {}


def test_secrets_are_not_printed(ibtpo: Command, tmp_path: Path) -> None:
    before, after = (
        write(
            tmp_path / f"{name}.toml",
            f'[learner]\ntoken = "{name}-s3cret"\nredis_url = "redis://:{name}-s3cret@{name}/0"\n',
        )
        for name in ("one", "two")
    )
    done = ibtpo("config", "--diff", before, after)
    assert "learner.token" in done.stdout
    assert "redis://two/0" in done.stdout
    assert "s3cret" not in done.stdout


def test_a_difference_is_printed_and_given_to_programs(ibtpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = ibtpo("config", "--diff", "demo", "grpo", "sampler=fixed-width")
    assert done.code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    first, head, *_ = done.stdout.splitlines()
    assert (first, head.split()) == ("*: with sampler=fixed-width", ["key", "demo", "grpo*"])
    assert json.loads(ibtpo("config", "--diff", "grpo", "dapo", "--json").stdout)["learner.objective.ties"] == [
        "drop",
        "refill",
    ]
    assert ibtpo("config", "--diff", "grpo", "grpo").stdout == "grpo and grpo do not differ\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--diff", "grpo", "dappo"), "no preset 'dappo'; did you mean dapo?"),
        (("--diff", "grpo", "nowhere.toml"), "cannot read the preset 'nowhere.toml'"),
        (("--diff", "grpo", "dapo", "clip_hihg=1"), "unknown key clip_hihg; did you mean clip_high"),
        (("--diff", "grpo", "grpo", "sampler.rounds=3"), "sampler.rounds is a setting of ib, random"),
        (("--diff", "grpo", "grpo", "advantage=nope"), "learner.advantage = 'nope': no credit is named 'nope': choose"),
        (("--diff", "grpo", "no-such"), "no preset 'no-such'; `ibtpo presets` lists them; give one of these or"),
        (("--diff", "grpo"), "requires 2 arguments"),
        (("--diff", "grpo", "dapo", "--config", "grpo"), "leave out --config"),
        (("--json",), "--json belongs to --diff"),
    ],
)
def test_a_wrong_question_for_a_difference_is_refused(ibtpo: Command, arguments: tuple[str, ...], said: str) -> None:
    done = ibtpo("config", *arguments)
    assert done.code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_recipe_on_another_task_is_its_method(tmp_path: Path) -> None:
    """The published token limit and learning rate are no good for the demo's model: those are the task's."""
    recipe = make_run_plan(tmp_path, RunRequest(None, "ibtpo-paper", ("launcher.task=demo",)))
    demo = make_run_plan(tmp_path, RunRequest("ibtpo-paper", "demo", ()))
    assert recipe.is_method_alone
    assert recipe.learner == demo.learner.model_copy(update={"advantage": recipe.learner.advantage})
    own = ("learner.model=m", "data=d.jsonl")
    assert "max_tokens = 2048" in preview("ibtpo-paper", own)


@pytest.mark.parametrize(
    ("recipe", "method"), [("ibtpo-paper", "demo"), ("ibtpo-paper-grpo", "grpo"), ("ibtpo-paper-ibtree", "ibtpo")]
)
def test_on_the_demos_task_some_recipes_are_another_preset(recipe: str, method: str, tmp_path: Path) -> None:
    """So that what is measured of one there is measured of the other."""
    one, other = (make_run_plan(tmp_path, RunRequest("x", name, ("launcher.task=demo",))) for name in (recipe, method))
    assert one.learner == other.learner
    assert one.rollout == other.rollout


def test_the_methods_part_of_a_preset_is_cut_out() -> None:
    tables = {
        "learner": {"advantage": "grpo", "batch_size": 3, "growth": {"sampler": "ib", "max_tokens": 9}},
        "rollout": {},
    }
    assert take_method(tables) == {"learner": {"advantage": "grpo", "growth": {"sampler": "ib"}}}
    assert all(key.startswith("learner.") for key in METHOD_KEYS)
