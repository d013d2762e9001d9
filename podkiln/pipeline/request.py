"""What the command line asks for, checked: options that exclude each other, names that name nothing."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from podkiln.errors import UsageError
from podkiln.oci.reference import Reference, registry_host
from podkiln.plan import destination
from podkiln.util.quoting import did_you_mean, shown
from podkiln.weights.layer_lookup import LayerSources

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from podkiln.options import BuildRequest
    from podkiln.plan.plan import Plan


def image_name(made: Plan) -> Reference:
    """Return the image's name. CUDA stands in the tag because vast.ai picks tags by it."""
    spec, given = made.described.spec, made.request.image.tag
    default = f"{made.name}-{made.version}-cuda-{spec.runtime.cuda}"
    tag = default if given is None else given.replace("{variant}", made.name)
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
        raise UsageError(
            f"--tag: {tag!r} is not 1 to 128 of letters, digits and _ . -, the last two not in front."
        )
    where = made.destination.registry if made.destination else "localhost"
    return Reference.parse(f"{where}/{spec.image.repository}:{tag}")


def named_sources(request: BuildRequest, described: LoadedVariant) -> LayerSources:
    """Return the repositories that the options name for a variant's layers. Raises UsageError."""
    transfer = request.transfer
    if not destination.is_pushed(described, request):
        given = {"--mount-from": transfer.mount_from, "--spool": transfer.spool}
        useless = next((option for option, value in given.items() if value), None)
        if useless and request.image.push is None:
            raise UsageError(f"{useless} needs --push.", hint=destination.ways(described))
        if useless:
            raise UsageError(f"{useless} needs --push.", hint="Add --push, or leave it out.")
    found = destination.find(described, request)
    host = found.host if found else ""
    return LayerSources(
        mount_from=tuple(_neighbour(name, host) for name in transfer.mount_from),
        copy_from=tuple(_named("--copy-from", name) for name in transfer.copy_from),
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
    check_accepted(request, models, {name for each in described for name in each.nodes})
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.", hint="Name it once.")
    for each in described:
        if destination.find(each, request) is None and request.image.push:
            raise UsageError("--push needs a registry.", hint=destination.ways(each))
        named_sources(request, each)
    image, output = request.image, request.output
    if image.registry and not (image.push is not False or output.load or output.dry_run):
        raise UsageError(
            "--registry names the image for a push, or for the local engine.", hint="Add --push, or --load."
        )
    suites = {each.spec.runtime.base.suite for each in described}
    if request.network.apt_mirror and len(suites) > 1:
        raise UsageError(
            f"--apt-mirror: these variants stand on {' and '.join(sorted(suites))}.",
            hint="Build them one by one.",
        )
    if len(names) > 1 and image.tag and "{variant}" not in image.tag:
        raise UsageError(
            f"--tag {image.tag} would be one tag for {len(names)} images.",
            hint="Write {variant} in it: --tag '{variant}-2026.11'.",
        )


def check_options(request: BuildRequest) -> None:
    """Refuse options that exclude each other, and invalid values. Raises UsageError."""
    no_weights = request.weights.no_weights
    useless = {
        "--spool": no_weights and request.transfer.spool is not None,
        "--copy-from": no_weights and bool(request.transfer.copy_from),
    }
    for option in (option for option, given in useless.items() if given):
        raise UsageError(
            f"{option} is for weights, and --no-weights leaves them out.", hint="Give one of the two."
        )
    if request.output.load and request.transfer.spool is not None:
        raise UsageError(
            "--spool has no effect with --load: the image is assembled in --out, weights included.",
            hint="Give one of the two.",
        )
    for option, url in (
        ("--python-index", request.network.python_index),
        ("--apt-mirror", request.network.apt_mirror),
    ):
        if url is not None and not _URL.fullmatch(url):  # not repeated: it may hold a login
            raise UsageError(
                f"{option}: expected an http or https URL without blanks.",
                hint=f"For example {option} https://mirror.example.com/path",
            )
    if request.network.ca_bundle:
        check_certificates(request.network.ca_bundle)


_URL = re.compile(r"https?://[!-~]+")


def check_accepted(request: BuildRequest, models: Collection[str] | None, nodes: Collection[str]) -> None:
    """Refuse a licence of what there is not, or of a model whose weights are left out. Raises UsageError."""
    known = {*(models or ()), *nodes}
    for name in request.weights.accept_licence if models is not None else ():
        if name not in known:
            raise UsageError(
                f"--accept-licence: there is no model or node {shown(name)}.",
                hint=f"{did_you_mean(name, known)} `./build.py models` lists the models.".lstrip(),
            )
        if request.weights.no_weights and name not in nodes:
            raise UsageError(
                "--accept-licence is for weights, and --no-weights leaves them out.",
                hint="Give one of the two.",
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
