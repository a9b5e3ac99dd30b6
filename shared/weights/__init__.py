"""Policy bundles: their content, their form on the wire, their storage on disk."""

from shared.weights.context import ContextBounds
from shared.weights.framing import bundle_length, stream_bundle
from shared.weights.incoming import Incoming
from shared.weights.layout import UNTRAINABLE, refuse_config, refuse_directory, refuse_names, refuse_pointers
from shared.weights.lineage import Lineage, Outgoing, send_full
from shared.weights.manifest import Snapshot, read_manifest, write_manifest
from shared.weights.prompts import Encoder, Messages, Prompt, prompt_encoder
from shared.weights.stop_tokens import read_json_object, stop_token_ids
from shared.weights.store import SnapshotStore
from shared.weights.tensors import TensorShape, require_same_tensors, tensor_shapes

__all__ = [
    "UNTRAINABLE",
    "ContextBounds",
    "Encoder",
    "Incoming",
    "Lineage",
    "Messages",
    "Outgoing",
    "Prompt",
    "Snapshot",
    "SnapshotStore",
    "TensorShape",
    "bundle_length",
    "prompt_encoder",
    "read_json_object",
    "read_manifest",
    "refuse_config",
    "refuse_directory",
    "refuse_names",
    "refuse_pointers",
    "require_same_tensors",
    "send_full",
    "stop_token_ids",
    "stream_bundle",
    "tensor_shapes",
    "write_manifest",
]
