"""The SGLang engine, over a server that the replica launches or an external one."""

from services.rollout.engines.sglang.engine import SglangEngine
from services.rollout.engines.sglang.metrics import SglangMetrics
from services.rollout.engines.sglang.server import ExternalServer, ManagedServer

__all__ = ["ExternalServer", "ManagedServer", "SglangEngine", "SglangMetrics"]
