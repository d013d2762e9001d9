"""Models of diffusers' classes on the meta device: UNets of Stable Diffusion under diffusers' own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detection_kit.shapes import of_state

if TYPE_CHECKING:
    from detection_kit.comfyui_models import ModelMaker
    from detection_kit.shapes import Maker


def model(name: str, **config: Any) -> ModelMaker:
    """Return a maker of a model of a class of diffusers; most classes' defaults are a published model's."""

    def make(torch: Any) -> Any:
        import diffusers

        with torch.device("meta"):
            return getattr(diffusers, name)(**config)

    return make


SD15 = model("UNet2DConditionModel", sample_size=64, cross_attention_dim=768, attention_head_dim=8)
_SDXL = {
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL = model(
    "UNet2DConditionModel",
    **_SDXL,
    sample_size=128,
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
)
_SDXL_CONTROLNET = model("ControlNetModel", **_SDXL)


def _tensors(make: ModelMaker) -> Maker:
    """Return a maker of the tensors of such a model."""
    return lambda torch: of_state(make(torch).state_dict())


HEADS: dict[str, Maker] = {
    "sdxl-unet-diffusers": _tensors(SDXL),
    "sd15-unet-diffusers": _tensors(SD15),
    "sdxl-controlnet-diffusers": _tensors(_SDXL_CONTROLNET),
}
