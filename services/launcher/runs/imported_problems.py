"""Imports the problems of a run before anything is started for it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.launcher.runs.model_files import find_model, read_limits
from services.launcher.runs.run_dir import RunDirectory
from services.learner.config import LearnerConfig
from services.learner.data.importer import Listener
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import import_to_file, imported_file, is_problem_file
from services.learner.data.source import DataSource
from services.learner.held_out.problem_set import import_name, source_of
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject


def load_prompt_model(model: Path, max_answer_tokens: int, settings: JsonObject) -> PromptModel:
    """How the model in a directory reads prompts, and how long they may be beside an answer."""
    from transformers import AutoTokenizer  # takes seconds, and most commands do not need it

    longest = read_limits(model, max_answer_tokens).context_length - max_answer_tokens
    if longest < 1:
        raise InvalidInput(f"an answer of {max_answer_tokens} tokens fills the context of {model}: lower max_tokens")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(f"{model} has no tokenizer that transformers can read: {error}") from error
    return PromptModel.of(tokenizer, longest, settings)


@contextmanager
def import_problems(
    learner: LearnerConfig, run: RunDirectory, listener: Listener, *, resumes: bool
) -> Iterator[Path | None]:
    """Yields a folder with the problems that must be imported, to be moved into the run's; None where there are none to
    import. It is gone when the block ends."""
    folder_there = run.root / "data"
    wanted = [one for one in _imports(learner) if not (resumes and one.file_in(folder_there).is_file())]
    if not wanted:
        yield None
        return
    run.root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run.name}.import-", dir=run.root.parent) as name:
        directory = find_model(learner.model).directory
        for one in wanted:
            model = load_prompt_model(directory, one.max_tokens, learner.chat_template_kwargs)
            import_to_file(one.sources, one.file_in(Path(name)), model, one.held_out, listener)
        yield Path(name)


@dataclass(frozen=True, slots=True)
class _Import:
    """Sources that are no problems as they stand, and what their file is called."""

    name: str
    sources: tuple[DataSource, ...]
    max_tokens: int
    held_out: tuple[DataSource, ...] = ()

    def file_in(self, folder: Path) -> Path:
        return imported_file(self.sources, folder, self.name)


def _imports(learner: LearnerConfig) -> Iterator[_Import]:
    if not all(map(is_problem_file, learner.data)):
        longest = max(learner.growth.max_tokens, learner.evaluation.max_tokens or 0)
        yield _Import("train", learner.data, longest, learner.held_out_sources)
    for plan in learner.held_out_plans:
        source = source_of(plan.source)
        if not is_problem_file(source):
            yield _Import(import_name(plan.name), (source,), plan.growth.max_tokens)


def move_into(folder: Path | None, run: RunDirectory) -> None:
    """Moves imported problems into the run's folder."""
    if folder is not None:
        data = run.root / "data"
        data.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.replace(data / path.name)
