"""Where a `key=value` argument belongs."""

import pytest

from services.launcher.settings.overrides import sort_out
from services.launcher.settings.plan import SECTIONS
from shared.errors import InvalidInput


def spelled(*overrides: str) -> list[str]:
    return [one for section in sort_out(overrides, SECTIONS).values() for one in section]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("seed=1", "learner.seed=1"),
        ("sampler=ib", "learner.growth.sampler=ib"),
        ("rounds=4", "learner.growth.sampler.rounds=4"),
        ("sampler.score.beta=2", "learner.growth.sampler.score.beta=2"),
        ("advantage=grpo", "learner.advantage=grpo"),
        ("advantage.lam=0.2", "learner.advantage.lam=0.2"),
        ("lr=1e-4", "learner.optimizer.lr=1e-4"),
        ("replicas=3", "launcher.replicas=3"),
        ("verifier.math.workers=1", "verifier.math.workers=1"),
        ("learner.growth.temperature = 0.7", "learner.growth.temperature= 0.7"),
    ],
)
def test_a_setting_is_found_where_only_one_place_has_it(given: str, full: str) -> None:
    assert spelled(given) == [full]


def test_a_setting_that_two_services_have_is_refused_with_the_choice() -> None:
    with pytest.raises(InvalidInput, match=r"'grace_seconds' could be learner.grace_seconds or rollout.grace_seconds"):
        spelled("grace_seconds=3")


def test_a_misspelt_setting_is_refused_with_the_closest_names() -> None:
    with pytest.raises(InvalidInput, match=r"no setting is called 'samplr': did you mean sampler"):
        spelled("samplr=ib")


def test_an_argument_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'seed' is no key=value argument"):
        spelled("seed")


def test_the_order_of_settings_is_kept() -> None:
    assert sort_out(["sampler=random", "sampler.rounds=2", "seed=1"], SECTIONS)["learner"] == [
        "learner.growth.sampler=random",
        "learner.growth.sampler.rounds=2",
        "learner.seed=1",
    ]
