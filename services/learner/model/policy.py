"""The policy under training: a causal language model, its optimizer, and its layout on disk.

Shapes: R rows of S columns (`prefix_rows.py`), V tokens of the vocabulary.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedConfig, PreTrainedModel

from services.learner.config import OptimizerConfig, Precision, ReferenceConfig
from services.learner.model.adapters import Adapters, has_adapters, is_adapter, merge, without_adapters, write_adapters
from services.learner.model.attention.plan import COST, FEWEST_PAIRS, AttentionCost
from services.learner.model.attention.tree_attention import prepare, use_tree_attention
from services.learner.model.fitness import agree, find_sharing_fault
from services.learner.model.head import Head, entropies
from services.learner.model.model_files import read_module, read_tokenizer, require_vocabulary
from services.learner.model.pass_cost import PassCost
from services.learner.model.prefix_rows import Layout, PrefixRows
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from services.learner.model.routers import Routers
from services.learner.model.sharding.moments import (
    Moments,
    copy_to_cpu,
    has_moments,
    make_moments,
    moments_of,
    read_moments,
    write_moments,
)
from services.learner.model.sharding.skeleton import Description
from shared.errors import InvalidInput
from shared.weights import ContextBounds

KEPT_POLICY, KEPT_MOMENTS = "policy", "optimizer"
"""Directories of a checkpoint."""
_MAX_FILE = "1GB"
"""Of weights: whoever writes a file holds Python's lock until it is written."""


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each column's token, given its prefix: 0 where nobody asked, meaningless where a sequence begins."""

    logprobs_RS: Tensor
    entropies_RS: Tensor
    router_loss: Tensor | None = None
    """As `Routers.balance_loss` has it; None where nobody asked."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy of what a checkpoint keeps of a policy, on the CPU: of the weights on rank 0 only, of AdamW's state the
    rank's part."""

    weights: dict[str, Tensor]
    moments: Moments


