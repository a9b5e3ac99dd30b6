"""`ibtpo doctor`: prints what is wrong in a deployment, and what to do; its exit code is the worst of it."""

import asyncio
import json
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.doctor.examination import examine
from services.launcher.doctor.finding import Diagnosis, Finding, Level
from services.launcher.doctor.targets import DoctorRequest, Targets
from shared.runtime.app import installed_release
from shared.runtime.logs import spellings

_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "bold red"}


def doctor(request: DoctorRequest, *, as_json: bool) -> int:
    """0 where all is well, 1 with a warning, 2 where something fails."""
    found, targets = asyncio.run(examine(request))
    shown = found.presentable(_secrets(request, targets))
    if as_json:
        print(json.dumps(_to_json(shown), ensure_ascii=False, indent=2))
    else:
        _print(shown)
    return found.level.exit_code


def _secrets(request: DoctorRequest, targets: Targets) -> tuple[str, ...]:
    """What must not be shown: the token, also one that was refused, and what stands before the @ of URLs."""
    urls = (targets.redis_url, targets.verifier_url, targets.learner_url, *targets.replica_urls.values())
    given = [request.token, targets.token]
    for url in filter(None, urls):
        credentials = url.partition("//")[2].rpartition("@")[0]
        given += [credentials, unquote(credentials), *_password(url)]
    # a very short one would blank letters everywhere, and tell itself
    return spellings(secret for secret in given if secret and len(secret) > 3)


def _password(url: str) -> tuple[str, ...]:
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return ()
    return password, unquote(password)


def _to_json(found: Diagnosis) -> dict[str, object]:
    return {
        "level": found.level,
        "release": installed_release(),
        "counts": {level: found.count(level) for level in Level},
        "sections": [
            {
                "subject": section.subject,
                "where": section.where,
                "findings": [
                    {"check": one.check, "level": one.level, "found": one.found, "remedy": one.remedy}
                    for one in section.findings
                ],
            }
            for section in found.sections
        ],
        "not_asked": found.not_asked,
    }


def _print(found: Diagnosis) -> None:
    console = Console(highlight=False)
    widest = max((len(one.check) for section in found.sections for one in section.findings), default=0)
    for section in found.sections:
        console.print(Text(" · ".join(filter(None, (section.subject, section.where))), style="bold"), soft_wrap=True)
        table = Table.grid(padding=(0, 1))
        table.add_column(min_width=9)
        table.add_column(min_width=widest)
        table.add_column(ratio=1, overflow="fold")
        for finding in section.findings:
            table.add_row(Text(f"  {finding.level}", _COLORS[finding.level]), Text(finding.check), _tell(finding))
        console.print(table)
    counts = ", ".join(f"{found.count(level)} {level}" for level in reversed(Level) if found.count(level))
    console.print(Text(counts, _COLORS[found.level]))
    if found.not_asked:
        console.print(Text(f"not asked: {', '.join(found.not_asked)}", "dim"))


def _tell(finding: Finding) -> Text:
    text = Text(finding.found)
    return text.append(f"\n→ {finding.remedy}", "italic") if finding.remedy else text
