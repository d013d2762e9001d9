"""Flags for which ComfyUI imports what an image may lack: refused before ComfyUI dies of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.flags import settings
from pod.flags.choose import Asked, Facts, choose
from pod.hardware.gpu import Detection, Gpu
from pod.hardware.memory import Memory
from pod.util.dataclass import replace

if TYPE_CHECKING:
    from pod.flags.decision import Decision
    from pod.flags.rules import Rules

PLENTY = Memory(131072, None)
BIG = 81559


@pytest.mark.parametrize(
    ("flag", "module", "package"),
    [
        ("--use-sage-attention", "sageattention", "sageattention"),
        ("--use-flash-attention", "flash_attn", "flash-attn"),
        ("--use-ck-attention", "comfy_kitchen", "comfy-kitchen"),
        ("--directml", "torch_directml", "torch-directml"),
        ("--enable-manager", "comfyui_manager", "comfyui-manager"),
        ("--enable-manager-legacy-ui", "comfyui_manager", "comfyui-manager"),
        ("--enable-triton-backend", "triton", "triton"),
        ("--enable-asset-hashing", "blake3", "blake3"),
    ],
)
def test_a_flag_whose_package_is_missing_is_refused(
    known: Rules, flag: str, module: str, package: str
) -> None:
    user = known.catalogue.parse_text(flag, "COMFYUI_ARGS")
    asked = settings.read({}, known)
    card = Detection(Gpu(0, "GPU-1", "A card", BIG), visible=1)

    def ask(*has: str) -> Decision:
        facts = Facts(card, PLENTY, has_module=lambda name: name in has)
        return choose(known, facts, Asked(asked, user))

    assert flag in ask(module).args
    with pytest.raises(PodError, match=f"^COMFYUI_ARGS: {flag} needs the Python package {package}, ") as no:
        ask()
    assert no.value.exit_code == ARGUMENTS_REFUSED


def test_a_variants_own_argument_is_refused_too(known: Rules) -> None:
    own = replace(known, common=(*known.common, "--use-sage-attention"))
    with pytest.raises(PodError, match=r"^every start: --use-sage-attention needs the Python package"):
        choose(
            own,
            Facts(Detection(None), PLENTY, has_module=lambda _name: False),
            Asked(settings.read({}, own), own.catalogue.parse([], "")),
        )
