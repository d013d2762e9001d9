"""Where a file comes from: sources as models.json has them become requests, refusals become sentences."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pod.net.http import (
    Answer,
    Credential,
    Limits,
    NotFoundError,
    RefusedError,
    TransientError,
    get,
    origin_of,
    public,
)
from pod.net.retry import BUSY, PASSING, asked_seconds
from pod.util import env
from pod.util.dataclass import dataclass, field
from pod.util.printable import shown

_ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})

if TYPE_CHECKING:
    from collections.abc import Mapping

HUGGINGFACE, CIVITAI = env.HUGGINGFACE, env.CIVITAI


@dataclass(frozen=True)
class Hubs:
    """The hubs' addresses, and the tokens that they, and they alone, may see."""

    huggingface: str = HUGGINGFACE
    civitai: str = CIVITAI
    hf_token: str | None = field(default=None, repr=False)
    civitai_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Hubs:
        """Read HF_ENDPOINT, CIVITAI_ENDPOINT, HF_TOKEN and CIVITAI_TOKEN. Raises PodError."""
        return cls(
            env.endpoint("HF_ENDPOINT", environment.get("HF_ENDPOINT"), HUGGINGFACE),
            env.endpoint("CIVITAI_ENDPOINT", environment.get("CIVITAI_ENDPOINT"), CIVITAI),
            env.token("HF_TOKEN", environment.get("HF_TOKEN")),
            env.token("CIVITAI_TOKEN", environment.get("CIVITAI_TOKEN")),
        )

    def credential(self, variable: str) -> Credential | None:
        """Return the token of HF_TOKEN or CIVITAI_TOKEN, bound to its hub."""
        endpoint, token = {
            "HF_TOKEN": (self.huggingface, self.hf_token),
            "CIVITAI_TOKEN": (self.civitai, self.civitai_token),
        }[variable]
        return Credential(origin_of(endpoint), token, variable) if token else None

    def owner_of(self, url: str) -> tuple[Credential | None, str | None]:
        """Return the token for a plain address that happens to be one of the hubs', and its variable."""
        for variable, address in (("HF_TOKEN", self.huggingface), ("CIVITAI_TOKEN", self.civitai)):
            if url.startswith(f"{address}/"):
                return self.credential(variable), variable
        return None, None


@dataclass(frozen=True)
class Request:
    """What to ask, with which token, and what to tell a person about it.

    `page` is where a licence is accepted or a hash looked up; `variable` names the token that would help.
    """

    url: str
    page: str
    credential: Credential | None = None
    variable: str | None = None

    def send(self, limits: Limits, headers: Mapping[str, str] | None = None) -> Answer:
        """Send it; an answer that is neither success nor 416 becomes RefusedError or TransientError."""
        answer = get(self.url, headers or {}, self.credential, limits)
        if answer.status in {200, 206, 416}:
            return answer
        answer.close()
        if answer.status in PASSING:
            busy = answer.status in BUSY
            raise TransientError(
                f"{answer.host} answers {answer.status}{self.higher_limit(answer)}",
                retry_after=asked_seconds(answer.headers) if busy or answer.headers["Retry-After"] else None,
                busy=busy,
            )
        code = answer.first("X-Error-Code")
        absent = answer.status in _ABSENT or code in {"RevisionNotFound", "RepoNotFound"}
        raise (NotFoundError if absent else RefusedError)(self.refusal(answer.status, code))

    def higher_limit(self, answer: Answer) -> str:
        """Say what would raise a hub's limit, where that was hit and no token was given."""
        hub = urlsplit(self.url).hostname
        if answer.status != HTTPStatus.TOO_MANY_REQUESTS or self.credential or answer.host != hub:
            return ""
        return f"; a token in {self.variable} raises its limit" if self.variable else ""

    def refusal(self, status: int, code: str | None) -> str:
        """Say what a status means for this source, and what to do."""
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return self._no_access(status, code)
        if status == HTTPStatus.GONE:
            return f"is gone from {self.page} (410): it was archived or removed there; choose another version"
        if code == "RevisionNotFound":
            return f"asks for a revision that {self.page} does not have ({status}): correct `revision`"
        if status == HTTPStatus.NOT_FOUND:
            return f"is not there (404 from {shown(self.url)}): it was renamed or removed; correct its source"
        return f"was refused ({status} from {shown(self.url)}); see {self.page}"

    def _no_access(self, status: int, code: str | None) -> str:
        if self.variable is None:
            return (
                f"is not public ({status} from {shown(self.url)}), and there is no token for such addresses"
            )
        if self.credential is None and code == "RepoNotFound":
            return (
                f"is private or does not exist ({status}): check {self.page}, "
                f"and set {self.variable} if it is private"
            )
        if self.credential is None:
            return (
                f"needs a login ({status}): accept the licence at {self.page} if it shows one, "
                f"and set {self.variable} to a token of that account"
            )
        if status == HTTPStatus.UNAUTHORIZED and code != "GatedRepo":
            return (
                f"was refused (401): {self.variable} is wrong, expired or revoked; "
                f"set it to a new token for {self.page}"
            )
        remedy = (
            f"open {self.page} with it: it may have to be bought there, or only its owner may download it"
            if self.variable == "CIVITAI_TOKEN"
            else f"accept the licence at {self.page} with it"
        )
        return f"was refused ({status}): the account of {self.variable} has no access; {remedy}"


def request_for(source: Mapping[str, Any], hubs: Hubs, revision: str | None = None) -> Request:
    """Make the request for a file; `revision` is the resolved one where the source names none.

    Raises RefusedError for a kind that is not known.
    """
    match source.get("kind"):
        case "huggingface":
            repo, path = source["repo"], source["path"]
            commit = source.get("revision") or revision or "main"
            return Request(
                f"{hubs.huggingface}/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(path)}",
                f"{hubs.huggingface}/{repo}",
                hubs.credential("HF_TOKEN"),
                "HF_TOKEN",
            )
        case "civitai":
            number = f"fileId={source['file']}" if source.get("file") else ""
            query = f"?{source.get('query') or number}" if source.get("query") or number else ""
            return Request(
                f"{hubs.civitai}/api/download/models/{source['version']}{query}",
                f"{hubs.civitai}/model-versions/{source['version']}",
                hubs.credential("CIVITAI_TOKEN"),
                "CIVITAI_TOKEN",
            )
        case "https":
            return Request(source["url"], public(source["url"]), *hubs.owner_of(source["url"]))
        case kind:
            raise RefusedError(
                f"comes from a source of the unknown kind {kind!r}: update the image, or correct models.json"
            )
