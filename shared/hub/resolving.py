"""Finds a model by its name: a directory, the hub's cache, or the hub, from which only what we read is fetched.

The cache and its place (HF_HOME), offline mode (HF_HUB_OFFLINE), access (HF_TOKEN) and mirrors (HF_ENDPOINT) are those
of huggingface_hub.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.errors import IbtpoError, InvalidInput, Unavailable, shorten
from shared.hub.names import HubModel
from shared.hub.watching import DownloadListener, watch_download
from shared.weights.layout import TEXT_FILES, WEIGHTS, refuse_config, refuse_directory, refuse_names, weight_files
from shared.weights.stop_tokens import read_json_object

Inspector = Callable[[Path], object]
"""Raises InvalidInput where a directory, in which weights may still lack, holds no model of use."""
_LISTING_SECONDS = 20.0
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Where a model's files lie, and its name for whoever resolves it again: of the hub, with the commit."""

    directory: Path
    name: Path


def resolve_model(
    model: Path, on_progress: DownloadListener = lambda _: None, inspect: Inspector = lambda _: None
) -> ResolvedModel:
    """The model of a directory, or of the hub where no directory has this name. InvalidInput, with the remedy, for one
    that cannot be had or is no causal language model; Unavailable while the hub cannot be asked.

    Where weights are to be fetched, `inspect` is called before, once the small files are there.
    """
    directory = model.expanduser()
    hub_model = None if directory.exists() else HubModel.parse(model)
    if hub_model is None:
        return ResolvedModel(refuse_directory(directory), directory.resolve())
    cached = _find_cached(hub_model) if hub_model.is_pinned else None
    directory = cached or _fetch(hub_model, on_progress, inspect)
    refuse_directory(directory, str(hub_model))
    return ResolvedModel(directory, Path(str(hub_model.at(directory.name))))


def _find_cached(model: HubModel) -> Path | None:
    """The snapshot in the cache, if all that we read of it is there."""
    from huggingface_hub import snapshot_download  # here and below: it takes half a second, for names alone

    try:
        some = ["config.json"]  # without it everything that the hub has must be there
        directory = Path(
            snapshot_download(model.repo, revision=model.revision, allow_patterns=some, local_files_only=True)
        )
        wanted = {"config.json", "tokenizer.json", *(weight_files(directory) or (WEIGHTS,))}
    except (OSError, InvalidInput):
        return None
    return directory if all((directory / name).exists() for name in wanted) else None


def _fetch(model: HubModel, on_progress: DownloadListener, inspect: Inspector) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # we have our own
    with _explain(model):
        try:
            commit, sizes = _list_files(model)
        except _Unreached as error:
            return _take_cached(model, error)
        refuse_names(str(model), sizes)
        wanted = [name for name in TEXT_FILES if name in sizes]
        directory = Path(snapshot_download(model.repo, revision=model.revision, allow_patterns=wanted))
        refuse_config(str(model), read_json_object(directory / "config.json"))
        inspect(directory)
        weights = weight_files(directory) or (WEIGHTS,)
        num_bytes = _missing_bytes(model, directory, weights, sizes)
        _require_room(model, directory, num_bytes)
        if num_bytes:
            with watch_download(directory.parents[1] / "blobs", num_bytes, str(model), on_progress):
                snapshot_download(model.repo, revision=commit, allow_patterns=list(weights))
    return directory


class _Unreached(Exception):
    """The hub gave no answer about a model, for this reason."""


def _list_files(model: HubModel) -> tuple[str, Mapping[str, int]]:
    """The commit, and the size of every file at the top of the model's repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model.repo, revision=model.revision, files_metadata=True, timeout=_LISTING_SECONDS)
    except OfflineModeIsEnabled as error:
        raise _Unreached("HF_HUB_OFFLINE is set") from error
    except HfHubHTTPError as error:
        if error.response.status_code < 500 and error.response.status_code != 429:
            raise
        raise _Unreached(f"it answers with {error.response.status_code}") from error
    except Exception as error:  # its HTTP client, and so what it raises, differs from release to release
        raise _Unreached(f"{type(error).__name__}: {shorten(str(error))}") from error
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or () if "/" not in one.rfilename}
    return str(info.sha), sizes


def _take_cached(model: HubModel, reason: _Unreached) -> Path:
    """What was fetched before, as the hub cannot be asked."""
    from huggingface_hub import constants

    if (directory := _find_cached(model)) is not None:
        return directory
    said = f"{model} is no directory here, and the cache {constants.HF_HUB_CACHE} does not hold it whole"
    elsewhere = f"`hf download {model.repo} --local-dir DIRECTORY` makes one where there is a network"
    if constants.HF_HUB_OFFLINE:
        raise InvalidInput(f"{said}; {reason}: unset it, or give a directory: {elsewhere}")
    raise Unavailable(
        f"{said}; {constants.ENDPOINT} gives no answer ({reason}): check network and proxy, or give a directory: "
        f"{elsewhere}"
    )


def _missing_bytes(model: HubModel, directory: Path, weights: Sequence[str], sizes: Mapping[str, int]) -> int:
    if lacking := [name for name in weights if name not in sizes]:
        raise InvalidInput(
            f"{model} lacks {lacking[0]} on the hub: give another revision (OWNER/NAME@REVISION) or a directory"
        )
    return sum(sizes[name] for name in weights if not (directory / name).exists())


def _require_room(model: HubModel, directory: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if num_bytes and free < num_bytes + _SPARE_BYTES:
        raise InvalidInput(
            f"{model} takes {num_bytes / 1e9:.1f} GB, and {directory.parents[2]} has {free / 1e9:.1f} GB left: make "
            "room, or set HF_HOME to a folder on another disk"
        )


@contextmanager
def _explain(model: HubModel) -> Iterator[None]:
    """Turns what the hub's client raises into one line with the remedy."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{model.repo}"
    try:
        yield
    except IbtpoError:
        raise
    except GatedRepoError as error:
        raise InvalidInput(
            f"{model} is gated: accept its terms at {page}, then give a token that may read it (HF_TOKEN, or hf auth "
            "login)"
        ) from error
    except RevisionNotFoundError as error:
        raise InvalidInput(
            f"{model.repo} has no revision {model.revision!r}: give a branch, tag or commit of {page}/commits/main"
        ) from error
    except RepositoryNotFoundError as error:
        raise InvalidInput(
            f"{model.repo} is no directory here, and no model of {constants.ENDPOINT}: check the spelling; for a "
            "private one give a token that may read it (HF_TOKEN, or hf auth login)"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InvalidInput(
                f"{constants.ENDPOINT} refuses the token for {model.repo} ({status}): correct HF_TOKEN (hf auth login)"
            ) from error
        raise Unavailable(f"{page} answers with {status}: try again later, or give a directory") from error
    except PermissionError as error:
        raise InvalidInput(
            f"cannot write {error.filename or constants.HF_HUB_CACHE}: set HF_HOME to a folder that can be written"
        ) from error
    except Exception as error:  # its HTTP client, and so what it raises, differs from release to release
        raise Unavailable(
            f"{model} could not be fetched from {constants.ENDPOINT} ({type(error).__name__}: {shorten(str(error))}): "
            "try again, what has come is kept; or give a directory"
        ) from error
