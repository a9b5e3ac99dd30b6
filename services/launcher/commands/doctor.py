"""`ibtpo doctor`: prints what is wrong in a deployment, and what to do; its exit code is the worst of it."""

import asyncio
import json
from urllib.parse import unquote, urlsplit

from services.launcher.display.finding_view import print_diagnosis, to_json
from services.launcher.doctor.examination import examine
from services.launcher.doctor.targets import DoctorRequest, Targets
from shared.runtime.logs import spellings


def doctor(request: DoctorRequest, *, as_json: bool) -> int:
    """0 where all is well, 1 with a warning, 2 where something fails."""
    found, targets = asyncio.run(examine(request))
    shown = found.presentable(_secrets(request, targets))
    if as_json:
        print(json.dumps(to_json(shown), ensure_ascii=False, indent=2))
    else:
        print_diagnosis(shown)
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
