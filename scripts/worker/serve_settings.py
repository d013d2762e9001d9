"""What `serve` is told by its environment: where it listens, whom it lets in, and its limits.

On a load-balancing endpoint of RunPod, which RUNPOD_ENDPOINT_ID is the sign of, the limits are that
platform's own, so that a client gets an answer before the platform cuts it off.
Source: docs.runpod.io/serverless/load-balancing/overview, "Environment variables", "Timeouts and limits".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pod.services import ping_config
from pod.util import env, serving
from pod.util.env import SettingError
from worker.answer import OF_RUNPOD

if TYPE_CHECKING:
    from collections.abc import Mapping

MB: Final = 1_000_000
SHORTEST_TOKEN: Final = 16
"""Characters: who guesses is not slowed down, for that would slow down who knows it too."""
_MEGABYTES: Final = 30  # of a request, and of an answer: RunPod's limit both ways
_ON_ENDPOINT: Final = 320.0
"""Seconds of a job and of a request: RunPod ends a request after 330, and the answer has to arrive before."""
_JOB_SECONDS: Final = 3600.0
_WAIT_SECONDS: Final = 90.0
"""Seconds that /runsync waits elsewhere, as on RunPod's queue; proxies tend to give up after a hundred."""
LONGEST_WAIT: Final = 300.0  # that ?wait= may ask for there
_WEEK: Final = 7 * 86400.0


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Args:
        port: Where it listens.
        host: The one address that it listens on; None for all.
        token: What clients have to show; None lets everybody in.
        health_path: Where else /ping is answered.
        health_port: ... and at which port beside its own; 0 for none.
        request_bytes: The most that a request may bring.
        response_bytes: The most that an answer may hold.
        beyond: What is said of one that holds more.
        job_seconds: How long a job may run.
        wait_seconds: How long /runsync waits, unless it is asked to wait otherwise.
        longest_wait: ... and the most that it can be asked for.
        queue: Jobs that may wait.
        concurrency: Jobs that ComfyUI has at once.
        keep_seconds: How long what came of a job can be asked for.
        keep_bytes: ... and how much of it there may be.
        rate: Requests a second.
    """

    port: int
    host: str | None = None
    token: str | None = field(default=None, repr=False)
    health_path: str = ping_config.PATH
    health_port: int = 0
    request_bytes: int = _MEGABYTES * MB
    response_bytes: int = _MEGABYTES * MB
    beyond: str = "the most that SERVE_RESPONSE_MB allows here"
    job_seconds: float = _JOB_SECONDS
    wait_seconds: float = _WAIT_SECONDS
    longest_wait: float = LONGEST_WAIT
    queue: int = 50
    concurrency: int = 1
    keep_seconds: float = 1800.0  # RunPod's own, of /run
    keep_bytes: int = 500 * MB
    rate: int = 100

    @property
    def loopback(self) -> bool:
        """Whether nobody from outside reaches it."""
        return self.host is not None and is_loopback(self.host)


def read(environ: Mapping[str, str]) -> Settings:
    """Read the environment. Raises SettingError."""
    endpoint = bool(environ.get("RUNPOD_ENDPOINT_ID"))
    seconds = _ON_ENDPOINT if endpoint else 0.0
    wait = env.seconds("SERVE_WAIT_SECONDS", environ, seconds or _WAIT_SECONDS, _WEEK)

    def number(name: str, value: str | None, default: int) -> int:
        return env.number(name, value, default)

    # The door before ComfyUI, where there is one, answers it at ComfyUI's port.
    door = env.port("COMFYUI_PORT", environ.get("COMFYUI_PORT"), 0) if environ.get("WEB_USER") else 0
    ping = ping_config.read(environ, comfyui=door or -1)
    found = Settings(
        port=env.port("PORT", environ.get("PORT"), serving.BALANCED_PORT if endpoint else serving.PORT),
        host=_host(environ.get("SERVE_HOST")),
        token=_token(environ.get("API_TOKEN")),
        health_path=ping.path,
        health_port=ping.of_worker,
        request_bytes=MB * number("SERVE_REQUEST_MB", environ.get("SERVE_REQUEST_MB"), _MEGABYTES),
        response_bytes=MB * number("SERVE_RESPONSE_MB", environ.get("SERVE_RESPONSE_MB"), _MEGABYTES),
        beyond=OF_RUNPOD if endpoint else Settings.beyond,
        job_seconds=env.seconds("SERVE_JOB_SECONDS", environ, seconds or _JOB_SECONDS, _WEEK),
        wait_seconds=wait,
        longest_wait=wait if endpoint else max(wait, LONGEST_WAIT),
        queue=number("SERVE_QUEUE", environ.get("SERVE_QUEUE"), Settings.queue),
        concurrency=number("WORKER_CONCURRENCY", environ.get("WORKER_CONCURRENCY"), Settings.concurrency),
        keep_seconds=env.seconds("SERVE_KEEP_SECONDS", environ, Settings.keep_seconds, _WEEK),
        keep_bytes=MB * number("SERVE_KEEP_MB", environ.get("SERVE_KEEP_MB"), Settings.keep_bytes // MB),
        rate=number("SERVE_RATE", environ.get("SERVE_RATE"), Settings.rate),
    )
    is_open = env.is_on("SERVE_OPEN", environ.get("SERVE_OPEN"))
    # In front of an endpoint's workers RunPod asks for its own key.
    if not (found.token or found.loopback or endpoint or is_open):
        raise SettingError(
            f"API_TOKEN is not set, so that everybody who reaches port {found.port} could run workflows: set "
            "it (openssl rand -hex 32), or SERVE_HOST=127.0.0.1, or SERVE_OPEN=true where something in front "
            "asks for a login."
        )
    return found


def _token(value: str | None) -> str | None:
    token = env.token("API_TOKEN", value)
    if token and len(token) < SHORTEST_TOKEN:
        raise SettingError(
            f"API_TOKEN has fewer than {SHORTEST_TOKEN} characters and can be guessed: openssl rand -hex 32 "
            "makes a better one."
        )
    return token


def _host(value: str | None) -> str | None:
    host = (value or "").strip().strip("[]")
    if host and not env.is_host(host):
        raise SettingError(
            f"SERVE_HOST={env.short(host)!r} is not an address to listen on: give one such as 127.0.0.1, or "
            "unset it to listen on all."
        )
    return host or None


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
