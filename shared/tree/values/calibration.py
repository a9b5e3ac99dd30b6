"""Calibrates an estimate of success: a logistic of its logit, fitted to counts by maximum likelihood (V4-c)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_SMALLEST = 1e-12
"""Estimates are taken to lie at least so far from 0 and 1, where logits are infinite."""
_WEAK = 0.1
"""The precision that a fit begins with, about a = 1 and b = 0: it decides only where there is next to nothing."""
_MAX_STEPS, _TOLERANCE = 50, 1e-10


class Observation(NamedTuple):
    """A node: an estimate of its value before its leaves were looked at, and what they came to."""

    estimate: float
    num_leaves: float
    value: float
    """Mean reward of the leaves."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """V4-c: estimate ↦ σ(a·logit(estimate) + b)."""

    a: float = 1.0
    b: float = 0.0

    def of(self, estimate: float) -> float:
        return sigmoid(self.a * logit(estimate) + self.b)


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """The most likely calibration given all observations so far, kept as it and the curvature of what they said.

    More observations come in by `add`, and nothing else of the earlier ones is kept: their log-likelihood is taken to
    be a parabola about its maximum.
    """

    best: Calibration = Calibration()
    curvature: tuple[float, float, float] = (_WEAK, 0.0, _WEAK)
    """−∂²/∂a², −∂²/∂a∂b and −∂²/∂b² of the log-likelihood."""

    def add(self, observations: Iterable[Observation], kept: float = 1.0) -> "CalibrationFit":
        """With more observations; earlier ones count `kept` times what they did, so that a fit follows a policy."""
        points = [(logit(one.estimate), one.num_leaves, one.value) for one in observations]
        if not points:
            return self
        aa, ab, bb = self.curvature
        before = CalibrationFit(self.best, (kept * aa, kept * ab, kept * bb))
        best = before.best
        for _ in range(_MAX_STEPS):
            step, curvature = _newton_step(points, best, before)
            best = _climb(points, best, step, before)
            if max(map(abs, step)) < _TOLERANCE:
                break
        return CalibrationFit(best, curvature)


def fit(observations: Iterable[Observation]) -> Calibration:
    """The likeliest a and b: they maximise Σ n·(v·log p + (1 − v)·log(1 − p)), p = σ(a·x + b)."""
    return CalibrationFit().add(observations).best


def logit(p: float) -> float:
    """log(p/(1 − p)), p kept off 0 and 1."""
    inside = min(max(p, _SMALLEST), 1.0 - _SMALLEST)
    return math.log(inside / (1.0 - inside))


def sigmoid(x: float) -> float:
    """1/(1 + exp(−x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


_Points = Sequence[tuple[float, float, float]]
"""Logit, weight and value."""


def _newton_step(
    points: _Points, at: Calibration, before: CalibrationFit
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """Curvature⁻¹·gradient of the log-likelihood, with the parabola of what came before; and the curvature."""
    aa, ab, bb = before.curvature
    off_a, off_b = at.a - before.best.a, at.b - before.best.b
    gradient_a, gradient_b = -(aa * off_a + ab * off_b), -(ab * off_a + bb * off_b)
    for x, n, value in points:
        p = sigmoid(at.a * x + at.b)
        gradient_a += n * (value - p) * x
        gradient_b += n * (value - p)
        weight = n * p * (1.0 - p)
        aa, ab, bb = aa + weight * x * x, ab + weight * x, bb + weight
    determinant = aa * bb - ab * ab
    step = (bb * gradient_a - ab * gradient_b) / determinant, (aa * gradient_b - ab * gradient_a) / determinant
    return step, (aa, ab, bb)


def _climb(points: _Points, at: Calibration, step: tuple[float, float], before: CalibrationFit) -> Calibration:
    """A step along the Newton direction, halved until it does not lead down."""
    height, share = _height(points, at, before), 1.0
    for _ in range(_MAX_STEPS):
        reached = Calibration(at.a + share * step[0], at.b + share * step[1])
        if _height(points, reached, before) >= height:
            return reached
        share /= 2
    return at


def _height(points: _Points, at: Calibration, before: CalibrationFit) -> float:
    """The log-likelihood of the points, and the parabola of what came before."""
    (aa, ab, bb), off_a, off_b = before.curvature, at.a - before.best.a, at.b - before.best.b
    parabola = -0.5 * (aa * off_a * off_a + 2 * ab * off_a * off_b + bb * off_b * off_b)
    return parabola + math.fsum(
        n * (value * _log_sigmoid(at.a * x + at.b) + (1.0 - value) * _log_sigmoid(-(at.a * x + at.b)))
        for x, n, value in points
    )


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))
