"""What the command line asks for, read and checked: the one argument of the main job."""

from __future__ import annotations

import difflib
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.errors import UsageError
from podkiln.oci.reference import Reference, registry_host
from podkiln.pipeline.publish import TransferOptions
from podkiln.plan import destination, registry_limits
from podkiln.registry.options import Confirmed
from podkiln.render.bake_file import BuildSecrets
from podkiln.util.executor import JOBS
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from podkiln.config.variant import LoadedVariant
    from podkiln.plan.destination import Destination
    from podkiln.plan.plan import Plan


@dataclass(frozen=True)
class BuildRequest:
    """What the command line asked for, all of it.

    `push`: None plans for a push where a registry is known, and else for an image on this disk.
    `environ`: the environment that may name a registry.
    `confirmed`: what registries have confirmed to hold, for all variants of one run.
    """

    variants: tuple[str, ...]
    out: Path = Path("dist")
    push: bool | None = False
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
    rate: int = registry_limits.UPLOAD_RATE
    environment: BuildSecrets = field(default_factory=BuildSecrets)
    environ: Mapping[str, str] = field(default_factory=dict)
    confirmed: Confirmed = field(default_factory=Confirmed, compare=False)

    def destination(self, described: LoadedVariant) -> Destination | None:
        """Return the registry of a variant's image; None where it gets none. Raises UsageError."""
        return destination.find(described, self.registry, self.environ, push=self.push is not False)

    def pushes(self, described: LoadedVariant) -> bool:
        """Tell whether a variant's image is pushed, or planned to be."""
        return self.destination(described) is not None if self.push is None else self.push


def image_name(made: Plan, request: BuildRequest) -> Reference:
    """Return the image's name. CUDA stands in the tag because vast.ai picks tags by it."""
    spec = made.described.spec
    default = f"{made.name}-{spec.runtime.comfyui.version}-cuda-{spec.runtime.cuda}"
    tag = default if request.tag is None else request.tag.replace("{variant}", made.name)
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
        raise UsageError(
            f"--tag: {tag!r} is not 1 to 128 of letters, digits and _ . -, the last two not in front."
        )
    found = request.destination(made.described)
    return Reference.parse(f"{found.registry if found else 'localhost'}/{spec.image.repository}:{tag}")


def route(request: BuildRequest, described: LoadedVariant) -> TransferOptions:
    """Read what the options say of the ways that a variant's bytes take. Raises UsageError."""
    if not request.pushes(described):
        given = {"--mount-from": request.mount_from, "--spool": request.spool}
        useless = next((option for option, value in given.items() if value), None)
        if useless and request.push is None:
            raise UsageError(f"{useless} needs --push.", hint=destination.ways(described))
        if useless:
            raise UsageError(f"{useless} needs --push.", hint="Add --push, or leave it out.")
    found = request.destination(described)
    host = found.host if found else ""
    return TransferOptions(
        ca_bundle=request.environment.ca_bundle,
        mount_from=tuple(_neighbour(name, host) for name in request.mount_from),
        copy_from=tuple(_named("--copy-from", name) for name in request.copy_from),
        spool=request.spool,
        jobs=request.jobs,
        confirmed=request.confirmed,
    )


def _neighbour(name: str, host: str) -> str:
    """Return a repository of the registry that is pushed to, without its host."""
    if "@" in name:
        _named("--mount-from", name)  # which repeats no login
    first = name.partition("/")[0]
    here = registry_host(first) == host
    if not here and set(first) & set(".:"):
        raise UsageError(
            f"--mount-from: {name[:300]!r} is not in the registry that is pushed to, {host}.",
            hint="Layers of other registries are copied: --copy-from HOST/NAME.",
        )
    return _named("--mount-from", f"{host}/{name.partition('/')[2] if here else name}").repository


def _named(option: str, name: str) -> Reference:
    try:
        return Reference.parse(name)
    except UsageError as wrong:
        raise UsageError(f"{option}: {wrong}", hint=wrong.hint) from None


def check(
    request: BuildRequest, described: Sequence[LoadedVariant], models: Collection[str] | None = None
) -> None:
    """Refuse what makes no sense for these variants. Raises UsageError.

    `models` are the ids of all models there are; None where no option names one.
    """
    names = [each.name for each in described]
    check_options(request)
    _check_models(request, models)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.", hint="Name it once.")
    for each in described:
        if request.destination(each) is None and request.push:
            raise UsageError("--push needs a registry.", hint=destination.ways(each))
        route(request, each)
    if request.registry and not (request.push is not False or request.load or request.dry_run):
        raise UsageError(
            "--registry names the image for a push, or for the local engine.", hint="Add --push, or --load."
        )
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


def check_options(request: BuildRequest) -> None:
    """Refuse options that exclude each other, and invalid values. Raises UsageError."""
    useless = {
        "--spool": request.no_weights and request.spool is not None,
        "--copy-from": request.no_weights and bool(request.copy_from),
        "--accept-licence": request.no_weights and bool(request.accepted),
    }
    for option in (option for option, given in useless.items() if given):
        raise UsageError(
            f"{option} is for weights, and --no-weights leaves them out.", hint="Give one of the two."
        )
    if request.load and request.spool is not None:
        raise UsageError(
            "--spool has no effect with --load: the image is assembled in --out, weights included.",
            hint="Give one of the two.",
        )
    environment = request.environment
    for option, url in (
        ("--python-index", environment.python_index),
        ("--apt-mirror", environment.apt_mirror),
    ):
        if url is not None and not _URL.fullmatch(url):  # not repeated: it may hold a login
            raise UsageError(
                f"{option}: expected an http or https URL without blanks.",
                hint=f"For example {option} https://mirror.example.com/path",
            )
    if environment.ca_bundle:
        check_certificates(environment.ca_bundle)


_URL = re.compile(r"https?://[!-~]+")


def _check_models(request: BuildRequest, models: Collection[str] | None) -> None:
    for name in request.accepted if models is not None else ():
        if name not in (models or ()):
            near = difflib.get_close_matches(name, models or (), n=1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"--accept-licence: there is no model {shown(name)}.",
                hint=f"{meant}`./build.py models` lists them.",
            )


def check_certificates(bundle: Path) -> None:
    """Check that a file holds certificates. Raises UsageError."""
    try:
        ssl.create_default_context(cafile=bundle)
    except (ssl.SSLError, OSError, ValueError):
        hint = (
            "It begins with -----BEGIN CERTIFICATE-----; DER is turned into it by `openssl x509 -inform der`."
        )
        raise UsageError(f"--ca-bundle: {bundle} holds no PEM certificate.", hint=hint) from None
