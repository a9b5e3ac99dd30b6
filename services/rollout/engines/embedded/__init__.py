"""A small CPU engine over transformers models: continuous batching, a radix prefix cache, live weights."""

from services.rollout.engines.embedded.batch import EmbeddedSettings
from services.rollout.engines.embedded.engine import EmbeddedEngine
from services.rollout.engines.embedded.metrics import EmbeddedCounters

__all__ = ["EmbeddedCounters", "EmbeddedEngine", "EmbeddedSettings"]
