"""Asks an image registry which digest a tag has now, by the OCI distribution API."""

import re
from dataclasses import dataclass

import httpx

_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][\w./:-]*?)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its tag, and by its digest where it is pinned."""

    name: str
    tag: str
    digest: str = ""

    @classmethod
    def parse(cls, reference: str) -> "Image":
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ValueError(f"no image: {reference!r}; write registry/name:tag")
        return cls(match["name"], match["tag"] or "latest", match["digest"] or "")

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def host(self) -> str:
        """The registry's; a first part without a dot or a port is none, as Docker has it."""
        first, slash, _ = self.name.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else _HUB

    @property
    def repository(self) -> str:
        path = self.name.removeprefix(f"{self.host}/")
        return path if self.host != _HUB or "/" in path else f"library/{path}"


def resolve_digest(image: Image, http: httpx.Client) -> str:
    """The digest of the index, or of the manifest where there is one platform. ValueError, with what was answered."""
    scheme = "http" if image.host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    host = _HUB_HOST if image.host == _HUB else image.host
    url = f"{scheme}://{host}/v2/{image.repository}/manifests/{image.tag}"
    headers = {"Accept": _MANIFESTS}
    try:
        answer = http.head(url, headers=headers)
        if answer.status_code == 401:
            headers["Authorization"] = f"Bearer {_anonymous_token(answer.headers.get('www-authenticate', ''), http)}"
            answer = http.head(url, headers=headers)
    except httpx.HTTPError as error:
        raise ValueError(f"{image}: {host} cannot be asked: {error}") from error
    digest = answer.headers.get("docker-content-digest", "")
    if answer.status_code != 200 or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{image}: {host} answers {answer.status_code} and names no digest; is the tag right?")
    return digest


def _anonymous_token(challenge: str, http: httpx.Client) -> str:
    """As public registries want one, also of those without an account."""
    words = dict(_CHALLENGE.findall(challenge))
    if "realm" not in words:
        raise ValueError(f"the registry wants a login of a kind that is not known here: {challenge!r}")
    answer = http.get(words.pop("realm"), params=words).json()
    return str(answer.get("token") or answer.get("access_token") or "")
