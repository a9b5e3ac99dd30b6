"""What an evaluation is asked to measure: the models, the sets and how."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.demo.data import write_data
from services.demo.difficulty import Difficulty
from services.launcher.settings.plan import SECTIONS
from services.learner.config import LearnerConfig
from services.learner.held_out_config import EvaluationConfig, HeldOutSets, SetPlan, plan_sets
from shared.errors import InvalidInput, first_reason
from shared.runtime.config import load_config, resolve_overrides

_DEMO = "demo"
_SETS = TypeAdapter(HeldOutSets)


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """The command's arguments. Without `data` the held-out sets of the configuration are answered, or the demo's."""

    models: tuple[Path, ...]
    data: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    """The names of those that are wanted; none: all."""
    preset: str | None = None
    settings: tuple[str, ...] = ()
    """`key=value`, of all services."""
    overrides: tuple[tuple[str, int | float], ...] = ()
    """What is said for every set, also for those that have their own: `k`, `problems`, `max_tokens` and the like."""
    seed: int = 0
    replicas: int = 1
    out: Path | None = None
    as_json: bool = False

    @property
    def config(self) -> str | Path:
        """The preset or file, else the config.toml of the run whose policy the first model is, else the demo's
        preset."""
        beside = self.models[0].resolve().parent / "config.toml"
        return self.preset or (beside if beside.is_file() else _DEMO)

    def load(self) -> tuple[LearnerConfig, dict[str, list[str]]]:
        """How the run of this configuration evaluates, and the settings by section."""
        given = resolve_overrides(self.settings, SECTIONS)
        fixed = (f"learner.model={self.models[0]}", "learner.data=unused", "learner.total_steps=1")
        return load_config(LearnerConfig, "learner", self.config, (*fixed, *given["learner"])), given


def choose_sets(arguments: EvaluateArguments, config: LearnerConfig, folder: Path) -> tuple[SetPlan, ...]:
    """The sets that are asked for, with what was said for all of them. The demo's problems are put into `folder`."""
    try:
        said = dict(arguments.overrides)
        evaluation = EvaluationConfig.model_validate(config.evaluation.model_dump() | said)
        sets = config.held_out
        if arguments.data:
            sets = _SETS.validate_python(list(arguments.data))
        elif not sets:
            sets = _SETS.validate_python({_DEMO: _write_demo(folder, evaluation.problems, arguments.seed)})
        plain = {name: one.model_copy(update=dict.fromkeys(said)) for name, one in sets.items()}
        plans = plan_sets(plain, evaluation, config.growth)
    except ValidationError as error:
        raise InvalidInput(first_reason(error)) from None
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if unknown := [name for name in arguments.sets if name not in sets]:
        raise InvalidInput(f"there is no held-out set {unknown[0]!r}; there are: {', '.join(sets)}")
    return tuple(plan for plan in plans if not arguments.sets or plan.name in arguments.sets)


def _write_demo(folder: Path, problems: int, seed: int) -> Path:
    demo = folder / _DEMO
    demo.mkdir(exist_ok=True)
    write_data(demo, Difficulty(), 1, problems, seed)
    return demo / "heldout.jsonl"
