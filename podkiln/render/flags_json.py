"""ComfyUI's flags and our profiles for one image: written as flags.json, and asked beforehand.

The choice is made by pod.flags.choose, which the image carries too: what `preview` says is what a pod does.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.flags import node_selection
from pod.flags import rules as pod_rules
from pod.flags.arguments import RefusedError
from pod.flags.choose import Asked, Facts, choose
from pod.flags.model_selection import ModelOffer, Need, Weights
from pod.flags.settings import read
from pod.hardware.gpu import Detection, Gpu
from pod.hardware.memory import Memory
from pod.util.dataclass import replace
from pod.util.files import SCHEMA
from podkiln.config import start_arguments
from podkiln.config.comfyui_flags import DIRECTORY, PROFILES, FlagData, load
from podkiln.config.flag_files import Profiles
from podkiln.errors import DescriptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pod.flags.decision import Decision
    from pod.flags.node_selection import NodeOffer
    from pod.flags.rules import Rules, WorkingSet
    from podkiln.config.cards import Card

_HELD = 0.03
"""Of a card that nobody uses, what its driver holds at most: bench/gpu.py leaves as much."""


def to_json(
    comfyui_version: str,
    common: list[str],
    profile: str = "dynamic",
    *,
    port: int = 8188,
    workspace: str = "/workspace",
    cuda: Mapping[str, Any] | None = None,
    folder: Path = DIRECTORY,
) -> dict[str, Any]:
    """Return flags.json for an image. Raises DescriptionError where rules combine to no command line.

    Args:
        comfyui_version: The pinned ComfyUI.
        common: Arguments of every start; {port} and {root} are filled in by the pod.
        profile: What FLAG_PROFILE is by default.
        port: What COMFYUI_PORT is by default.
        workspace: What WORKSPACE is by default.
        cuda: What the image's CUDA needs and lacks, as podkiln.plan.cuda.for_pods gives it; None for unknown.
        folder: Where the release's own files lie.
    """
    described = load(comfyui_version, folder, DIRECTORY)
    data = _data(described, common, profile) | {
        "port": port,
        "workspace": workspace,
        "cuda": None if cuda is None else dict(cuda),
    }
    _check_combinations(comfyui_version, tuple(common), folder)
    return data


def preview(  # one parameter for each option of `./build.py flags`
    data: dict[str, Any],
    *,
    vram_mib: int,
    card: Card | None = None,
    free_vram_mib: int | None = None,
    ram_mib: int | None = None,
    host_ram_mib: int | None = None,
    tier: str | None = None,
    memory_mode: str | None = None,
    profile: str | None = None,
    args: str = "",
    models: str | None = None,
    nodes: str | None = None,
    offers: tuple[ModelOffer, ...] = (),
    node_offers: tuple[NodeOffer, ...] = (),
    packages: Collection[str] | None = None,
) -> Decision:
    """Say what a pod would choose. Raises UsageError for what the pod would refuse.

    Args:
        data: flags.json, from `to_json`.
        vram_mib: The card's memory as nvidia-smi reports it; 0 for no GPU.
        card: The card, where it is known by name.
        free_vram_mib: What nobody else holds of it; all of it by default.
        ram_mib: The pod's RAM; None for unknown.
        host_ram_mib: The machine's RAM where the pod is limited to less of it.
        tier: GPU_TIER.
        memory_mode: GPU_MEMORY_MODE.
        profile: FLAG_PROFILE.
        args: COMFYUI_ARGS.
        models: MODELS.
        nodes: NODES.
        offers: The image's models, from pod.flags.model_selection.from_json.
        node_offers: Its custom nodes, from pod.flags.node_selection.from_json.
        packages: Canonical names of the image's Python packages; None for an image that is not known.
    """
    environ = {
        "GPU_TIER": tier or "",
        "GPU_MEMORY_MODE": memory_mode or "",
        "FLAG_PROFILE": profile or "",
        "COMFYUI_ARGS": args,
        "MODELS": models or "",
        "NODES": nodes or "",
    }
    rules = pod_rules.from_json(data)
    try:
        settings = read(environ, rules)
        node_selection.check_names(settings.nodes, node_offers)
        user = rules.catalogue.parse_text(args, "COMFYUI_ARGS", exists=lambda _kind, _path: True)
        has = lambda module: packages is None or packages_of(data).get(module) in packages  # noqa: E731
        facts = Facts(
            _detection(vram_mib, card, free_vram_mib), _memory(ram_mib, host_ram_mib), has_module=has
        )
        decision = choose(rules, facts, Asked(settings, user, offers, node_offers))
    except PodError as refused:
        hint = f"A pod would refuse it in the same words, with exit code {refused.exit_code}."
        raise UsageError(str(refused), hint=hint) from None
    if decision.port in start_arguments.TAKEN:
        raise UsageError(
            f"COMFYUI_ARGS: {decision.port} is the port of {start_arguments.TAKEN[decision.port]} in pods.",
            hint="A pod that runs it would refuse the arguments: choose another port.",
        )
    return decision


def packages_of(data: dict[str, Any]) -> dict[str, str]:
    """Return the package, by canonical name, that brings each Python module that a flag needs."""
    flags = [flag for flag in data["flags"] if flag.get("module")]
    return {flag["module"]: canonicalize_name(flag.get("package") or flag["module"]) for flag in flags}


def lacking(data: dict[str, Any], decision: Decision, packages: Collection[str]) -> list[str]:
    """Say which arguments depend on a Python package that is not among these, for an image not known."""
    given = {word.partition("=")[0] for word in decision.args}
    needed = {flag["name"]: packages_of(data)[flag["module"]] for flag in data["flags"] if flag.get("module")}
    return [
        f"{name} needs the Python package {package}: a pod whose image and volume lack it stops with exit "
        f"code {ARGUMENTS_REFUSED}. --variant says whether an image has it."
        for name, package in needed.items()
        if name in given and package not in packages
    ]


def on_the_edge(
    data: dict[str, Any], decision: Decision, known: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[str]:
    """Say where a pod may choose otherwise, because drivers hold a little of a card that nobody uses.

    Args:
        data: flags.json.
        decision: What `preview` returned for the rest.
        known: What `preview` was told of the image.
        asked: And of the pod and the user's wishes.
    """
    if asked["free_vram_mib"] is not None or not asked["vram_mib"]:
        return []
    free = int(asked["vram_mib"] * (1 - _HELD))
    pod = preview(data, **known, **{**asked, "free_vram_mib": free})
    if pod.args == decision.args:
        return []
    gone, come = (
        " ".join(word for word in one.args if word not in other.args)
        for one, other in ((decision, pod), (pod, decision))
    )
    change = " and ".join(f"{verb} {words}" for verb, words in (("drops", gone), ("adds", come)) if words)
    whole = f"All {asked['vram_mib']} MiB of the card are counted as free, of which drivers hold some"
    return [f"{whole}: with {free} MiB a pod {change}. --free-vram-mib says what nvidia-smi shows there."]


def _detection(vram_mib: int, card: Card | None = None, free_mib: int | None = None) -> Detection:
    if vram_mib == 0:
        return Detection(None, reasons=("there is no GPU",))
    name, capability = (card.name, card.compute_capability) if card else ("as given", None)
    free = vram_mib if free_mib is None else free_mib  # a larger GPU_TIER makes no more of it free
    gpu = Gpu(index=0, uuid="", name=name, vram_mib=vram_mib, compute_cap=capability, free_mib=free)
    return Detection(gpu, visible=1)


def _memory(ram_mib: int | None, host_ram_mib: int | None) -> Memory:
    if ram_mib is not None and host_ram_mib is not None and ram_mib < host_ram_mib:
        return Memory(host_mib=host_ram_mib, limit_mib=ram_mib)
    return Memory(host_mib=ram_mib, limit_mib=None)


def _data(described: FlagData, common: list[str], profile: str) -> dict[str, Any]:
    """Turn the checked files into flags.json; defaults of pod.flags.arguments.Flag are left out."""
    profiles = described.profiles
    names = tuple(Profiles.model_fields)
    return {
        "schema": SCHEMA,
        "comfyui": described.flags.comfyui,
        "flags": [flag.model_dump(mode="json", exclude_defaults=True) for flag in described.flags.flags],
        "later": list(described.flags.later),
        "dead": {name: flag.model_dump(mode="json") for name, flag in described.dead.flags.items()},
        "tolerance": profiles.tolerance,
        "classes": [entry.model_dump(mode="json") for entry in profiles.classes],
        "tiers": {name: span.model_dump(mode="json") for name, span in profiles.tiers.items()},
        "unified_cards": list(profiles.unified_cards),
        "profiles": profiles.profiles.model_dump(mode="json"),
        "memory_modes": [
            {
                "mode": entry.mode,
                "aliases": list(entry.aliases),
                "profiles": {name: entry.rule(name).model_dump(mode="json") for name in names},
            }
            for entry in profiles.memory_modes
        ],
        "ram": [entry.model_dump(mode="json") for entry in profiles.ram],
        "common": common,
        "profile": profile,
        "port": 8188,
        "workspace": "/workspace",
        "cuda": None,
    }


@lru_cache(maxsize=8)
def _check_combinations(version: str, common: tuple[str, ...], folder: Path) -> None:
    """Choose for every card, RAM, memory mode and profile, and read each command line again.

    Groups are resolved when rules meet, so this is what shows that no pod can be given a line that ComfyUI
    refuses.
    """
    described = load(version, folder, DIRECTORY)
    rules = pod_rules.from_json(_data(described, list(common), "dynamic"))
    try:
        rules.catalogue.parse(
            rules.common_for(8188, ""), "runtime.comfyui.arguments", exists=lambda _kind, _path: True
        )
    except RefusedError as refused:
        raise DescriptionError(
            str(refused), hint="Correct runtime.comfyui.arguments of the variant."
        ) from None
    mib = pod_rules.MIB_PER_GB
    cards = [0, *(entry.gb * mib for entry in rules.classes)]
    rams = [_memory(None, None), *(_memory(rule.below_gb * mib // 2, 4096 * mib) for rule in rules.ram)]
    modes = ["auto", *(entry.mode for entry in rules.memory_modes)]
    nothing = rules.catalogue.parse([], "")
    for mode, profile in product(modes, rules.profiles):
        settings = read({"GPU_MEMORY_MODE": mode, "FLAG_PROFILE": profile}, rules)
        # RAM has no say in what models change.
        asked = [*product(rams, [()]), *product(rams[:1], _offers(rules.profiles[profile].working_set))]
        for card, (ram, offers) in product(cards, asked):
            try:
                decision = choose(rules, Facts(_detection(card), ram), Asked(settings, nothing, offers))
            except RefusedError as refused:
                raise DescriptionError(f"No pod could start ComfyUI {version}: {refused}") from None
            _read_again(rules, decision, f"{card} MiB, {mode}, {profile}")
    unified = Detection(Gpu(index=0, uuid="", name="unified", vram_mib=None, unified=True), visible=1)
    for mode, profile in product(modes, rules.profiles):
        settings = read({"GPU_MEMORY_MODE": mode, "FLAG_PROFILE": profile}, rules)
        decision = choose(rules, Facts(unified, rams[-1]), Asked(settings, nothing))
        _read_again(rules, decision, f"unified memory, {mode}, {profile}")


def _offers(known: WorkingSet | None) -> list[tuple[ModelOffer, ...]]:
    """Return what may be enabled as far as flags go: a model that fits anywhere, one that fits nowhere."""
    if known is None:
        return []
    offer = ModelOffer("any", "ENABLE_ANY", default=True, baked=True, needs=(Need(None, 0, 0),), unmet=())
    files = (Weights(1), Weights(1 << 50))
    return [(replace(offer, task=next(iter(known.tasks)), weights=(file,)),) for file in files]


def _read_again(rules: Rules, decision: Decision, case: str) -> None:
    try:
        parsed = rules.catalogue.parse(decision.args, case, exists=lambda _kind, _path: True)
    except RefusedError as refused:
        raise DescriptionError(f"{DIRECTORY / PROFILES}: {refused}") from None
    if parsed.notes:
        raise DescriptionError(f"{DIRECTORY / PROFILES}: {parsed.notes[0]}")
