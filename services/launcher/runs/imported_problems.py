"""What a run must import before it begins, and how its model reads prompts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.launcher.runs.model_files import find_model, load_tokenizer, read_limits
from services.learner.config import LearnerConfig
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import imported_file, is_problem_file
from services.learner.data.source import DataSource
from services.learner.held_out.problem_set import import_name, source_of
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject


def load_prompt_model(model: Path, max_answer_tokens: int, settings: JsonObject) -> PromptModel:
    """How a model reads prompts, and how long they may be beside an answer."""
    directory = find_model(model).directory
    longest = read_limits(directory, max_answer_tokens).context_length - max_answer_tokens
    if longest < 1:
        raise InvalidInput(f"an answer of {max_answer_tokens} tokens fills the context of {model}: lower max_tokens")
    return PromptModel.of(load_tokenizer(directory), longest, settings)


@dataclass(frozen=True, slots=True)
class RunImport:
    """Sources that are no problems as they stand, and what their file is called."""

    name: str
    sources: tuple[DataSource, ...]
    max_tokens: int
    held_out: tuple[DataSource, ...] = ()

    def file_in(self, folder: Path) -> Path:
        return imported_file(self.sources, folder, self.name)


def imports_of(learner: LearnerConfig) -> Iterator[RunImport]:
    if not all(map(is_problem_file, learner.data)):
        longest = max(learner.growth.max_tokens, learner.evaluation.max_tokens or 0)
        yield RunImport("train", learner.data, longest, learner.held_out_sources)
    for plan in learner.held_out_plans:
        source = source_of(plan.source)
        if not is_problem_file(source):
            yield RunImport(import_name(plan.name), (source,), plan.growth.max_tokens)
