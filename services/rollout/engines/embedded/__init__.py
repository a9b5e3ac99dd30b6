"""A small CPU engine over transformers models: continuous batching, a radix prefix cache, live weights."""

from services.rollout.engines.embedded.counters import EngineCounters
from services.rollout.engines.embedded.engine import EmbeddedEngine
from services.rollout.engines.embedded.series import EngineSeries
from services.rollout.engines.embedded.settings import EmbeddedSettings

__all__ = ["EmbeddedEngine", "EmbeddedSettings", "EngineCounters", "EngineSeries"]
