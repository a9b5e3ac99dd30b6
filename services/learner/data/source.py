"""Where the problems of a run come from: a file, a folder, or a data set of the hub, and how its rows are read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

HUB = "hf:"
_HUB_NAME = re.compile(
    r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:@#\s]+))?(?:@(?P<revision>[^@#\s]+))?(?:#(?P<split>[^#\s]+))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set of the hub."""

    name: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None


class DataSource(BaseModel):
    """One set of problems. A string stands for a table with this `source` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1,
        description="A .jsonl, .json, .csv or .parquet file, a folder of them or of `save_to_disk`, each with #SPLIT "
        "where it has several; or hf:NAME[:CONFIG][@REVISION][#SPLIT]",
    )
    format: str = Field("auto", description="What its columns mean (`ibtpo data formats`); auto: what fits them")
    fields: dict[str, str] = Field(
        {}, description='Your own map in place of a format, such as {prompt = "question", gold = "meta.answer"}'
    )
    kind: str = Field("", max_length=64, description="How answers are judged; empty: as the format says")
    extraction: tuple[str, ...] = Field((), description="Where final answers are looked for; none: the verifier's own")
    system_prompt: str = Field("", description="The system message of every prompt; empty: the row's, if it has one")
    instruction: str | None = Field(
        None, description="Text behind every problem; none: what its kind needs and the problem does not ask itself"
    )
    chat: bool | None = Field(None, description="Prompts are chat messages; none: where the model has a template")
    limit: int | None = Field(None, gt=0, description="Take so many of its problems, chosen by `seed`")
    seed: int = Field(0, ge=0, description="Another seed chooses others")
    max_prompt_tokens: int | None = Field(
        None, gt=0, description="Drop longer prompts; none: those that leave no room for an answer"
    )
    deduplicate: bool = Field(True, description="Drop problems that came before, also in an earlier source")
    decontaminate: bool = Field(True, description="Drop problems that are in a held-out set")
    overlap_words: int = Field(
        13, ge=0, description="So many words in a row shared with a held-out problem drop a problem; 0: only equal ones"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"source": str(value)} if isinstance(value, str | Path) else value

    @field_validator("source")
    @classmethod
    def _is_well_formed(cls, source: str) -> str:
        if source.startswith(HUB) and not _HUB_NAME.fullmatch(source):
            raise ValueError(f"{source!r} is no name of the hub; write hf:NAME[:CONFIG][@REVISION][#SPLIT]")
        return source

    @model_validator(mode="after")
    def _fields_or_format(self) -> "DataSource":
        if self.fields and self.format != "auto":
            raise ValueError(f"give format={self.format} or fields, not both: fields are a map of your own")
        return self

    @model_serializer(mode="wrap")
    def _omit_defaults(self, dump: SerializerFunctionWrapHandler) -> str | dict[str, Any]:
        """A source with nothing stated beside it is its text; of a table what is stated."""
        stated = self._stated()
        return self.source if stated == {"source"} else {key: one for key, one in dump(self).items() if key in stated}

    def _stated(self) -> set[str]:
        fields = type(self).model_fields
        return {name for name in fields if getattr(self, name) != fields[name].default}

    def __str__(self) -> str:
        return self.source

    @property
    def hub(self) -> HubName | None:
        """The data set of the hub; None for files."""
        found = _HUB_NAME.fullmatch(self.source)
        return HubName(**found.groupdict()) if found else None

    @property
    def path(self) -> Path:
        """The file or folder, where it is one."""
        return self._path_and_split()[0]

    @property
    def split(self) -> str | None:
        """The split that is named."""
        return self.hub.split if self.hub else self._path_and_split()[1]

    @property
    def states_only_a_file(self) -> bool:
        """Whether nothing is said but the name of files."""
        return self.hub is None and self._stated() == {"source"}

    def resolve(self) -> "DataSource":
        """With an absolute path, so that it can be read from any directory."""
        if self.hub:
            return self
        return self.model_copy(update={"source": str(Path(self.source).expanduser().resolve())})

    def _path_and_split(self) -> tuple[Path, str | None]:
        path, mark, split = self.source.rpartition("#")
        if mark and path and not Path(self.source).exists():
            return Path(path), split
        return Path(self.source), None
