"""Makes `services` and `shared` mean the packages that come with this one, whatever else is called so.

They are loaded by their place. A package of the user's own with such a name goes on below the same name: its modules
are found after ours, or ours after its own where it was imported first.
"""

import sys
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import extend_path
from types import ModuleType

HOME = Path(__file__).resolve().parents[1]
NAMES = ("services", "shared")


def load_own_packages(home: Path = HOME) -> None:
    """Loads what is not loaded. ImportError where a package of the same name, imported before, has a module that is
    called as one of ours."""
    for name in NAMES:
        loaded = sys.modules.get(name)
        if loaded is None:
            _load(name, home / name)
        elif not hasattr(loaded, "__path__"):
            raise ImportError(
                f"the module {loaded.__file__} was imported before ibtpo, which has a package of that name: rename it"
            )
        elif home / name not in map(_resolve, loaded.__path__):
            _join(loaded, home / name)


def _load(name: str, ours: Path) -> None:
    spec = spec_from_file_location(name, ours / "__init__.py", submodule_search_locations=[str(ours)])
    if spec is None or spec.loader is None:
        raise ImportError(f"the package {name!r} that comes with ibtpo is missing in {ours}: install ibtpo again")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.__path__ = extend_path(module.__path__, name)


def _join(theirs: ModuleType, ours: Path) -> None:
    """Lets our modules be found behind those of a package of that name which is loaded already."""
    if clash := _modules(map(_resolve, theirs.__path__)) & _modules([ours]):
        raise ImportError(
            f"the package {theirs.__name__!r} in {', '.join(theirs.__path__)} was imported before ibtpo, and has "
            f"{' and '.join(sorted(clash))}, as ibtpo's own {theirs.__name__!r} has: import ibtpo first, or rename it"
        )
    theirs.__path__ = [*theirs.__path__, str(ours)]


def _modules(folders: Iterable[Path]) -> set[str]:
    found = (entry for folder in folders if folder.is_dir() for entry in folder.iterdir())
    names = {entry.stem for entry in found if entry.suffix == ".py" or (entry / "__init__.py").is_file()}
    return names - {"__init__"}


def _resolve(path: str) -> Path:
    return Path(path).resolve()
