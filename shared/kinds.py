"""Parts of a method that are chosen by name or by import path: samplers, credits, value estimators, loss terms.

A part is a frozen dataclass, or a pydantic model, whose fields are its settings. In a configuration, and on the way
from one process to another, it is a table: `{ kind = "ib", rounds = 6 }`, or `{ kind = "package.module:Class", … }`.
The built-in ones are import paths too, with short names.
"""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.errors import describe

Part = TypeVar("Part")

_PACKAGE = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_FORM = "package.module:Class"
_OURS = frozenset({"shared", "services", "ibtpo"})


class _Permission:
    """Which packages a configuration or a message may have imported. All, where only the user writes them."""

    packages: frozenset[str] | None = None


def permit_packages(packages: Iterable[str]) -> None:
    """From now on this process imports parts of these packages, and of no other, whatever a message names."""
    _Permission.packages = frozenset(packages)


def _check_packages(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _PACKAGE.fullmatch(name):
            raise ValueError(f"{name!r} is no package: give the first part of an import path, my_pkg of my_pkg:Mine")

    return names


Plugins = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    AfterValidator(_check_packages),
]
"""The packages of the user's own that messages may name; one may be given by its name alone."""


def is_path(kind: str) -> bool:
    """Whether the kind is an import path, and no name."""
    return ":" in kind


def package_of(kind: str) -> str:
    """The top-level package of an import path."""
    return kind.partition(":")[0].partition(".")[0]


class Kinds(Generic[Part]):
    """All parts of one sort. As metadata of a field, `Annotated[Sampler, SAMPLERS]`, it reads and writes the part."""

    def __init__(self, noun: str, base: type[Part], built_in: Mapping[str, str], default: str = "") -> None:
        """`base` is what every part subclasses; `default` the kind of a table that names none."""
        self.noun = noun
        self.base = base
        self._built_in = dict(built_in)
        self._default = default

    @property
    def names(self) -> tuple[str, ...]:
        """Of the built-in ones."""
        return tuple(self._built_in)

    @cached_property
    def classes(self) -> Mapping[str, type[Part]]:
        """The built-in ones by their names."""
        return {name: _import(path) for name, path in self._built_in.items()}

    def class_of(self, kind: str) -> type[Part]:
        """The class of a name or of an import path; ValueError with the remedy where there is none."""
        if kind in self._built_in:
            return self.classes[kind]
        if not _PATH.fullmatch(kind):
            known = ", ".join(self._built_in)
            raise ValueError(
                _no_path(kind) or f"no {self.noun} is named {kind!r}: choose from {known}, or give {_FORM}"
            )
        return self._check_class(kind, _import_own(kind))

    def classes_of(self, paths: Iterable[str]) -> Mapping[str, type[Part]]:
        """Those of the import paths that are such parts, and whose settings can be described."""
        found = {}
        for path in paths:
            try:
                _adapter(part := self.class_of(path))
                get_type_hints(part)
                found[path] = part
            except (ValueError, NameError, TypeError, AttributeError):
                continue  # it is refused with its reason where it is made
        return found

    def make(self, value: Any) -> Part:
        """The part of a name, an import path or a table with `kind` and settings; a part is returned as it is.

        ValueError for a kind that is not here, pydantic's ValidationError for settings that do not fit it.
        """
        if self.base in type(value).__mro__:
            return cast(Part, value)
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"a {self.noun} is a name, an import path or a table with its kind, not {value!r:.80}")
        kind = value.get("kind", self._default)
        if not isinstance(kind, str) or not kind:
            known = ", ".join(self._built_in)
            raise ValueError(f"say which {self.noun}: kind = one of {known}, or package.module:Class")
        found: type[Any] = self.class_of(kind)
        settings = {name: one for name, one in value.items() if name != "kind"}
        _refuse_unknown(found, settings)
        try:
            return cast(Part, _adapter(found).validate_python(settings))
        except ValidationError:
            raise
        except Exception as error:  # the class's own code, which may raise anything
            raise ValueError(f"{kind} cannot be made: {describe(error)}") from error

    def kind_of(self, part: Part) -> str:
        """Its name, or its import path."""
        own = type(part)
        path = f"{own.__module__}:{own.__qualname__}"
        return next((name for name, known in self._built_in.items() if known == path), path)

    def dump(self, part: Part, *, exclude_none: bool = False) -> dict[str, Any]:
        """The table that `make` turns into an equal part, of values that JSON can hold; without those of None, which
        TOML cannot, it is equal where None is their default."""
        own: type[Any] = type(part)
        dumped, names = _adapter(own).dump_python(part, mode="json", exclude_none=exclude_none), settings_of(own)
        return {"kind": self.kind_of(part)} | {name: one for name, one in dumped.items() if name in names}

    def _check_class(self, kind: str, found: Any) -> type[Part]:
        base = f"{self.base.__module__.rpartition('.')[0]}.{self.base.__name__}"
        if not isinstance(found, type) or self.base not in found.__mro__:
            raise ValueError(f"{kind} is no {self.noun}: write it as a class that subclasses {base}")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ValueError(f"{kind} lacks {', '.join(missing)}, which every {self.noun} has")
        if not dataclasses.is_dataclass(found) and not issubclass(found, BaseModel):
            raise ValueError(f"{kind} has no schema of its settings: make it a dataclass, @dataclass(frozen=True)")
        if "kind" in settings_of(found):
            raise ValueError(f"{kind} has a setting called kind, which is what its table says of itself: rename it")
        return cast(type[Part], found)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.make, serialization=core_schema.plain_serializer_function_ser_schema(self._serialize, info_arg=True)
        )

    def _serialize(self, part: Part, info: core_schema.SerializationInfo) -> dict[str, Any]:
        return self.dump(part, exclude_none=bool(info.exclude_none))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        built_in: Mapping[str, type[Any]] = self.classes
        kinds = [
            {
                "type": "object",
                "title": found.__name__,
                "required": ["kind"],
                "properties": {"kind": {"const": name}, **_described(found)},
            }
            for name, found in built_in.items()
        ]
        own = {"type": "object", "title": "one of your own", "properties": {"kind": {"pattern": _PATH.pattern}}}
        return {"anyOf": [{"type": "string"}, *kinds, own]}


