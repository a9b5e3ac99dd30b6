"""The head of a language model in chunks: log-probabilities and entropies without a whole logits tensor.

Shapes: N places that ask for a token, D hidden units, V tokens of the vocabulary, C places of one chunk.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedConfig

CHUNK_BYTES = 1 << 27
"""Of one chunk's logits in float32. A pass holds two such tensors; smaller chunks make products of matrices slower."""


@dataclass(frozen=True, slots=True)
class Head:
    """Logits are cap·tanh(scale·(W h + b)/cap), without a cap scale·(W h + b), and then divided by `temperature`."""

    scale: float
    cap: float | None
    temperature: float

    @classmethod
    def of(cls, config: PreTrainedConfig, temperature: float) -> "Head":
        """As the configurations of Cohere (`logit_scale`), Granite (`logits_scaling`) and Gemma
        (`final_logit_softcapping`) describe it."""
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale, getattr(config, "final_logit_softcapping", None), temperature)

    def statistics(
        self, hidden_ND: Tensor, layer: nn.Module, token_ids_N: Tensor, chunk_bytes: int = CHUNK_BYTES
    ) -> tuple[Tensor, Tensor]:
        """log p and −Σ p log p [N], float32, of each token after its hidden state; `layer` is the head's linear map.

        Both have gradients. The backward pass computes the logits again.
        """
        weight_VD, bias_V = cast(Tensor, layer.weight), cast(Tensor | None, getattr(layer, "bias", None))
        dtype = _autocast_dtype(hidden_ND.device.type) or weight_VD.dtype
        num_places = max(1, chunk_bytes // (4 * len(weight_VD)))
        found: tuple[Tensor, Tensor] = _ChunkedHead.apply(  # type: ignore[no-untyped-call]
            hidden_ND.to(dtype),
            weight_VD.to(dtype),
            None if bias_V is None else bias_V.to(dtype),
            token_ids_N,
            self,
            num_places,
        )
        return found

    def logits(self, hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, out: Tensor) -> Tensor:
        """[C, V] in float32, divided by the temperature, in the memory of `out`, a larger tensor."""
        logits_CV = out[: len(hidden_CD)]
        if weight_VD.dtype == out.dtype:
            torch.mm(hidden_CD, weight_VD.T, out=logits_CV)
        else:
            logits_CV.copy_(hidden_CD @ weight_VD.T)
        if bias_V is not None:
            logits_CV += bias_V
        if self.cap:
            return logits_CV.mul_(self.scale / self.cap).tanh_().mul_(self.cap / self.temperature)
        return logits_CV if self.scale == self.temperature else logits_CV.mul_(self.scale / self.temperature)

    def gradient_(self, gradient_CV: Tensor, logits_CV: Tensor) -> Tensor:
        """Turns a gradient of `logits`, in place, into one of W h + b."""
        if self.cap:
            tanh_CV = logits_CV.mul_(self.temperature / self.cap)
            gradient_CV.mul_(tanh_CV.square_().neg_().add_(1.0))
        return gradient_CV if self.scale == self.temperature else gradient_CV.mul_(self.scale / self.temperature)


class _ChunkedHead(torch.autograd.Function):
    """Chunks take turns in the same memory: fresh memory would cost more than the work in it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_ids_N: Tensor,
        head: Head,
        num_places: int,
    ) -> tuple[Tensor, Tensor]:
        logprobs_N, entropies_N, log_normalizers_N = hidden_ND.new_empty(3, len(hidden_ND), dtype=_wide(weight_VD))
        space = _space(hidden_ND, weight_VD, num_places)
        for start in range(0, len(hidden_ND), num_places):
            part = slice(start, start + num_places)
            logits_CV = head.logits(hidden_ND[part], weight_VD, bias_V, space[0])
            chosen_C = logits_CV.gather(1, token_ids_N[part, None])[:, 0]
            largest_C = logits_CV.amax(1)
            exponentials_CV = torch.sub(logits_CV, largest_C[:, None], out=space[1, : len(logits_CV)]).exp_()
            sums_C = exponentials_CV.sum(1)
            log_normalizers_N[part] = largest_C + sums_C.log()
            logprobs_N[part] = chosen_C - log_normalizers_N[part]
            entropies_N[part] = log_normalizers_N[part] - _row_products(exponentials_CV, logits_CV) / sums_C
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, token_ids_N, log_normalizers_N, entropies_N)
        ctx.head, ctx.num_places = head, num_places
        ctx.set_materialize_grads(False)
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logprobs_N: Tensor | None, of_entropies_N: Tensor | None) -> tuple[Tensor | None, ...]:
        """∂log p(y)/∂z = 1_y − p and ∂H/∂z = −p (log p + H), z the logits."""
        hidden_ND, weight_VD, bias_V, token_ids_N, log_normalizers_N, entropies_N = ctx.saved_tensors
        hidden_gradient_ND = torch.empty_like(hidden_ND)
        # in float32 until the end: sums of many chunks in bfloat16 would lose the small ones
        wide_VD = torch.zeros_like(weight_VD, dtype=_wide(weight_VD)) if ctx.needs_input_grad[1] else None
        bias_gradient_V = None if bias_V is None else torch.zeros_like(bias_V)
        if of_logprobs_N is None:
            of_logprobs_N = torch.zeros_like(entropies_N)
        space = _space(hidden_ND, weight_VD, ctx.num_places)
        for start in range(0, len(hidden_ND), ctx.num_places):
            part = slice(start, start + ctx.num_places)
            hidden_CD, log_normalizers_C1 = hidden_ND[part], log_normalizers_N[part, None]
            logits_CV = ctx.head.logits(hidden_CD, weight_VD, bias_V, space[0])
            gradient_CV = torch.sub(logits_CV, log_normalizers_C1, out=space[1, : len(hidden_CD)]).exp_()
            of_logprobs_C1 = of_logprobs_N[part, None]
            if of_entropies_N is None:
                gradient_CV.mul_(-of_logprobs_C1)
            else:
                of_entropies_C1 = of_entropies_N[part, None]
                surprise_CV = logits_CV - (log_normalizers_C1 - entropies_N[part, None])
                gradient_CV.mul_(surprise_CV.mul_(-of_entropies_C1).sub_(of_logprobs_C1))
            gradient_CV.scatter_add_(1, token_ids_N[part, None], of_logprobs_C1)
            gradient_CV = ctx.head.gradient_(gradient_CV, logits_CV).to(weight_VD.dtype)
            hidden_gradient_ND[part] = gradient_CV @ weight_VD
            if wide_VD is not None and wide_VD.dtype == weight_VD.dtype:
                wide_VD.addmm_(gradient_CV.T, hidden_CD)
            elif wide_VD is not None:
                wide_VD += gradient_CV.T @ hidden_CD
            if bias_gradient_V is not None:
                bias_gradient_V += gradient_CV.sum(0)
        weight_gradient_VD = None if wide_VD is None else wide_VD.to(weight_VD.dtype)
        return hidden_gradient_ND, weight_gradient_VD, bias_gradient_V, None, None, None


def _autocast_dtype(device: str) -> torch.dtype | None:
    is_enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_enabled else None


def _wide(weight_VD: Tensor) -> torch.dtype:
    """What is summed in: float32, or double where the weights are."""
    return torch.promote_types(weight_VD.dtype, torch.float32)


def _space(hidden_ND: Tensor, weight_VD: Tensor, num_places: int) -> Tensor:
    """Memory for the logits of a chunk and for what is made of them [2, C, V]."""
    return hidden_ND.new_empty(2, min(num_places, len(hidden_ND)), len(weight_VD), dtype=_wide(weight_VD))


def _row_products(left_CV: Tensor, right_CV: Tensor) -> Tensor:
    """Σ_v left·right [C], without a tensor of their products."""
    return torch.bmm(left_CV[:, None, :], right_CV[:, :, None])[:, 0, 0]


def entropies(logits_RSV: Tensor, log_normalizers_RS: Tensor) -> Tensor:
    """−Σ p log p per column [R, S], p = softmax(logits). A gradient costs nothing unless it is asked for."""
    found: Tensor = _Entropies.apply(logits_RSV, log_normalizers_RS.detach())  # type: ignore[no-untyped-call]
    return found


class _Entropies(torch.autograd.Function):
    """log Z − Σ p·logit; the backward pass computes p again."""

    @staticmethod
    def forward(ctx: Any, logits_RSV: Tensor, log_normalizers_RS: Tensor) -> Tensor:
        p_RSV = (logits_RSV - log_normalizers_RS[..., None]).exp_()
        entropies_RS: Tensor = log_normalizers_RS - p_RSV.mul_(logits_RSV).sum(-1)
        ctx.save_for_backward(logits_RSV, log_normalizers_RS, entropies_RS)
        return entropies_RS

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RS: Tensor) -> tuple[Tensor, None]:
        """∂H/∂z = −p (log p + H), z the logits."""
        logits_RSV, log_normalizers_RS, entropies_RS = ctx.saved_tensors
        logprobs_RSV = logits_RSV - log_normalizers_RS[..., None]
        slopes_RSV = logprobs_RSV.exp() * (logprobs_RSV + entropies_RS[..., None])
        return slopes_RSV.mul_(-gradient_RS[..., None]), None
