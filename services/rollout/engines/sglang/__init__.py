"""The SGLang engine: a server that the replica launches and keeps, or one that it is given."""

from services.rollout.config import SglangConfig
from services.rollout.engines.sglang.engine import SglangEngine
from services.rollout.engines.sglang.metrics import SglangMetrics
from services.rollout.engines.sglang.server import ExternalServer, ManagedServer

__all__ = ["ExternalServer", "ManagedServer", "SglangConfig", "SglangEngine", "SglangMetrics"]
