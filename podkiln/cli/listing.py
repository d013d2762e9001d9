"""`variants` and `models`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from podkiln.cli.options import json_option, names_of, variant_option
from podkiln.config import catalog, cuda_releases, variant
from podkiln.errors import LockError
from podkiln.lock import drift, locations, reader, schema
from podkiln.options import RuntimeOptions, apply
from podkiln.plan import cuda as cuda_of
from podkiln.plan import readiness
from podkiln.render import examples
from podkiln.util import console

if TYPE_CHECKING:
    from podkiln.config.catalog import VariantModel
    from podkiln.config.variant import LoadedVariant


@click.command("variants")
@apply(RuntimeOptions.options())
@json_option
def variants_command(cuda: str | None, as_json: bool) -> None:
    """List the variants: tier, cards, models, and whether their lock is current."""
    shipped = catalog.load()
    rows = [_variant_row(variant.load(name, cuda), shipped) for name in variant.names()]
    if as_json:
        console.result({"schema": 1, "variants": rows, "cuda": cuda_releases.names()})
        return
    for row in rows:
        cards = "/".join(map(str, row["vram_gb"]))
        click.echo(
            f"{row['id']:11} {row['title']:35} {cards} GB; {row['models']} models, {row['default']} on by "
            f"default, {row['baked']} baked ({console.size(row['baked_bytes'])}); lock {row['lock']}"
        )


def _variant_row(described: LoadedVariant, shipped: dict[str, catalog.Entry]) -> dict[str, Any]:
    offered = catalog.offered(described, shipped)
    spec = described.spec
    baked = [offer for offer in offered if offer.baked]
    try:
        reader.read(described, offered)
        state = "current"
    except LockError:
        state = "stale"
    return {
        "id": described.name,
        "title": spec.title,
        "tier": spec.tier,
        "vram_gb": list(spec.vram_gb),
        "cuda": spec.runtime.cuda,
        "models": len(offered),
        "default": sum(offer.default for offer in offered),
        "baked": len(baked),
        "baked_bytes": sum(offer.model.size_bytes for offer in baked),
        "lock": state,
    }


@click.command("models")
@variant_option
@apply(RuntimeOptions.options())
@json_option
def models_command(variant: tuple[str, ...], cuda: str | None, as_json: bool) -> None:
    """List the models: VRAM, size, licence, the variable that switches them on, whether they are ready."""
    rows = [_model_row(*pair) for pair in _offers(variant, cuda)]
    if as_json:
        console.result({"schema": 1, "models": rows})
        return
    for row in rows:
        slower = f"; slower with this CUDA: {', '.join(row['slower'])}" if row["slower"] else ""
        gated = "; gated: its licence has to be accepted on the hub, and HF_TOKEN set" if row["gated"] else ""
        size = console.size(row["bytes"], lacks=bool(row["unknown_sizes"]))
        click.echo(
            f"{row['id']:21} {row['vram_gb']:>3g} GB  {size:>9}  {row['env']:28} "
            f"{row['licence']}; {'not ready' if row['missing'] else 'ready'}{gated}{slower}"
        )
        for what in row["missing"]:
            click.echo(f"    {what}")
    if any(row["unknown_sizes"] for row in rows):
        click.echo("A size with > before it, or unknown, lacks files whose size is not known.")


class _Offer(NamedTuple):
    """A model, what is known of its files, whether the lock holds all of them, and what its CUDA slows."""

    offer: VariantModel
    files: tuple[schema.LockedFile, ...]
    held: bool
    slower: list[str]


def _offers(names: tuple[str, ...], cuda: str | None) -> list[_Offer]:
    """Return the models of the variants named (of lazy, which has all, when none is), each once."""
    found: dict[str, _Offer] = {}
    for name in names_of(names, default="lazy"):
        described = variant.load(name, cuda)
        offered = catalog.offered(described, catalog.load())
        locked = reader.read(described, offered, check=False)
        limits = cuda_of.limits(described, locked)
        lock = locations.folders(described)[1]
        for offer in offered:
            held = not drift.weight_drifts(lock, {offer.id: offer.model}, exact=False)
            slower = [each for limit in limits for each in cuda_of.concerned(limit, offer.model)]
            found.setdefault(offer.id, _Offer(offer, locked.weights[offer.id], held, slower))
    return list(found.values())


def _model_row(
    offer: VariantModel, files: tuple[schema.LockedFile, ...], held: bool, slower: list[str]
) -> dict[str, Any]:
    model = offer.model
    wanted = [known for file, known in zip(model.files, files, strict=True) if not file.optional]
    unresolved = sum(not known.resolved for known in wanted)
    size = schema.ModelSize.of(model, files)
    missing = readiness.missing(offer, files, held=held)
    return {
        "id": offer.id,
        "title": model.title,
        "env": offer.entry.env,
        "tiers": list(model.tiers),
        "vram_gb": model.needs.vram_gb,
        "ram_gb": model.needs.ram_gb,
        "bytes": size.known_bytes,
        "unknown_sizes": list(size.unknown),
        "files": len(wanted),
        "unresolved": unresolved,
        "lacking": list(dict.fromkeys(part for known in wanted for part in known.lacking)),
        "locked": unresolved == 0 and held,
        "licence": model.licence.id,
        "gated": model.gated,
        "requires": list(model.requires),
        "unmet": list(offer.unmet),
        "missing": missing,
        "ready": not missing,
        "workflow": examples.has_one(offer),
        "slower": slower,
    }
