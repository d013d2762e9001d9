"""The card that flags are chosen for: the one found, seen through GPU_TIER."""

from __future__ import annotations

from pod.flags.rules import AUTO, MIB_PER_GB
from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pod.flags.rules import Rules
    from pod.flags.settings import Settings
    from pod.hardware.gpu import Detection, Gpu
    from pod.hardware.memory import Memory

_SMALLEST = 0  # MiB: what falls below every class gets the smallest


@dataclass(frozen=True)
class GpuClass:
    """What to plan with: a nominal class, and the MiB that models may count on; None without a GPU.

    `free_mib` is what of them nobody else holds.
    """

    gb: int | None = None
    vram_mib: int | None = None
    free_mib: int | None = None
    tier: str | None = None
    unified: bool = False
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether there is a GPU to plan for."""
        return self.gb is not None


def classify(detection: Detection, memory: Memory, settings: Settings, rules: Rules) -> GpuClass:
    """Combine the detected card with GPU_TIER."""
    if detection.gpu is None:
        return _without(detection, settings, rules)
    gpu = detection.gpu
    if gpu.vram_mib is None and not gpu.unified:
        return _unknown(gpu, detection, settings, rules)
    found_mib, reason = _measure(gpu, memory)
    class_ = rules.class_of(found_mib)
    fitting = (
        "" if rules.reaches(found_mib, class_.gb) else "less than the smallest class, so it counts as the "
    )
    reasons = [*detection.reasons, f"{reason}: {fitting}{class_.gb} GB class ({class_.tier})"]
    warnings = [*detection.warnings]
    gb, vram_mib, tier = class_.gb, found_mib, class_.tier
    if settings.tier != AUTO:
        tier = settings.tier
        from_gb, to_gb = rules.tiers[tier]
        gb = max(from_gb, min(class_.gb, to_gb))
        if gb > class_.gb:
            vram_mib = gb * MIB_PER_GB
            warnings.append(
                f"GPU_TIER={tier} means at least {from_gb} GB ({vram_mib} MiB), but {gpu} has "
                f"{found_mib} MiB; it is obeyed, and models may run out of VRAM"
            )
        elif gb < class_.gb:
            vram_mib = min(found_mib, gb * MIB_PER_GB)
            reasons.append(f"GPU_TIER={tier}: treated as a card of {gb} GB")
    free_mib = vram_mib if gpu.free_mib is None else min(vram_mib, gpu.free_mib)
    return GpuClass(gb, vram_mib, free_mib, tier, gpu.unified, tuple(reasons), tuple(warnings))


def _without(detection: Detection, settings: Settings, rules: Rules) -> GpuClass:
    if settings.tier == AUTO or detection.sure:
        ignored = () if settings.tier == AUTO else (_ignored(settings, rules),)
        unsure = (
            () if detection.sure else ("the GPU could not be asked; set GPU_TIER to use it all the same",)
        )
        return GpuClass(reasons=detection.reasons, warnings=(*detection.warnings, *unsure, *ignored))
    return _as_the_tier_says(detection, settings, rules, "the GPU could not be asked")


def _as_the_tier_says(detection: Detection, settings: Settings, rules: Rules, though: str) -> GpuClass:
    from_gb, _ = rules.tiers[settings.tier]
    warning = f"GPU_TIER={settings.tier} is obeyed ({from_gb} GB), though {though}"
    return GpuClass(
        gb=from_gb,
        vram_mib=from_gb * MIB_PER_GB,
        free_mib=from_gb * MIB_PER_GB,
        tier=settings.tier,
        reasons=detection.reasons,
        warnings=(*detection.warnings, warning),
    )


def _unknown(gpu: Gpu, detection: Detection, settings: Settings, rules: Rules) -> GpuClass:
    """Plan for a card whose memory could not be read: with GPU_TIER, else with the least that there is."""
    unread = f"the memory of {gpu} could not be read (nvidia-smi says {gpu.memory or 'nothing'})"
    if settings.tier != AUTO:
        return _as_the_tier_says(detection, settings, rules, unread)
    least = rules.classes[0]
    warning = (
        f"{unread}, so it is planned for as a {least.gb} GB card: set GPU_TIER to say what it is, and rent "
        "another machine if it fails"
    )
    return GpuClass(
        gb=least.gb,
        vram_mib=least.gb * MIB_PER_GB,
        free_mib=least.gb * MIB_PER_GB,
        tier=least.tier,
        reasons=detection.reasons,
        warnings=(*detection.warnings, warning),
    )


def _ignored(settings: Settings, rules: Rules) -> str:
    from_gb, _ = rules.tiers[settings.tier]
    return f"GPU_TIER={settings.tier} means at least {from_gb} GB, but there is no GPU (0 MiB); it is ignored"


def _measure(gpu: Gpu, memory: Memory) -> tuple[int, str]:
    """Return the VRAM to plan with in MiB, and the sentence about it."""
    if gpu.vram_mib is not None:
        return gpu.vram_mib, f"{gpu} has {gpu.vram_mib} MiB of VRAM"
    if memory.total_mib is None:
        return _SMALLEST, f"{gpu} reports no memory, and the pod's RAM cannot be read either"
    half = memory.total_mib // 2  # the other half is for the weights' copies in RAM and everything else
    return half, f"{gpu} reports no memory of its own (unified memory), so half of the RAM counts, {half} MiB"
