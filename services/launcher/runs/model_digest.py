"""What tells the policy in a directory from others, without torch."""

import hashlib
from pathlib import Path

_WHOLE = ("*.json", "*.jinja")
_SAMPLED = ("*.safetensors", "*.bin")
_NUM_SAMPLES, _SAMPLE_BYTES = 256, 4096
_LARGEST_WHOLE = 64 << 20


def digest_model(directory: Path) -> str:
    """A hash of configuration, tokenizer and template, and of samples of the weights."""
    digest = hashlib.sha256()
    for pattern in (*_WHOLE, *_SAMPLED):
        for path in sorted(directory.glob(pattern)):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            is_whole = pattern in _WHOLE and size <= _LARGEST_WHOLE
            step = _SAMPLE_BYTES if is_whole else max(_SAMPLE_BYTES, size // _NUM_SAMPLES)
            with path.open("rb") as file:
                for start in range(0, size, step):
                    file.seek(start)
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