def settings_of(part: type[Any]) -> tuple[str, ...]:
    """The names of a part's settings."""
    if issubclass(part, BaseModel):
        return tuple(part.model_fields)
    return tuple(field.name for field in dataclasses.fields(part) if field.init)


def values_of_settings(part: object) -> dict[str, Any]:
    """The settings of a part by name; none of anything else."""
    is_part = isinstance(part, BaseModel) or (dataclasses.is_dataclass(part) and not isinstance(part, type))
    return {name: getattr(part, name) for name in settings_of(type(part))} if is_part else {}


def with_settings(part: Part, changed: Mapping[str, Any]) -> Part:
    """The same part with some settings changed."""
    if isinstance(part, BaseModel):
        return part.model_copy(update=changed)
    return cast(Part, dataclasses.replace(cast(Any, part), **changed))


def default_of(part: type[Any], setting: str) -> Any:
    """The default of a part's setting; None without one."""
    if issubclass(part, BaseModel):
        found = part.model_fields[setting]
        return None if found.is_required() else found.get_default(call_default_factory=True)
    field = next(field for field in dataclasses.fields(part) if field.name == setting)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def own_code(part: Any) -> dict[str, str]:
    """A digest of every module of the user's own that the part, or a part among its settings, is written in.

    Two processes with the same digests decide alike; what these modules import themselves is not looked at.
    """
    return {name: digest for name in sorted(set(_own_modules(part))) if (digest := _digest(name))}


def packages_of(parts: Iterable[Any]) -> tuple[str, ...]:
    """The packages of the user's own that these parts, and parts among their settings, are of."""
    return tuple(sorted({package_of(module) for part in parts for module in _own_modules(part)}))


def check_own_code(part: Any, digests: Mapping[str, str]) -> None:
    """ValueError where a module of the part is not the one whose digest was sent."""
    here = own_code(part)
    for name, digest in digests.items():
        if here.get(name) != digest:
            raise ValueError(
                f"{name} is here another version ({here.get(name, 'none')}) than where the task was made ({digest}): "
                f"install the same {package_of(name)} everywhere"
            )


def _own_modules(part: Any) -> Iterator[str]:
    if not dataclasses.is_dataclass(part) and not isinstance(part, BaseModel):
        return
    module = type(part).__module__
    if package_of(module) not in _OURS:
        yield module
    for value in values_of_settings(part).values():
        yield from _own_modules(value)


@cache
def _digest(module: str) -> str:
    """Of the module's source as this process has imported it, as long as the file stays; empty without a file."""
    path = getattr(sys.modules.get(module), "__file__", None)
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if path else ""
    except OSError:
        return ""


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _import_own(path: str) -> Any:
    package = package_of(path)
    if _Permission.packages is not None and package not in _Permission.packages | _OURS:
        raise ValueError(
            f"{path} is not permitted here: where messages may name it, name its package in the configuration of this "
            f"service, plugins={package}"
        )
    try:
        return _import(path)
    except ModuleNotFoundError as error:
        needed = package_of(error.name or package)
        if needed != package:
            raise ValueError(f"{path} needs {needed}, which is not here ({error}): install it, too") from error
        raise ValueError(f"{path} is not here ({error}): install {package} where this process runs") from error
    except AttributeError as error:
        raise ValueError(f"{path} is not there: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        raise ValueError(f"{path} cannot be imported: {describe(error)}") from error


def _no_path(kind: str) -> str:
    """What is wrong with a kind that was meant to be an import path; empty where it was not."""
    module, _, name = kind.rpartition(".")
    if _PATH.fullmatch(f"{module}:{name}"):
        return f"{kind!r} has no colon before its class: did you mean {module}:{name}?"
    if is_path(kind) or "/" in kind:
        return (
            f"{kind!r} is no import path: write {_FORM}, in letters, digits and _ (a folder my-pkg is renamed my_pkg)"
        )
    return ""


def _refuse_unknown(part: type[Any], settings: Mapping[str, Any]) -> None:
    unknown = settings.keys() - set(settings_of(part))
    if unknown:
        details = [
            {"type": PydanticCustomError("extra_forbidden", "unknown key"), "loc": (name,), "input": settings[name]}
            for name in sorted(map(str, unknown))
        ]
        raise ValidationError.from_exception_data(part.__name__, cast(Any, details))


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(part: Any) -> TypeAdapter[Any]:
    """Reads and writes the settings of a part, a class; made once."""
    try:
        return _ADAPTERS.get(part) or _ADAPTERS.setdefault(part, TypeAdapter(part))
    except Exception as error:  # pydantic raises several sorts for types that it cannot describe
        raise ValueError(f"the settings of {part} have no schema: {describe(error)}") from error


def _described(part: type[Any]) -> dict[str, Any]:
    """The JSON schemas of a part's settings, each whole: what stands under it knows no definitions beside it."""
    schema = _adapter(part).json_schema()
    definitions = schema.get("$defs", {})

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        inner = {key: whole(one) for key, one in value.items() if key != "$ref" or name not in definitions}
        return whole(definitions[name]) | inner if name in definitions else inner

    return cast(dict[str, Any], whole(schema.get("properties", {})))
