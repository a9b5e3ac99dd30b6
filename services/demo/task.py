"""What the command line needs of the demo task: the shipped checkpoint, and answers to prompts."""

from importlib.resources import files
from pathlib import Path

from services.demo.difficulty import DEFAULT_MODULUS
from services.demo.expressions import evaluate, parse


def checkpoint_directory() -> Path:
    """The warm-started model that ships with the package, in Hugging Face layout."""
    return Path(str(files("services.demo").joinpath("checkpoint")))


def answer_of(prompt: str, modulus: int = DEFAULT_MODULUS) -> str:
    """The right answer to a prompt such as `2+3*4=`. InvalidInput if it is no expression."""
    return str(evaluate(parse(prompt.strip().removesuffix("="), modulus), modulus))
