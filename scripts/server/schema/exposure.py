"""Which parameters of a pipeline clients see, in which order, and within which bounds, by their names.

Names are those of diffusers 0.42.1, whose 290 pipelines all follow these patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_HIDDEN = re.compile(
    r"""
    _.* | .*latents.* | .*embeds.* | .*embeddings?$ | generator | step_generator | seed | output_type
    | return_dict | .*callback.* | .*kwargs | (?:negative_)?ip_adapter_.*
    | .*attention_mask.* | .*hidden_states | .*cu_seqlens | .*pooled_projections | .*token_ids?$ | input_ids
    | .*timesteps | encoding | noise | output_latent | return_index | debug | .*enormaliz.* | padding_mask
    | .*_file | .*_path | fonts                      # names of files on the server
    | enable_safety_check                            # the operator's choice
    | complex_human_instruction | chi_prompt         # texts of pages that go before a prompt
    | text_encoder_out_layers | cache_implementation | mixed_precision_.* | do_patching
    """,
    re.VERBOSE,
)
# Whose annotation knows arrays only, and of which a file makes one.
_MEDIA_OF_TENSORS = {
    "audio", "control_video", "image", "last_image", "mask", "mask_image", "mask_video", "ref_image",
    "reference_audio", "src_audio", "video",
}  # fmt: skip

# The form's first page, in order; all others stand behind "More settings", in the pipeline's own order.
_MAIN = re.compile(
    r"""
    (?P<a>prompt) | (?P<c>negative_prompt) | (?P<e>lyrics)
    | (?P<f>(?:input_|reference_)?images?) | (?P<g>mask(?:_image)?) | (?P<h>(?:control|last|reference)_image)
    | (?P<i>(?:\w+_)?video) | (?P<j>(?:\w+_)?audio)
    | (?P<k>class_labels) | (?P<l>width) | (?P<m>height) | (?P<n>num_frames|video_length)
    | (?P<o>frame_rate|fps) | (?P<p>duration|audio_\w*(?:_in_s|duration|_s))
    | (?P<q>num_inference_steps) | (?P<r>guidance_scale) | (?P<s>true_cfg_scale) | (?P<t>strength)
    | (?P<u>num_(?:images|videos|waveforms)_per_prompt|batch_size)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Limits:
    """What a server allows at most.

    `steps` of a generation; `outputs` at once; `side` in pixels and `megapixels` in millions; `frames`;
    `seconds` of sound. Where a pipeline's own default is more, that is allowed.
    """

    steps: int = 250
    outputs: int = 10
    side: int = 4096
    megapixels: float = 8.0
    frames: int = 500
    seconds: float = 300.0


def hidden(name: str, siblings: frozenset[str]) -> bool:
    """Return whether a parameter is none of the clients' business."""
    if name == "batch_size":  # of pipelines without a prompt it is the number of pictures
        return bool(siblings & {"prompt", "image"})
    return _HIDDEN.fullmatch(name) is not None


def file_for_tensor(name: str) -> bool:
    """Return whether a parameter that takes arrays is given as a file."""
    return name in _MEDIA_OF_TENSORS


def media(name: str, frames: bool) -> str:
    """Return what kind of file a parameter takes; `frames`: the pipeline wants a list of pictures."""
    words = set(name.split("_"))
    if words & {"video", "videos", "frames"}:
        return "video"
    if words & {"audio", "waveforms"}:
        return "audio"
    return "video" if frames and not name.endswith("s") else "image"


def rank(name: str) -> str:
    """Return where a parameter stands among those of the first page; "" where it is none of them."""
    found = _MAIN.fullmatch(name)
    return found.lastgroup or "" if found else ""


def bounds(name: str, limits: Limits) -> tuple[float | None, float | None]:
    """Return the least and the greatest value of a number."""
    return next((pair for pattern, pair in _bounds(limits) if re.fullmatch(pattern, name)), (None, None))


@cache
def _bounds(limits: Limits) -> tuple[tuple[str, tuple[float | None, float | None]], ...]:
    return (
        (r"original_inference_steps", (1, 1000)),  # of the schedule that the model was distilled from
        (r"(?:\w+_)?num_inference_steps|steps|pyramid_num_inference_steps_list", (1, limits.steps)),
        (r"num_(?:\w+_)?steps|\w+_steps", (0, limits.steps)),
        (r"num_\w+_per_(?:prompt|image)|batch_size|layers", (1, limits.outputs)),
        (r"num_frames|video_length|frames", (1, limits.frames)),
        (r"\w*num_frames\w*|num_latent_frames\w*|\w+_frame_length", (1, limits.frames)),
        (r"(?:target_)?fps|frame_rate", (1, 240)),
        (r"strength|inpaint_strength", (0, 1)),
        (r"\w*guidance_scale\w*|true_cfg_scale|max_guidance_scale|min_guidance_scale", (0, 1000)),
        (r"\w*guidance_rescale|control_guidance_\w+|eta|denoising_\w+|truncation_rate|top_p", (0, 1)),
        (r"(?:\w+_)?height|(?:\w+_)?width|\w*resolution|max_input_image_size", (1, limits.side)),
        (r"max_area", (1, limits.megapixels * 1e6)),
        (r"(?:original|target|negative_original|negative_target)_size", (1, 16384)),
        (r"duration|\w*duration(?:_s)?|\w+_in_s|\w+_secs|\w+_seconds", (0, limits.seconds)),
        (r"clip_skip", (0, 11)),  # the smallest text encoder has 12 layers
        (r"\w*max_sequence_length|max_text_length|max_lyric_length|\w*max_length", (1, 4096)),
        (r"\w*max_new_tokens|gen_length|block_length", (1, 4096)),
        (r"decode_chunk_size|\w*batch_size|ensemble_size|prompt_reps|jump_n_sample|jump_length", (1, 64)),
        (r"padding_mask_crop|max_post_steps|motion_bucket_id", (0, 1024)),
        (r"noise_level", (0, 1000)),
    )
