"""What training on trees takes on one CUDA card: steps of the learner alone, then learner and engine side by side.

python -m benchmarks.gpu_check                         shapes of Qwen3-0.6B and 1.7B, under eight minutes
python -m benchmarks.gpu_check --device cpu --quick    the same at a toy's size, on any machine

Weights are random and rewards a coin, so that no download is needed: speed and memory are those of the shapes, and
nothing is learned. Trees are four first answers of about 2,000 tokens in steps of 100, and eight that leave one of them
at a step's end. Prints tables, and writes all figures to --output as one JSON object. What there is no time or memory
left for is in it by name, with the reason.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tomli_w
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config
from transformers.utils.logging import disable_progress_bar

from benchmarks.learner import tree
from services.learner.config import Device, LearnerConfig, Precision
from services.learner.model.memory import checkpoint_activations
from services.learner.model.policy import Policy
from services.learner.model.prefix_rows import Layout
from services.learner.model.process_group import ProcessGroup
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.errors import IbtpoError
from shared.tree.draw import WeightVersion

PAD, EOS, UNK = range(3)
STEP_EVERY = 25
"""One word in so many ends a step."""
VERSION = WeightVersion(1, 0)


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen3, as its config.json has it."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 128
    vocab_size: int = 151_936


SHAPES = (Shape("Qwen3-0.6B", 1024, 3072, 28, 16, 8), Shape("Qwen3-1.7B", 2048, 6144, 28, 16, 8))
TOY = Shape("toy", 64, 128, 2, 4, 2, 16, 512)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    shapes: tuple[Shape, ...]
    answer_tokens: int
    trees: int
    micro_batch_tokens: int
    rounds: int
    run_steps: int
    run_tokens: int
    """Of an answer in the run, which all are cut at."""
    run_seconds: float
    """After which the run is given up."""
    seconds: float
    """What has not begun by then is left out."""


FULL = Size(
    SHAPES,
    answer_tokens=2000,
    trees=4,
    micro_batch_tokens=16_384,
    rounds=3,
    run_steps=10,
    run_tokens=1000,
    run_seconds=240,
    seconds=400,
)
QUICK = Size(
    (TOY,),
    answer_tokens=100,
    trees=2,
    micro_batch_tokens=2048,
    rounds=2,
    run_steps=10,
    run_tokens=50,
    run_seconds=240,
    seconds=400,
)


def write_model(shape: Shape, directory: Path) -> Path:
    """A random policy of this shape in bfloat16, with a tokenizer of as many words; every 25th word ends a step."""
    config = Qwen3Config(
        **{name: value for name, value in asdict(shape).items() if name != "name"},
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    words = ["<pad>", "<eos>", "<unk>"]
    words += [f"w{number}" + ("\n\n" if number % STEP_EVERY == 0 else " ") for number in range(3, shape.vocab_size)]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)
    return directory


COIN = """from zlib import crc32


def coin(response, answer_key):
    return float(crc32(f"{response}{answer_key}".encode()) % 2)
"""
"""A verifier's kind: one answer in two is right, always the same."""

SAMPLER = {"kind": "ib", "initial_draws": 4, "rounds": 4, "nodes_per_round": 1, "draws_per_node": 2}
"""Twelve draws in five rounds, each of which waits for the one before."""


class Form(StrEnum):
    """How a step's trajectories are computed."""

    TREES = "trees"
    """As the learner does by itself."""
    DENSE = "dense masks"
    """Each tree in a row, attention masked."""
    APART = "trajectories apart"


# The learner alone


