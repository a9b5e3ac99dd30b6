"""The settings of a part of the user's own are keys as those of a built-in one are."""

import pytest

from services.launcher.settings.plan import SECTIONS
from services.learner.config import LearnerConfig
from shared.runtime.config import ConfigError, find_keys, load_config, resolve_overrides

SAMPLER = "examples.own_sampler:VarianceSampler"
VALUES = "examples.own_values:LaplaceValues"
TERM = "examples.own_loss_term:TargetEntropy"


def load(*settings: str) -> LearnerConfig:
    given = ("learner.model=unused", "data=unused", "total_steps=1", *settings)
    return load_config(LearnerConfig, "learner", None, resolve_overrides(given, SECTIONS)["learner"])


def test_a_part_by_its_import_path_has_keys_with_meaning_and_default() -> None:
    found = {key.path: (key.default, key.description) for key in find_keys(SAMPLER, SECTIONS, (SAMPLER,))}
    assert found["learner.growth.sampler.threshold"] == (0.0, "The variance below which nothing is branched")
    assert {path.rpartition(".")[2] for path in found} == {"initial_draws", "rounds", "threshold"}
    of_values = {key.path for key in find_keys(VALUES, SECTIONS, (VALUES,))}
    assert {"learner.method.values.strength", "learner.growth.sampler.score.values.strength"} <= of_values
    assert [key.path for key in find_keys(TERM, SECTIONS, (TERM,))] == [
        "learner.objective.terms.*.coef", "learner.objective.terms.*.target",
    ]  # fmt: skip


def test_a_bare_name_is_enough_where_the_part_is_named_beside_it() -> None:
    config = load(f"sampler={SAMPLER}", "threshold=0.25")
    assert config.growth.sampler.threshold == 0.25  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown key threshold; did you mean threads"):
        load("sampler=ib", "threshold=0.25")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            (f"sampler={SAMPLER}", "sampler.treshold=1"),
            f"learner.growth.sampler.treshold is no setting of {SAMPLER}: it has initial_draws, rounds, threshold; "
            "did you mean threshold?",
        ),
        (
            (f"sampler={SAMPLER}", "sampler.x=1"),
            f"learner.growth.sampler.x is no setting of {SAMPLER}: it has initial_draws, rounds, threshold",
        ),
        (
            ("sampler=ib", f"objective.terms=[{{kind='{TERM}', tarket=1}}]"),
            f"learner.objective.terms.0.tarket is no setting of {TERM}: it has coef, target; did you mean target?",
        ),
        (
            (f"sampler={SAMPLER}", "sampler.rounds=many"),
            "learner.growth.sampler.rounds = 'many': input should be a valid integer",
        ),
        (("sampler=examples.gone:Gone",), "examples.gone:Gone is not here (No module named 'examples.gone')"),
    ],
)
def test_a_key_that_a_part_does_not_have_is_refused_with_those_that_it_has(
    settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(*settings)
    assert said in str(refused.value)
