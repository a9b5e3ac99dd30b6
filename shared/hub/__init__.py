"""Models by name: a directory, or a model of the Hugging Face hub at one commit."""

from shared.hub.loading import log_loading
from shared.hub.names import HubModel, describe_model
from shared.hub.resolving import ResolvedModel, resolve_model
from shared.hub.watching import Download, DownloadListener, log_downloads, now_and_then

__all__ = [
    "Download",
    "DownloadListener",
    "HubModel",
    "ResolvedModel",
    "describe_model",
    "log_downloads",
    "log_loading",
    "now_and_then",
    "resolve_model",
]
