"""What the command line asks for, read and checked: the one argument of the main job."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln import limits
from podkiln.bake import Environment
from podkiln.concurrency import JOBS
from podkiln.delivery import Route
from podkiln.errors import UsageError
from podkiln.masking import masked
from podkiln.reference import Reference, problem_of, registry_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.plan import Plan
    from podkiln.variant import Described


@dataclass(frozen=True)
class Request:
    """What the command line asked for, all of it."""

    variants: tuple[str, ...]
    out: Path = Path("dist")
    push: bool = False
    load: bool = False
    registry: str | None = None
    tag: str | None = None
    base: str | None = None
    sources: tuple[str, ...] = ()
    allow_substituted: bool = False
    accepted: tuple[str, ...] = ()
    no_weights: bool = False
    no_cache: bool = False
    builder: str | None = None
    mount_from: tuple[str, ...] = ()
    copy_from: tuple[str, ...] = ()
    spool: Path | None = None
    jobs: int = JOBS
    report: Path | None = None
    quiet: bool = False
    dry_run: bool = False
    rate: int = limits.UPLOAD_RATE
    environment: Environment = field(default_factory=Environment)


def image_name(made: Plan, request: Request) -> Reference:
    """Return the image's name. CUDA stands in the tag because vast.ai picks tags by it."""
    spec = made.described.spec
    default = f"{made.name}-{spec.runtime.comfyui.version}-cuda-{spec.runtime.cuda}"
    tag = default if request.tag is None else request.tag.replace("{variant}", made.name)
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
        raise UsageError(
            f"--tag: {tag!r} is not 1 to 128 of letters, digits and _ . -, the last two not in front."
        )
    prefix = f"{request.registry}/" if request.registry else "localhost/"
    return Reference.parse(f"{prefix}{spec.image.repository}:{tag}")


def registry_of(request: Request) -> str | None:
    """Return the host of the registry that a request names. Raises UsageError."""
    if not request.registry:
        return None
    name = f"{request.registry}/x"  # of an image there
    if problem := problem_of(name):
        raise UsageError(
            f"--registry: {masked(request.registry)[:300]!r} is no registry: {problem}.",
            hint="Write HOST/NAMESPACE, for example ghcr.io/you.",
        )
    return Reference.parse(name).host


def route(request: Request) -> Route:
    """Read what the options say of the ways that bytes take. Raises UsageError."""
    given = {"--mount-from": request.mount_from, "--spool": request.spool}
    useless = next((option for option, value in given.items() if value and not request.push), None)
    if useless:
        raise UsageError(f"{useless} is of use with --push only.")
    host = registry_of(request) or ""
    names = [_on(host, name) for name in request.mount_from]
    return Route(
        ca_bundle=request.environment.ca_bundle,
        mount_from=tuple(Reference.parse(name).repository for name in names),
        copy_from=tuple(Reference.parse(name) for name in request.copy_from),
        spool=request.spool,
        jobs=request.jobs,
    )


def _on(host: str, name: str) -> str:
    """Return the name of a repository at a host, however that was written before it, if at all."""
    first, slash, rest = name.partition("/")
    return f"{host}/{rest if slash and registry_host(first) == host else name}"


def check(request: Request, described: Sequence[Described]) -> None:
    """Refuse what makes no sense for these variants. Raises UsageError."""
    names = [each.name for each in described]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.")
    if request.push and not request.registry:
        raise UsageError("--push needs to know where to.", hint="Add --registry HOST/NAMESPACE.")
    if request.registry:
        registry_of(request)
    if request.environment.ca_bundle:
        _check_certificates(request.environment.ca_bundle)
    suites = {each.spec.runtime.base.suite for each in described}
    if request.environment.apt_mirror and len(suites) > 1:
        raise UsageError(
            f"--apt-mirror: these variants stand on {' and '.join(sorted(suites))}.",
            hint="Build them one by one.",
        )
    if len(names) > 1 and request.tag and "{variant}" not in request.tag:
        raise UsageError(
            f"--tag {request.tag} would be one tag for {len(names)} images.",
            hint="Write {variant} in it: --tag '{variant}-2026.11'.",
        )


def _check_certificates(bundle: Path) -> None:
    try:
        ssl.create_default_context(cafile=bundle)
    except ssl.SSLError:
        raise UsageError(f"--ca-bundle: {bundle} holds no PEM certificate.") from None
