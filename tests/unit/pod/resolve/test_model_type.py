"""What files are, by the names of tensors that such files really have."""

from __future__ import annotations

import pytest

from pod.resolve.model_type import ModelType, Types
from pod.resolve.safetensors_header import SafetensorsHeader
from podkiln.config import model_folders, model_types

TYPES = Types(model_types.to_json())

UNET = ("model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight")
VAE = ("first_stage_model.decoder.conv_in.weight", "first_stage_model.quant_conv.weight")
FLUX = ("double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight", "single_blocks.0.linear1.weight")
WAN = ("head.modulation", "blocks.0.self_attn.q.weight", "patch_embedding.weight")
T5 = ("shared.weight", "encoder.block.0.layer.0.SelfAttention.k.weight")
QWEN = ("model.layers.0.self_attn.k_proj.bias", "model.layers.0.input_layernorm.weight")
TEXT = "text_model.encoder.layers.0.mlp.fc1.weight"
IMAGE = "vision_model.encoder.layers.0.layer_norm1.weight"

FILES = [
    # LoRAs: kohya, PEFT, diffusers, LyCORIS, DoRA, full differences
    ("loras", ("lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight", "lora_unet_a.alpha")),
    ("loras", ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",)),
    (
        "loras",
        ("transformer.blocks.0.attn.to_q.lora_A.weight", "transformer.blocks.0.attn.to_q.lora_B.weight"),
    ),
    ("loras", ("diffusion_model.blocks.0.cross_attn.k.lora_A.default.weight",)),
    (
        "loras",
        ("unet.down_blocks.0.attn1.to_q.lora.up.weight", "unet.down_blocks.0.attn1.to_q.lora.down.weight"),
    ),
    ("loras", ("unet.down_blocks.0.processor.to_q_lora.up.weight",)),
    ("loras", ("lora_unet_a.hada_w1_a", "lora_unet_a.hada_w2_b", "lora_unet_a.alpha")),
    ("loras", ("lora_unet_a.lokr_w1", "lora_unet_a.lokr_w2_a", "lora_unet_a.dora_scale")),
    ("loras", ("diffusion_model.blocks.0.cross_attn.k.diff", "diffusion_model.blocks.0.cross_attn.k.diff_b")),
    # checkpoints: with all that belongs to them
    ("checkpoints", (*UNET, *VAE, "cond_stage_model.transformer.text_model.embeddings.position_ids")),
    ("checkpoints", (*UNET, *VAE, "conditioner.embedders.1.model.ln_final.weight")),
    ("checkpoints", (*(f"model.diffusion_model.{name}" for name in FLUX), "vae.decoder.conv_in.weight")),
    (
        "checkpoints",
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "text_encoders.x"),
    ),
    # and without
    ("diffusion_models", FLUX),
    ("diffusion_models", WAN),
    ("diffusion_models", tuple(f"model.diffusion_model.{name}" for name in (*WAN, "x"))),
    ("diffusion_models", UNET),
    ("diffusion_models", ("model.model.transformer.rotary_pos_emb.inv_freq",)),
    (
        "diffusion_models",
        ("txt_norm.weight", "transformer_blocks.0.attn.norm_added_q.weight", "proj_out.weight"),
    ),
    ("diffusion_models", ("conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.x")),
    ("diffusion_models", ("txt_in.individual_token_refiner.blocks.0.norm1.weight",)),
    ("diffusion_models", ("adaln_single.emb.timestep_embedder.linear_1.bias", "proj_in.weight")),
    ("diffusion_models", ("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight")),
    # text encoders
    ("text_encoders", T5),
    ("text_encoders", (*QWEN, "visual.blocks.0.attn.qkv.weight")),
    ("text_encoders", ("model.layers.0.post_feedforward_layernorm.weight", *QWEN, IMAGE)),  # Gemma 3
    ("text_encoders", (TEXT, "text_model.final_layer_norm.weight", "text_projection.weight")),
    ("text_encoders", ("transformer.resblocks.0.attn.in_proj_weight", "ln_final.weight")),
    # VAEs: of Stable Diffusion, diffusers, Wan, LTXV
    ("vae", ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight")),
    ("vae", VAE),
    ("vae", ("decoder.up_blocks.0.resnets.0.norm1.weight", "post_quant_conv.weight")),
    ("vae", ("decoder.middle.0.residual.0.gamma", "encoder.conv1.weight", "conv2.bias")),
    ("vae", ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight", "decoder.conv_out.conv.bias")),
    ("vae_approx", ("encoder.layers.0.weight", "decoder.layers.3.conv.0.weight")),
    ("vae_approx", ("1.weight", "1.conv.0.weight")),
    # ControlNets, in all their forms, and what lies beside them
    ("controlnet", ("control_model.zero_convs.0.0.weight", "control_model.input_blocks.0.0.weight")),
    ("controlnet", ("zero_convs.0.0.weight", "input_blocks.0.0.weight")),
    ("controlnet", ("controlnet_cond_embedding.conv_in.weight", "time_embedding.linear_1.weight")),
    ("controlnet", ("controlnet_blocks.0.weight", *FLUX)),
    ("controlnet", ("controlnet_x_embedder.weight", "transformer_blocks.0.attn.add_q_proj.weight")),
    (
        "controlnet",
        ("lora_controlnet", "input_blocks.1.0.in_layers.2.up", "input_blocks.1.0.in_layers.2.down"),
    ),
    ("controlnet", ("adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight")),
    ("controlnet", ("body.0.in_conv.weight", "conv_in.weight")),
    ("model_patches", ("controlnet_blocks.0.y_rms.weight", "img_in.weight")),
    ("style_models", ("redux_down.weight", "redux_up.bias")),
    ("gligen", ("position_net.null_positive_feature", "input_blocks.1.1.fuser.linear.weight")),
    ("clip_vision", (IMAGE, "visual_projection.weight")),
    ("clip_vision", ("visual.transformer.resblocks.0.attn.in_proj_weight", "visual.proj")),
    ("embeddings", ("emb_params",)),
    ("embeddings", ("clip_l", "clip_g")),
    ("model_patches", ("audio_proj.proj1.weight", "blocks.0.audio_cross_attn.proj.weight")),
    ("diffusion_models", ("audio_proj.proj1.weight", *WAN)),
    ("model_patches", ("control_model.input_hint_block.0.weight", "project_modules.0.weight")),
    ("frame_interpolation", ("extract.extract_sublevels.convs.0.0.conv.weight",)),
    ("frame_interpolation", ("flownet.encode.cnn3.weight", "flownet.block0.conv0.0.0.weight")),
    ("optical_flow", ("feature_encoder.convnormrelu.0.weight", "update_block.flow_head.conv1.weight")),
    ("loras", ("base_model.model.blocks.0.attn.to_q.lora_A.weight",)),
    ("loras", ("lora_unet_a.oft_blocks", "lora_unet_b.oft_diag")),
    ("diffusion_models", ("model.diffusion_model.core.pixel_embedder.proj.weight",)),
    ("vae", ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight")),
    ("upscale_models", ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight")),
    ("upscale_models", ("conv_first.weight", "body.0.rdb1.conv1.weight")),
    ("upscale_models", ("layers.0.residual_group.blocks.0.norm1.weight", "conv_before_upsample.0.weight")),
    ("audio_encoders", ("wav2vec2.encoder.layer_norm.bias",)),
    ("latent_upscale_models", ("post_upsample_res_blocks.0.conv2.bias",)),
]


def of(*names: str, **metadata: str) -> ModelType | None:
    return TYPES.of(SafetensorsHeader(dict.fromkeys(names, (1,)), metadata, 0))


@pytest.mark.parametrize(("folder", "names"), FILES, ids=[f"{row[0]}-{row[1][0]}" for row in FILES])
def test_what_a_file_is(folder: str, names: tuple[str, ...]) -> None:
    found = of(*names)
    assert found is not None
    assert found.folder == folder
    assert of(*reversed(names)) is found  # whatever stands first


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("weight",),
        (TEXT, IMAGE),  # a whole CLIP goes into text_encoders or into clip_vision
        ("backbone.embeddings.patch_embeddings.projection.weight",),
        ("my_model.layer.0.weight", "my_model.layer.0.bias"),
        ("clip_l", "something"),
    ],
)
def test_what_does_not_say_is_not_guessed(names: tuple[str, ...]) -> None:
    assert of(*names) is None


MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0."


@pytest.mark.parametrize(
    ("names", "id_", "beside"),
    [
        ((f"{MOTION}to_q.weight", f"{MOTION}pos_encoder.pe"), "motion_module", "animatediff_models"),
        (
            ("down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight",),
            "motion_module",
            "animatediff_models",
        ),
        (
            (f"{MOTION}processor.to_q_lora.down.weight", f"{MOTION}processor.to_q_lora.up.weight"),
            "motion_lora",
            "animatediff_motion_lora",
        ),
        (
            ("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight",),
            "motion_lora",
            "animatediff_motion_lora",
        ),
        (
            # BrushNet has a whole U-Net's names besides: it once landed in diffusion_models
            (
                *("brushnet_down_blocks.0.weight", "brushnet_mid_block.bias", "conv_in_condition.weight"),
                *("time_embedding.linear_1.weight", "down_blocks.0.resnets.0.norm1.weight"),
            ),
            "brushnet",
            "inpaint",
        ),
        (("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "ip_adapter", "ipadapter"),
        (
            ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",),
            "ip_adapter",
            "ipadapter",
        ),
        (("pulid_encoder.id_embedding_mapping.0.weight", "pulid_ca.0.norm1.weight"), "pulid", "pulid"),
    ],
)
def test_what_only_custom_nodes_load_has_no_folder(names: tuple[str, ...], id_: str, beside: str) -> None:
    found = of(*names)
    assert found is not None
    assert (found.id, found.folder, found.beside) == (id_, None, beside)
    assert of(*reversed(names)) is found
    assert f"reads models/{beside})" in found.homeless


def test_a_lora_that_moves_a_little_besides_is_a_lora() -> None:
    plain = [f"unet.down_blocks.0.attn1.to_{each}.lora.up.weight" for each in "qkv"]
    assert of(*plain, f"{MOTION}processor.to_q_lora.down.weight") is TYPES.kinds["lora"]


def test_a_sparse_controlnet_of_animatediff_is_a_controlnet() -> None:
    names = ("controlnet_cond_embedding.conv_in.weight", f"{MOTION}to_q.weight")
    assert of(*names) is TYPES.kinds["controlnet"]


def test_who_trained_it_says_so_where_adapters_are_few() -> None:
    """Some LoRAs hold whole layers besides; a checkpoint that happens to hold an adapter is none."""
    names = ("x.lora_up.weight", "token_embedding.weight", "norm.weight")
    assert of(*names) is None
    assert of(*names, ss_network_module="networks.lora") is TYPES.kinds["lora"]
    assert of(*names, **{"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}) is TYPES.kinds["lora"]
    assert of("norm.weight", ss_network_module="networks.lora") is None


def test_every_folder_is_one_that_comfyui_knows() -> None:
    known = set(model_folders.load(model_types.types().comfyui).folders)
    kinds = model_types.types().types
    assert sorted({each.folder for each in kinds if each.folder} - known) == []
    assert sorted({each.beside for each in kinds if each.beside} & known) == []
    assert all(bool(each.node) == bool(each.beside) for each in kinds)


def test_every_kind_is_told_somehow_and_every_rule_says_from_where() -> None:
    described = model_types.types()
    told = {rule.type for rule in described.rules} | {each.id for each in described.types if each.civitai}
    assert {each.id for each in described.types} == told
    claims = [name for each in described.types for name in each.civitai]
    assert len(claims) == len(set(claims))
    assert all(name == name.lower() for name in claims)