class LanguageModel:
    """Log-probabilities of the temperature-scaled full softmax, of weights in training or frozen (a reference)."""

    def __init__(
        self,
        module: PreTrainedModel,
        temperature: float,
        process_group: ProcessGroup,
        context_length: int | None = None,
    ) -> None:
        self.module = module
        self._temperature = temperature
        self._process_group = process_group
        self._wanted_length = context_length
        self._sharing_fault = ""
        self.cost = PassCost.of(module, attends_to_trees=False)
        self._leaves_adapters_out = False
        self._is_offloaded = False
        self._routers: Routers | None = None
        self._head = Head.of(module.config, temperature)
        self._forward: Callable[[dict[str, Any], Tensor, Tensor], tuple[Tensor, ...]] = self._by_head

    @classmethod
    def load(
        cls,
        directory: Path,
        temperature: float,
        process_group: ProcessGroup = SINGLE_PROCESS,
        *,
        is_frozen: bool = False,
        context_length: int | None = None,
        adapters: Adapters | None = None,
        reference: ReferenceConfig | None = None,
    ) -> "LanguageModel":
        """InvalidInput where a weight does not come from the directory's files or is not finite, and where the model
        is unfit for training. `context_length`: as `LearnerConfig` has it; `reference`: how a frozen model is kept.
        Of several ranks the first reads and tries it."""
        if reference is not None and reference.offload and process_group.size > 1:
            raise InvalidInput(
                "reference.offload is true, but several ranks train together, and each holds only its share of the "
                "reference: set it to false"
            )
        found = None if process_group.is_rank0 else Description.unpack(process_group.receive())
        module = found.build() if found else read_module(Path(directory))
        module.eval().requires_grad_(not is_frozen)  # no dropout: the engine that sampled had none
        model = cls(module, temperature, process_group, context_length)
        if found:
            model._follow(found)
        else:
            try:
                model._try_on_toy_tree()
            except InvalidInput as error:
                raise InvalidInput(
                    f"policy {directory}: {module.config.model_type} cannot be trained as it is: {error}"
                ) from error
            process_group.send_all(model._describe().pack())
        if adapters is not None:
            adapters.attach(module, process_group.dtype)
        if reference is not None:
            model._keep(reference)
        if not model._is_offloaded:
            process_group.distribute(module)
        cast(Any, module).read_states = model._read_states
        register_fsdp_forward_method(module, "read_states")
        if model._forward == model._by_head:  # a sharded module gathers its weights for the methods that it knows
            cast(Any, module).by_head = model._by_head
            register_fsdp_forward_method(module, "by_head")
            model._forward = cast(Any, module).by_head
        return model

    def _keep(self, reference: ReferenceConfig) -> None:
        self._is_offloaded = reference.offload
        if reference.precision is Precision.BFLOAT16:
            for parameter in self.module.parameters():  # and no buffer: positions need their precision
                parameter.data = parameter.data.to(torch.bfloat16)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Within, the weights are on the device; a reference that is offloaded is else in the machine's memory."""
        if not self._is_offloaded:
            yield
            return
        self.module.to(self._process_group.device)
        try:
            yield
        finally:
            self.module.to("cpu")

    def _try_on_toy_tree(self) -> None:
        """Finds out how the model can be computed. InvalidInput where it is unfit for training."""
        size = self.vocab_size, min(self.context_length, self.window or self.context_length)

        def by_head(rows: PrefixRows) -> Tensor:
            return self._by_head(*self._inputs(rows))[0].view_as(rows.token_ids_RS)

        def by_logits(rows: PrefixRows) -> Tensor:
            return self._by_logits(*self._inputs(rows))[0].view_as(rows.token_ids_RS)

        def by_trees(rows: PrefixRows, cost: AttentionCost) -> Tensor:
            return self._by_logits(*self._inputs(rows, cost))[0].view_as(rows.token_ids_RS)

        self._sharing_fault = _partial_attention(self.module.config) or find_sharing_fault(by_logits, *size)
        if not agree(by_head, by_logits, *size):
            self._forward = self._by_logits
        if not self._sharing_fault and use_tree_attention(self.module):
            forms = [partial(by_trees, cost=cost) for cost in (COST, FEWEST_PAIRS)]
            they_agree = all(agree(form, by_logits, *size, is_shared=True) for form in forms)
            self.cost = replace(self.cost, attends_to_trees=they_agree)

    def _describe(self) -> Description:
        return Description.of(
            self.module,
            sharing_fault=self._sharing_fault,
            has_plain_head=self._forward == self._by_head,
            attends_to_trees=self.cost.attends_to_trees,
        )

    def _follow(self, found: Description) -> None:
        """Computes as rank 0 found out that it can."""
        self._sharing_fault = found.sharing_fault
        self._forward = self._by_head if found.has_plain_head else self._by_logits
        self.module.set_attn_implementation(found.attention)
        self.cost = replace(self.cost, attends_to_trees=found.attends_to_trees)

    def balance_routers(self) -> None:
        """From now on `statistics` gives the routers' loss. InvalidInput where the model has none."""
        self._routers = Routers.of(self.module)
        if self._forward == self._by_logits:
            raise InvalidInput(
                f"learner.objective.router_coef: the head of {self.module.config.model_type} is computed by the model "
                "itself, and the routers' logits are not had beside it: leave router_coef at 0"
            )

    def without_adapters(self) -> "LanguageModel":
        """The model as it was before adapters were attached, frozen. It shares the memory of this one."""
        base = copy.copy(self)
        base._leaves_adapters_out = True
        return base

    @property
    def context_length(self) -> int:
        """The longest trajectory, prompt included. InvalidInput where neither the configuration nor anyone says it."""
        wanted = self._wanted_length
        bounds = ContextBounds.of(self.module.config.to_dict())
        length = bounds.context_length(wanted, through_windows=wanted is not None)
        if length is None:
            raise InvalidInput("its config.json does not say how long a text may be; set learner.context_length")
        return length

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return int(self.module.config.vocab_size)

    @property
    def window(self) -> int | None:
        """How many tokens, itself included, a token attends to in some layers; None: to all before it."""
        return ContextBounds.of(self.module.config.to_dict()).window

    @property
    def sharing_fault(self) -> str:
        """Why sequences cannot share the columns of a common prefix; empty if every layer attends to all tokens
        before, at least in its window."""
        return self._sharing_fault

    @property
    def layout(self) -> Layout:
        """Of trajectories that are no longer than the window."""
        if self._sharing_fault:
            return Layout.APART
        return Layout.JOINED if self.cost.attends_to_trees else Layout.STACKED

    def statistics(self, rows: PrefixRows) -> TokenStatistics:
        """One forward pass, on the model's device. Padding ends a row, so that no real token attends to it."""
        adapters = without_adapters(self.module) if self._leaves_adapters_out else nullcontext()
        with self._process_group.autocast(), adapters:
            by_trees = self.cost.attends_to_trees and len(rows.token_ids_RS) == 1
            inputs, before_N, token_ids_N = self._inputs(rows, COST if by_trees else None)
            if self._routers:
                inputs["output_router_logits"] = True
            logprobs_N, entropies_N, *router_logits = self._forward(inputs, before_N, token_ids_N)
        zeros = logprobs_N.new_zeros(rows.token_ids_RS.numel())
        logprobs_RS, entropies_RS = (
            zeros.index_copy(0, rows.asked_N, one).view_as(rows.token_ids_RS) for one in (logprobs_N, entropies_N)
        )
        if not self._routers:
            return TokenStatistics(logprobs_RS, entropies_RS)
        balance_loss = self._routers.balance_loss(tuple(router_logits), rows.is_real_RS)
        return TokenStatistics(logprobs_RS, entropies_RS, balance_loss)

    def hidden_states(self, rows: PrefixRows, places_N: Tensor) -> Tensor:
        """What the last layer gives at some cells of [R, S], float32 [N, D]. One forward pass."""
        by_trees = self.cost.attends_to_trees and len(rows.token_ids_RS) == 1
        with self._process_group.autocast():
            inputs, *_ = self._inputs(rows, COST if by_trees else None)
            states_ND: Tensor = cast(Any, self.module).read_states(inputs, places_N)
        return states_ND.float()

    def _inputs(self, rows: PrefixRows, cost: AttentionCost | None = None) -> tuple[dict[str, Any], Tensor, Tensor]:
        """What a transformers model takes, the places before the tokens that are asked for, and these tokens. `cost`:
        of attention over trees; None: by masks."""
        mask = rows.attention_mask_R1SS if cost is None else prepare(rows.exits_R11S, cost)
        if mask is not None and self.module.config._attn_implementation == "eager":  # it adds its mask
            mask = torch.zeros((), device=mask.device).where(mask, torch.finfo(torch.float32).min)
        inputs = {
            "input_ids": rows.token_ids_RS,
            "attention_mask": mask,
            "position_ids": rows.positions_RS,
            "use_cache": False,
        }
        return inputs, rows.before_asked_N, rows.asked_ids_N

    def _by_head(self, inputs: dict[str, Any], before_N: Tensor, token_ids_N: Tensor) -> tuple[Tensor, ...]:
        """log p and entropy of each token, by the place that it follows, an index into [R, S]; and, where `inputs` ask
        for them, the logits of each layer's router."""
        outputs = self.module.base_model(**inputs)
        hidden_ND = outputs.last_hidden_state.flatten(0, 1)[before_N]
        head = cast(nn.Module, self.module.get_output_embeddings())
        router_logits = outputs.router_logits if inputs.get("output_router_logits") else ()
        return *self._head.statistics(hidden_ND, head, token_ids_N), *router_logits

    def _read_states(self, inputs: dict[str, Any], places_N: Tensor) -> Tensor:
        states_ND: Tensor = self.module.base_model(**inputs).last_hidden_state.flatten(0, 1)[places_N]
        return states_ND

    def _by_logits(self, inputs: dict[str, Any], before_N: Tensor, token_ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of a model whose head is more than `Head` knows."""
        logits_NV = self.module(**inputs).logits.flatten(0, 1)[before_N].float() / self._temperature
        log_normalizers_N = logits_NV.logsumexp(-1)
        logprobs_N = logits_NV.gather(1, token_ids_N[:, None])[:, 0] - log_normalizers_N
        return logprobs_N, entropies(logits_NV, log_normalizers_N)


class Policy:
    """A language model with AdamW, which trains all weights, or adapters alone. Matrices decay, vectors (norms, biases)
    do not.

    With several ranks, `apply_gradients`, `weights`, `adapter_weights`, `copy` and `restore` are collective.
    """

    def __init__(
        self,
        directory: Path,
        temperature: float,
        config: OptimizerConfig,
        process_group: ProcessGroup = SINGLE_PROCESS,
        context_length: int | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        """Of several ranks the first reads tokenizer and weights."""
        kept = adapters.saved if adapters and adapters.saved else Path(directory)
        self.tokenizer: Any = read_tokenizer(kept) if process_group.is_rank0 else None
        self._process_group = process_group
        self.model = LanguageModel.load(
            directory, temperature, process_group, context_length=context_length, adapters=adapters
        )
        if self.tokenizer is not None:
            require_vocabulary(directory, self.tokenizer, self.model.vocab_size)
        self._max_grad_norm = config.max_grad_norm
        self._parameters = [one for one in self.model.module.parameters() if one.requires_grad]
        groups = [
            {"params": [p for p in self._parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self._parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]  # adapters have no vectors
        self._optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)

    def apply_gradients(self, learning_rate: float) -> float | None:
        """One step of AdamW on the accumulated gradients, which it clears; returns their norm before clipping.

        Returns None, and leaves the weights unchanged, when a gradient is NaN or infinite.
        """
        for parameter in self._parameters:
            if parameter.grad is None:  # of no use to an answer; AdamW would keep no state for it, which a resume wants
                parameter.grad = torch.zeros_like(parameter)
        of_all = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm, foreach=True)
        norm = float(of_all.full_tensor() if isinstance(of_all, DTensor) else of_all)
        is_finite = math.isfinite(norm)
        if is_finite:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self.clear_gradients()
        return norm if is_finite else None

    def clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    @property
    def has_adapters(self) -> bool:
        """Whether adapters alone are trained."""
        return has_adapters(self.model.module)

    def weights(self, dtype: torch.dtype | None = None, into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All weights, adapters merged into them, unsharded and on the CPU, tied ones once; on rank 0 only. At any
        moment one of them is whole on a device. `into`: an earlier copy that nobody needs any more, whose memory is
        used again."""
        if not self.has_adapters:
            return self._gather(dtype, into=into)
        merged = merge(self._gather(), self.model.module) if self._process_group.is_rank0 else self._gather()
        return {name: tensor.to(dtype or tensor.dtype) for name, tensor in merged.items()}

    def adapter_weights(self) -> dict[str, Tensor]:
        """What is trained where adapters alone are, unsharded and on the CPU; on rank 0 only."""
        return self._gather(only_trained=True)

    def _gather(
        self,
        dtype: torch.dtype | None = None,
        *,
        only_trained: bool = False,
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Copies of the weights in `dtype`, or as they are."""
        gathered = {}
        options = StateDictOptions(ignore_frozen_params=only_trained)
        for name, tensor in get_model_state_dict(self.model.module, options=options).items():
            if name in self.model.module.all_tied_weights_keys or (only_trained and not is_adapter(name)):
                continue
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else cast(Tensor, tensor)
            if self._process_group.is_rank0:
                gathered[name] = _copy_to_cpu(whole.detach(), dtype or whole.dtype, (into or {}).get(name))
        return gathered

    def write(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Writes configuration, tokenizer and `weights`, as transformers and a rollout replica read them."""
        try:
            copied = dict(weights)  # it may be emptied
            self.model.module.save_pretrained(directory, state_dict=copied, max_shard_size=_MAX_FILE)
        except SafetensorError as error:
            raise OSError(f"{directory}: {error}") from error
        self._write_tokenizer(directory)
        _record_dtype(directory / "config.json", next(iter(weights.values())).dtype)
        _share_permissions(directory)

    def write_adapters(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Writes tokenizer and adapters, as peft reads them beside the model that the run began with."""
        write_adapters(directory, self.model.module, weights)
        self._write_tokenizer(directory)
        _share_permissions(directory)

    def _write_tokenizer(self, directory: Path) -> None:
        try:
            self.tokenizer.save_pretrained(directory)
        except Exception as error:  # tokenizers has no other for a file that cannot be written
            raise OSError(f"{directory}: {error}") from error

    def copy(self) -> Kept:
        """What `write_kept` writes while training goes on."""
        weights = self.adapter_weights() if self.has_adapters else self.weights()
        return Kept(weights, copy_to_cpu(moments_of(self.model.module, self._optimizer)))

    def write_kept(self, kept: Kept, directory: Path) -> None:
        """Writes a copy: rank 0 the policy, in the precision of training, or its adapters where only these are trained;
        every rank its part of AdamW's state."""
        write_moments(kept.moments, directory / KEPT_MOMENTS, self._process_group.background)
        if self._process_group.is_rank0:
            (self.write_adapters if self.has_adapters else self.write)(directory / KEPT_POLICY, kept.weights)

    def save(self, directory: Path) -> None:
        """Writes what a checkpoint keeps, but AdamW's state. For one rank only."""
        if self.has_adapters:
            self.write_adapters(directory, self.adapter_weights())
        else:
            self.write(directory, self.weights())

    def restore(self, moments: Path) -> None:
        """Goes on with AdamW's state, whatever the number of ranks that wrote it. OSError where it cannot be read."""
        if has_moments(moments):
            read_moments(make_moments(self.model.module, self._optimizer), moments, self._process_group.background)

    def restore_unsharded(self, state: dict[str, Any]) -> None:
        """As `restore`, of what earlier releases kept."""
        if state:
            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self.model.module, self._optimizer, state, options=options)


def _copy_to_cpu(tensor: Tensor, dtype: torch.dtype, into: Tensor | None) -> Tensor:
    """A copy, in memory that is there already if it fits: new memory takes longer to fill."""
    if into is None or into.shape != tensor.shape or into.dtype != dtype:
        return tensor.to("cpu", dtype, copy=True)
    return into.copy_(tensor)


def _partial_attention(config: PreTrainedConfig) -> str:
    """What the configuration says of layers that attend to other than the tokens before: a toy tree may not show it."""
    window = ContextBounds.of(config.to_dict()).window
    known = {"full_attention", "global", *(["sliding_attention"] if window else [])}
    layers = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ()
    partial_layers = {str(layer) for layer in layers} - known
    return f"it has layers of {', '.join(sorted(partial_layers))}" if partial_layers else ""


def _share_permissions(directory: Path) -> None:
    """Gives every file the permissions that the umask leaves, as a file of this process's own making has them:
    safetensors writes for the owner alone, and another user could not read the policy."""
    mode = (directory / "tokenizer_config.json").stat().st_mode & 0o777
    for path in directory.iterdir():
        if path.is_file():
            path.chmod(mode)


def _record_dtype(path: Path, dtype: torch.dtype) -> None:
    """Corrects the dtype that transformers wrote, the module's: an engine serves in the dtype it finds there."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2)
    path.write_text(text, encoding="utf-8")