def measure_steps(config: LearnerConfig, size: Size, form: Form) -> dict[str, Any]:
    """Figures of a step on trees of random tokens, the median of some rounds after one that is not counted."""
    group = ProcessGroup.join(config.device, config.precision)
    policy = Policy(config.model, 1.0, config.optimizer, group)
    if config.activation_checkpointing:
        checkpoint_activations(policy.model.module)
    if form is Form.DENSE:
        policy.model.cost = replace(policy.model.cost, attends_to_trees=False)
    trainer = Trainer(policy, None, config, group)
    step = max(1, size.answer_tokens // 20)
    trees = [BuiltTree.of(tree(random.Random(seed), size.answer_tokens, step)) for seed in range(size.trees)]
    updates, seconds = [], []
    for _ in range(size.rounds + 1):
        started = time.perf_counter()
        updates.append(trainer.step(trees, VERSION, 1e-6, "seed"))
        seconds.append(time.perf_counter() - started)
    layout = Layout.APART if form is Form.APART else policy.model.layout
    return {"layout": layout.value} | step_figures(updates[1:], seconds[1:])


def step_figures(updates: Sequence[Update], seconds: Sequence[float]) -> dict[str, Any]:
    def middle(name: str) -> float | None:
        values = [value for update in updates if (value := getattr(update, name, None)) is not None]
        return median(values) if values else None

    parts = {part: middle(f"{part}_seconds") for part in ("credit", "pack", "forward", "backward", "optimizer")}
    return {
        "step_seconds": median(seconds),
        "trained_tokens_per_second": updates[0].trained_tokens / median(seconds),
        "peak_memory_gib": middle("peak_memory_gib"),
        "packing_share": middle("packing_share"),
        "mfu": middle("mfu"),
        "seconds": parts,
    }


def learner_config(model: Path, device: Device, size: Size, **objective: Any) -> LearnerConfig:
    on_cuda = device is not Device.CPU
    return LearnerConfig(
        model=model,
        data=("none",),
        growth={"sampler": "ib", "max_tokens": 2 * size.answer_tokens},
        advantage="ibtpo",
        total_steps=1,
        device=device,
        precision=Precision.BFLOAT16 if on_cuda else Precision.FLOAT32,
        activation_checkpointing=on_cuda,
        objective={"kl_coef": 0.0, "micro_batch_tokens": size.micro_batch_tokens} | objective,
    )


# Learner and engine together


def measure_run(model: Path, device: Device, size: Size, directory: Path, sglang: Path | None) -> dict[str, Any]:
    """Figures of a whole run of some steps, one replica and the learner on the same card; `sglang`: an interpreter that
    has it."""
    (directory / "coin.py").write_text(COIN, encoding="utf-8")
    rows = ({"id": str(n), "prompt": f"w{n + 30} w7", "kind": "coin", "answer_key": {"n": n}} for n in range(256))
    data = directory / "problems.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    config = directory / "check.toml"
    config.write_text(tomli_w.dumps(run_settings(model, data, device, size, sglang)), encoding="utf-8")
    command = [sys.executable, "-m", "services.launcher.cli", "train", "--config", str(config), "--plain"]
    paths = os.pathsep.join([str(directory), str(Path.cwd())])  # the verifier finds coin.py there
    log = directory / "run.log"
    with log.open("wb") as output:
        code = subprocess.run(
            [*command, "--runs", str(directory), "--run", "check"],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=output,
            stderr=output,
            timeout=size.run_seconds,
        ).returncode
    if code:
        raise RuntimeError(f"the run ended with exit code {code}: {log.read_text(encoding='utf-8')[-1000:]}")
    lines = (directory / "check" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {"engine": "sglang" if sglang else "embedded"} | run_figures(list(map(json.loads, lines)))


def run_settings(model: Path, data: Path, device: Device, size: Size, sglang: Path | None) -> dict[str, Any]:
    """The run's configuration. Cut answers are judged: a random policy hardly ends one by itself."""
    rollout: dict[str, Any] = {"engine": "embedded"}
    if sglang:
        command = [str(sglang), "-m", "sglang.launch_server"]
        rollout = {"engine": "sglang", "sglang": {"command": command, "memory_fraction": 0.4}}
    config = learner_config(model, device, size)
    learner = config.model_dump(mode="json", include={"objective", "device", "precision", "activation_checkpointing"})
    return {
        "launcher": {"replicas": 1, "ready_seconds": 300.0, "task": "files"},
        "verifier": {"kinds": {"coin": {"function": "coin:coin"}}},
        "rollout": rollout,
        "learner": _known(learner)
        | {
            "model": str(model),
            "data": [str(data)],
            "growth": {"sampler": SAMPLER, "max_tokens": size.run_tokens, "judge_truncated": True},
            "total_steps": size.run_steps,
            "batch_size": size.trees,
            "checkpoint_every": size.run_steps,
            "keep_trees": 0,
        },
    }


def _known(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, which TOML cannot say."""
    return {
        key: _known(value) if isinstance(value, dict) else value for key, value in table.items() if value is not None
    }


def run_figures(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all steps but the first, for whose trees nobody had begun."""
    counted = steps[1:]
    phases = {"generate": "intake", "train": "update", "sync": "publish"}
    spent = {name: sum(step[f"{phase}_seconds"] for step in counted) for name, phase in phases.items()}
    total = sum(spent.values())
    return {
        "steps": len(counted),
        "seconds": total,
        "trained_tokens_per_second_per_gpu": sum(step["trained_tokens"] for step in counted) / total,
        "generated_tokens_per_second_per_gpu": sum(step["generated_tokens"] for step in counted) / total,
        "shares": {name: seconds / total for name, seconds in spent.items()},
        "peak_memory_gib": max(step["peak_memory_gib"] or 0.0 for step in counted),
    }


# The whole check


class Check:
    """Measures one thing after the other while there is time; a failure is noted, and the rest goes on."""

    def __init__(self, device: Device, size: Size, sglang: Path | None) -> None:
        self._device = device
        self._sglang = sglang
        self._size = size
        self._started = time.monotonic()
        self.result: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__} | asdict(size)
        self.result |= {"learner": [], "run": None, "left_out": []}

    @property
    def seconds_left(self) -> float:
        return self._size.seconds - (time.monotonic() - self._started)

    def measure(self) -> None:
        with TemporaryDirectory(prefix="ibtpo-gpu-check-") as root:
            models = [(shape, Path(root) / shape.name) for shape in self._size.shapes]
            write_model(*models[0])
            self._try("run", lambda: self._measure_run(models[0][1], Path(root)))
            for number, (shape, model) in enumerate(models):
                if number:
                    self._try(f"{shape.name}: writing it", partial(write_model, shape, model))
                for form in Form:
                    self._try(f"{shape.name}, {form}", partial(self._measure_steps, shape, model, form))
        self.result["seconds_taken"] = time.monotonic() - self._started

    def _measure_run(self, model: Path, directory: Path) -> None:
        self.result["run"] = measure_run(model, self._device, self._size, directory, self._sglang)

    def _measure_steps(self, shape: Shape, model: Path, form: Form) -> None:
        config = learner_config(model, self._device, self._size, share_prefixes=form is not Form.APART)
        figures = measure_steps(config, self._size, form)
        self.result["learner"].append({"shape": shape.name, "form": form.value} | figures)

    def _try(self, name: str, work: Callable[[], object]) -> None:
        """Does the work; what keeps it from being done is in the result."""
        if self.seconds_left <= 0:
            self.result["left_out"].append({"what": name, "why": f"{self._size.seconds:.0f} seconds were over"})
            return
        try:
            work()
        except (OSError, RuntimeError, subprocess.SubprocessError, IbtpoError) as error:
            self.result["left_out"].append({"what": name, "why": f"{type(error).__name__}: {str(error)[-1200:]}"})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def device_name(device: Device) -> str:
    return "cpu" if device is Device.CPU else torch.cuda.get_device_name()


def tables(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for people, line by line."""
    yield (
        f"{result['device']}, torch {result['torch']}: answers of about {result['answer_tokens']} tokens, "
        f"{result['trees']} trees a step, micro-batches of {result['micro_batch_tokens']} tokens"
    )
    yield ""
    yield "| shape | form | step, s | trained tokens/s | peak, GiB | share of limit | MFU | forward, s | backward, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in result["learner"]:
        parts = [one["shape"], one["form"], f"{one['step_seconds']:.2f}", f"{one['trained_tokens_per_second']:,.0f}"]
        parts += [f"{one['peak_memory_gib']:.2f}", percent(one["packing_share"]), percent(one["mfu"])]
        parts += [f"{one['seconds'][part]:.2f}" for part in ("forward", "backward")]
        yield f"| {' | '.join(parts)} |"
    if run := result["run"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in run["shares"].items())
        yield ""
        trained, sampled = (run[f"{what}_tokens_per_second_per_gpu"] for what in ("trained", "generated"))
        yield (
            f"{run['steps']} steps with {run['engine']}: {trained:,.0f} tokens trained and {sampled:,.0f} sampled per "
            f"second and device; {shares}"
        )
    for left in result["left_out"]:
        yield f"left out: {left['what']}: {left['why']}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def main() -> None:
    """Prints the tables, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=Device, default=Device.CUDA, choices=list(Device))
    parser.add_argument("--quick", action="store_true", help="a toy's size")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"), help="where the figures go")
    parser.add_argument(
        "--sglang",
        type=Path,
        metavar="PYTHON",
        help="an interpreter that has SGLang; without it, and where this one has none, the embedded engine samples",
    )
    arguments = parser.parse_args()
    if arguments.device is Device.CUDA and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --device cpu --quick tries the script itself")
    torch.set_num_threads(1)
    disable_progress_bar()
    here = Path(sys.executable) if find_spec("sglang") else None
    check = Check(arguments.device, QUICK if arguments.quick else FULL, arguments.sglang or here)
    check.measure()
    arguments.output.write_text(json.dumps(check.result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(tables(check.result)))


if __name__ == "__main__":
    main()
