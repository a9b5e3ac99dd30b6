"""Policy bundles: what is in one, how it travels, how it lies on the disk."""

from shared.weights.framing import bundle_bytes, stream_bundle
from shared.weights.manifest import read_manifest, write_manifest
from shared.weights.store import Snapshot, SnapshotStore
from shared.weights.tensors import TensorShape, refuse_other_shapes, tensor_shapes

__all__ = [
    "Snapshot",
    "SnapshotStore",
    "TensorShape",
    "bundle_bytes",
    "read_manifest",
    "refuse_other_shapes",
    "stream_bundle",
    "tensor_shapes",
    "write_manifest",
]
