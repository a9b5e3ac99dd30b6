"""What the doctor found: a line for each check, with the remedy where something is wrong."""

from dataclasses import dataclass, field
from enum import StrEnum

from shared.errors import shorten
from shared.runtime.logs import blank_secrets


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(slots=True)
class Section:
    """The findings about one part, `subject`."""

    subject: str
    where: str = ""
    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, found: str) -> None:
        self.findings.append(Finding(check, Level.OK, found))

    def warning(self, check: str, found: str, remedy: str) -> None:
        self.findings.append(Finding(check, Level.WARNING, found, remedy))

    def failed(self, check: str, found: str, remedy: str) -> None:
        self.findings.append(Finding(check, Level.FAILED, found, remedy))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All sections, fit to be shown: without secrets, and without characters that move a terminal's cursor."""

    sections: tuple[Section, ...]
    not_asked: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        levels = [finding.level for section in self.sections for finding in section.findings]
        return max(levels, key=lambda level: level.exit_code, default=Level.OK)

    def count(self, level: Level) -> int:
        return sum(finding.level is level for section in self.sections for finding in section.findings)

    def presentable(self, secrets: tuple[str, ...]) -> "Diagnosis":
        def clean(text: str) -> str:
            shown = blank_secrets(text, secrets)
            return shorten("".join(letter if letter.isprintable() else " " for letter in shown))

        sections = (
            Section(
                clean(section.subject),
                clean(section.where),
                [Finding(one.check, one.level, clean(one.found), clean(one.remedy)) for one in section.findings],
            )
            for section in self.sections
        )
        return Diagnosis(tuple(sections), self.not_asked)
