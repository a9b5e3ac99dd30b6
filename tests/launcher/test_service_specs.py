"""How a run's services are called."""

from pathlib import Path

import pytest

from services.launcher.processes.service_processes import ServiceSpec, StopOrder
from services.launcher.processes.service_specs import ServiceSpecs
from services.launcher.settings.plan import RunRequest, make_run_plan
from services.learner.config import LearnerConfig
from services.rollout.config import RolloutConfig
from services.verifier.config import VerifierConfig
from shared.runtime.config import load_config

REDIS_URL = "redis://:s3cret@127.0.0.1:7000/0"


@pytest.fixture
def specs(tmp_path: Path) -> dict[str, ServiceSpec]:
    plan = make_run_plan(tmp_path, RunRequest("mine", "demo", ("stop_seconds=7", "threads_per_service=3")))
    plan.run.make()
    plan.run.config.write_text(plan.config_text)
    maker = ServiceSpecs(plan, REDIS_URL)
    every = (maker.verifier(), maker.learner("http://verifier"), maker.rollout(1, "http://verifier", "http://learner"))
    return {spec.name: spec for spec in every}


def settings_of(spec: ServiceSpec) -> tuple[str, ...]:
    _, _, _, _, config_option, config, *settings = spec.command
    return (config_option, config, *settings)


def test_the_password_of_redis_is_in_no_command(specs: dict[str, ServiceSpec]) -> None:
    for spec in specs.values():
        assert not any("s3cret" in part for part in spec.command)
        assert spec.environment["REDIS_URL"] == REDIS_URL


def test_every_service_gets_its_threads_and_only_the_learner_may_finish(specs: dict[str, ServiceSpec]) -> None:
    assert {spec.environment["OMP_NUM_THREADS"] for spec in specs.values()} == {"3"}
    assert [spec.name for spec in specs.values() if spec.may_finish] == ["learner"]
    assert specs["learner"].grace_seconds == 7
    assert sorted(specs, key=lambda name: specs[name].stop_order) == ["learner", "rollout-1", "verifier"]
    assert specs["learner"].stop_order is StopOrder.LEARNER


@pytest.mark.parametrize(
    ("name", "section", "model"),
    [
        ("verifier", "verifier", VerifierConfig),
        ("learner", "learner", LearnerConfig),
        ("rollout-1", "rollout", RolloutConfig),
    ],
)
def test_each_service_takes_what_its_command_says(
    specs: dict[str, ServiceSpec],
    name: str,
    section: str,
    model: type[LearnerConfig] | type[RolloutConfig] | type[VerifierConfig],
) -> None:
    _, config, *overrides = settings_of(specs[name])
    loaded = load_config(model, section, config, [one.replace("{port}", "0") for one in overrides])
    assert (loaded.host, loaded.port, loaded.url_file) == ("127.0.0.1", 0, specs[name].url_file)
    if isinstance(loaded, LearnerConfig):
        assert loaded.verifier_url == "http://verifier"
    if isinstance(loaded, RolloutConfig):
        assert (loaded.name, loaded.verifier_url, loaded.learner_url) == (name, "http://verifier", "http://learner")
