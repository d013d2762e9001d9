"""What a pipeline takes: read off all pipelines of diffusers 0.42.1, said as JSON Schema, and checked."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import diffusers_signatures as signatures
import pytest

from server.errors import RequestError
from server.schema import docstring, hints, loaded, reading, source
from server.schema.exposure import Limits
from server.schema.parameters import Parameter, Schema

SCHEDULERS = ("DDIMScheduler", "EulerDiscreteScheduler")
HIDDEN = re.compile(
    r".*latents.*|.*_embeds.*|generator|output_type|return_dict|callback.*|.*_kwargs|ip_adapter_.*|.*_mask_?\d?$"
)
SD, XL, XL_IMAGE = "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"
FLUX, WAN = "FluxPipeline", "WanPipeline"
KINDS = {"text", "integer", "number", "boolean", "media"}


def schema(name: str, **values: Any) -> Schema:
    facts = reading.Facts(signatures.code(name), signatures.VALUES | values, SCHEDULERS, SCHEDULERS[1])
    return reading.read(name, signatures.tasks()[name], signatures.signature(name), "", facts)


def test_every_pipeline_can_be_read_and_shows_nothing_internal() -> None:
    """The masks among the hidden names are of attention; those of pictures are files."""
    pipelines = [name for name in signatures.table()["pipelines"] if name in signatures.tasks()]
    assert len(pipelines) > 280
    for name in pipelines:
        found = schema(name)
        shown = {each.name for each in found.parameters}
        masks = {each.name for each in found.parameters if each.kind == "media"}
        internal = {each for each in shown - masks if HIDDEN.fullmatch(each)}
        assert internal <= {"input_phrases_mask", "input_images_mask"}, (name, internal)  # GLIGEN's numbers
        assert {each.kind for each in found.parameters} <= KINDS, name
        assert {"seed", "scheduler"} <= shown, name
        assert not shown & {"debug", "audio_file", "fonts", "enable_safety_check"}, name
        assert ("prompt" in shown) == ("prompt" in signatures.signature(name).parameters), name
        # What a pipeline takes by itself has to be good enough for a client to give.
        given = {each.name: each.default for each in found.parameters if each.default is not None}
        needed = {each.name: _some(each) for each in found.parameters if each.required}
        found.checked(json.loads(json.dumps(needed | given)))
        assert json.dumps(found.to_json_schema(), allow_nan=False)


def _some(parameter: Parameter) -> Any:
    some = {"text": "a", "media": "data:,x", "boolean": True}.get(parameter.kind, parameter.minimum or 1)
    return some if parameter.single else [some] * (parameter.length or 1)


ROWS: list[tuple[str, str, dict[str, Any]]] = [
    # a pipeline, a parameter, what it has to be
    (SD, "width", {"default": 512, "multiple": 8, "maximum": 4096, "required": False}),
    (SD, "prompt", {"kind": "text", "many": True, "required": True}),
    (SD, "num_inference_steps", {"kind": "integer", "minimum": 1, "default": 50}),
    (SD, "sigmas", {"kind": "number", "many": True, "single": False, "advanced": True}),
    (XL, "height", {"default": 1024}),
    (XL, "original_size", {"length": 2, "default": None}),  # follows height and width
    (XL, "crops_coords_top_left", {"length": 2, "default": (0, 0)}),
    (XL_IMAGE, "image", {"kind": "media", "required": True, "media": "image"}),
    (XL_IMAGE, "strength", {"minimum": 0, "maximum": 1, "default": 0.3}),
    ("StableDiffusionXLInpaintPipeline", "mask_image", {"kind": "media", "required": True}),
    ("StableDiffusionXLControlNetPipeline", "image", {"kind": "media", "required": True}),
    ("StableDiffusion3Pipeline", "width", {"default": 1024, "multiple": 16}),
    ("StableDiffusion3Pipeline", "max_sequence_length", {"maximum": 512}),
    (FLUX, "width", {"default": 1024, "multiple": 16}),
    (FLUX, "guidance_scale", {"kind": "number", "minimum": 0, "default": 3.5}),
    ("QwenImagePipeline", "true_cfg_scale", {"default": 4.0, "advanced": False}),
    ("QwenImagePipeline", "max_sequence_length", {"maximum": 1024}),
    (WAN, "num_frames", {"default": 81, "multiple": 4, "offset": 1}),
    (WAN, "width", {"default": 832, "multiple": 16}),
    (WAN, "guidance_scale_2", {"default": None}),  # follows guidance_scale
    ("WanImageToVideoPipeline", "image", {"required": True}),
    ("WanVACEPipeline", "video", {"kind": "media", "media": "video", "many": False, "required": False}),
    ("WanVACEPipeline", "reference_images", {"media": "image", "many": True}),
    ("AnimateDiffVideoToVideoPipeline", "video", {"media": "video", "required": True}),
    ("LTXPipeline", "num_frames", {"default": 161, "multiple": 8, "offset": 1}),
    ("LTXPipeline", "height", {"multiple": 32}),
    ("LTX2Pipeline", "frame_rate", {"kind": "number", "default": 24.0, "minimum": 1}),
    ("StableAudioPipeline", "audio_end_in_s", {"kind": "number", "minimum": 0, "maximum": 300.0}),
    ("AceStepPipeline", "src_audio", {"kind": "media", "media": "audio"}),  # of tensors to the pipeline
    ("AceStepPipeline", "prompt", {"required": True}),
    ("DDPMPipeline", "batch_size", {"kind": "integer", "minimum": 1, "maximum": 10}),
    ("DDPMPipeline", "num_inference_steps", {"default": 1000, "maximum": 1000}),
    ("Cosmos3OmniPipeline", "condition_video_keep", {"choices": ("first", "last"), "kind": "text"}),
    (FLUX, "seed", {"maximum": 2**63 - 1, "default": None}),
    (FLUX, "scheduler", {"choices": SCHEDULERS, "default": SCHEDULERS[1]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pipeline", "name", "expected"), ROWS, ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_parameter_is_what_its_pipeline_takes(pipeline: str, name: str, expected: dict[str, Any]) -> None:
    found = schema(pipeline).parameter(name)
    assert found is not None
    assert {key: getattr(found, key) for key in expected} == expected


def test_what_a_configuration_makes_void_is_said() -> None:
    assert schema(WAN, **{"config.boundary_ratio": None}).parameter("guidance_scale_2") is None
    for embeds in (
        True,
        False,
    ):  # FLUX.1 schnell has none, and its makers' example gives the parameter all the same
        found = schema(FLUX, **{"transformer.config.guidance_embeds": embeds}).parameter("guidance_scale")
        assert found is not None
        assert (found.advanced, "not made for it" in found.description) == (not embeds, not embeds)


def test_a_form_begins_with_what_is_asked_for_most() -> None:
    names = [each.name for each in schema("StableDiffusionXLInpaintPipeline").parameters if not each.advanced]
    assert names == [
        "prompt", "negative_prompt", "image", "mask_image", "width", "height", "num_inference_steps",
        "guidance_scale", "strength", "num_images_per_prompt", "seed",
    ]  # fmt: skip


WRONG = [
    # a pipeline, what is given beside a prompt, what is said, of which parameter
    (FLUX, {"widht": 512}, "takes no parameter widht: did you mean width?", "widht"),
    (FLUX, {"zzz": 1}, "takes no parameter zzz: GET /schema lists what it takes.", "zzz"),
    (FLUX, {"latents": [1]}, "takes no parameter latents", "latents"),
    (FLUX, {"prompt": None}, "prompt is missing: text-to-image needs it.", "prompt"),
    (FLUX, {"prompt": " "}, "prompt is empty.", "prompt"),
    (FLUX, {"prompt": 5}, "prompt has to be text; it is 5.", "prompt"),
    (FLUX, {"prompt": ["a", None]}, "prompt[1] has to be text; it is null.", "prompt"),
    (FLUX, {"prompt": ["a"] * 11}, "10 outputs can be made at once; 11 prompts would make 11.", "prompt"),
    (FLUX, {"prompt": "a" * 20_001}, "prompt may have 20000 characters; it has 20001.", "prompt"),
    (FLUX, {"num_inference_steps": True}, "has to be a whole number; it is true.", "num_inference_steps"),
    (FLUX, {"num_inference_steps": "20"}, "a whole number; it is '20'.", "num_inference_steps"),
    (FLUX, {"num_inference_steps": 2.5}, "has to be a whole number; it is 2.5.", "num_inference_steps"),
    (FLUX, {"num_inference_steps": 0}, "has to be between 1 and 250; it is 0.", "num_inference_steps"),
    (FLUX, {"num_images_per_prompt": 11}, "has to be between 1 and 10; it is 11.", "num_images_per_prompt"),
    (FLUX, {"guidance_scale": math.nan}, "has to be a finite number", "guidance_scale"),
    (FLUX, {"guidance_scale": math.inf}, "has to be a finite number", "guidance_scale"),
    (FLUX, {"guidance_scale": -1}, "has to be between 0 and 1000; it is -1.", "guidance_scale"),
    (FLUX, {"guidance_scale": [1]}, "has to be a number; it is a list.", "guidance_scale"),
    (FLUX, {"guidance_scale": {}}, "has to be a number; it is an object.", "guidance_scale"),
    (FLUX, {"width": 1000}, "has to be a multiple of 16; it is 1000: take 992 or 1008.", "width"),
    (FLUX, {"width": 4096, "height": 4096}, "may be 8 megapixels; 4096 x 4096 are 16.8.", "width"),
    (FLUX, {"height": 10**400}, "height has to be", "height"),
    (FLUX, {"sigmas": 1.0}, "sigmas has to be a list; it is 1.0.", "sigmas"),
    (FLUX, {"sigmas": [0.5] * 257}, "sigmas may have 1 to 256 values; it has 257.", "sigmas"),
    (FLUX, {"scheduler": "Euler"}, "did you mean EulerDiscreteScheduler?", "scheduler"),
    (FLUX, {"seed": -1}, "seed has to be between 0 and 9223372036854775807; it is -1.", "seed"),
    (WAN, {"num_frames": 80}, "a multiple of 4 and 1 more; it is 80: take 77 or 81.", "num_frames"),
    (XL, {"target_size": [1]}, "has to have 2 values; it has 1.", "target_size"),
    (XL_IMAGE, {}, "image is missing: image-to-image needs it.", "image"),
    (XL_IMAGE, {"image": 3}, "image has to be a file", "image"),
    (XL_IMAGE, {"image": ""}, "image is empty.", "image"),
    (XL_IMAGE, {"image": "data:,x", "strength": 1.5}, "between 0 and 1; it is 1.5.", "strength"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pipeline", "given", "says", "of"), WRONG, ids=[f"{row[3]}-{at}" for at, row in enumerate(WRONG)]
)
def test_a_wrong_value_is_refused_in_one_sentence(
    pipeline: str, given: dict[str, Any], says: str, of: str
) -> None:
    with pytest.raises(RequestError) as raised:
        schema(pipeline).checked({"prompt": "a cat", **given})
    assert says in str(raised.value)
    assert raised.value.parameter == of
    assert len(str(raised.value)) < 250


def test_good_values_come_in_the_types_of_the_pipeline() -> None:
    given = {
        "prompt": "a cat", "negative_prompt": None, "num_inference_steps": 20.0, "guidance_scale": 4,
        "target_size": [512, 512], "seed": 2**63 - 1, "width": 512, "sigmas": [1, 0.5],
    }  # fmt: skip
    found = schema(XL).checked(given)
    assert found == {
        "prompt": "a cat", "num_inference_steps": 20, "guidance_scale": 4.0, "target_size": (512, 512),
        "seed": 2**63 - 1, "width": 512, "sigmas": [1.0, 0.5],
    }  # fmt: skip
    assert [type(found[name]) for name in ("num_inference_steps", "guidance_scale")] == [int, float]
    assert schema(XL_IMAGE).checked({"prompt": ["a"], "image": [b"x", "data:,"]})


def test_json_schema_says_the_same() -> None:
    found = schema("WanImageToVideoPipeline").to_json_schema()
    assert found["required"] == ["prompt", "image"]
    assert found["additionalProperties"] is False
    frames, image, prompt = (found["properties"][name] for name in ("num_frames", "image", "prompt"))
    assert frames["description"] == "It has to be a multiple of 4 and 1 more."
    assert (frames["x-multiple"], frames["x-offset"], frames["minimum"]) == (4, 1, 1)
    assert "multipleOf" not in frames
    assert (image["x-kind"], image["x-media"]) == ("media", "image")
    assert [each["type"] for each in prompt["anyOf"]] == ["string", "array"]
    assert found["properties"]["width"]["multipleOf"] == 16


TYPES = [
    ("str | list[str]", None, hints.Type("text", many=True)),
    ("Optional[Union[str, List[str]]]", None, hints.Type("text", many=True)),
    ("typing.Optional[int]", None, hints.Type("integer")),
    ("int", 0.5, hints.Type("number")),
    ("float | list[float]", None, hints.Type("number", many=True)),
    ("list[int]", None, hints.Type("integer", single=False, many=True)),
    ("list", [16, 2, 1], hints.Type("integer", single=False, many=True)),
    ("tuple[int, int] | None", None, hints.Type("integer", single=False, many=True, length=2)),
    ("tuple[int, ...]", None, hints.Type("integer", single=False, many=True)),
    ("Literal['a', 'b']", None, hints.Type("text", choices=("a", "b"))),
    ("PipelineImageInput | None", None, hints.Type("media", many=True)),
    ("PIL.Image.Image | torch.Tensor | list[PIL.Image.Image]", None, hints.Type("media", many=True)),
    ("list[list[PipelineImageInput]]", None, hints.Type("media", single=False, many=True)),
    ("'PIL.Image.Image' | torch.Tensor", None, hints.Type("media")),
    ("torch.Tensor | None", None, hints.Type("tensor")),
    ("torch.Tensor | list[int] | int | None", None, hints.Type("integer", many=True)),
    ("dict[str, Any] | None", None, hints.NOTHING),
    ("Callable[[int, int, dict], None]", None, hints.NOTHING),
    ("list[list[float]]", None, hints.NOTHING),
    ("LTXVideoCondition | list[LTXVideoCondition]", None, hints.NOTHING),
    ("", False, hints.Type("boolean")),
    ("no ( python", None, hints.NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("written", "default", "expected"), TYPES, ids=[row[0] or "none" for row in TYPES])
def test_an_annotation_is_read(written: str, default: Any, expected: hints.Type) -> None:
    assert hints.read(written, default) == expected


DOCSTRING = """
The call function to the pipeline.

    Args:
        prompt (`str` or `list[str]`, *optional*):
            The prompt to guide the image generation. If not defined, one has to pass `prompt_embeds`. Be
            brief, see [the paper](https://example.org/a).
        height: (`int`): The height
            in pixels.
        steps (`int`, defaults to 50): Of the [`schedulers.DDIMScheduler`].

    Examples:
        more (`int`): not a parameter.
    """


def test_descriptions_are_whole_sentences_of_what_clients_can_give() -> None:
    assert docstring.descriptions(DOCSTRING) == {
        "prompt": "The prompt to guide the image generation. Be brief, see the paper.",
        "height": "The height in pixels.",
        "steps": "Of the schedulers.DDIMScheduler.",
    }
    long = "\nArgs:\n  a (`int`):\n    " + "One sentence. " * 100
    assert len(docstring.descriptions(long)["a"]) <= docstring.LONGEST


class Unet:
    config = type("Config", (), {"sample_size": 64})()


class TinyPipeline:
    """A pipeline as diffusers' are."""

    unet = Unet()
    vae_scale_factor = 4
    scheduler = None

    @property
    def guidance_scale(self) -> float:
        raise AttributeError("not before a run")

    def __call__(
        self, prompt: str | None = None, height: int | None = None, guidance_scale: float = 2.0
    ) -> None:
        """Generate.

        Args:
            prompt (`str`):
                What to generate.
            height (`int`):
                In pixels.
            guidance_scale (`float`):
                How closely.
        """
        height = height or self.unet.config.sample_size * self.vae_scale_factor
        if height % (self.vae_scale_factor * 3) != 0:
            raise ValueError(height)
        if self.guidance_scale > 1 and self.unet is not None:
            height = 0


class InheritedPipeline(TinyPipeline):
    def check_inputs(self, guidance_scale: float) -> None:
        if guidance_scale > 9:
            raise ValueError(guidance_scale)


def test_a_loaded_pipeline_is_asked_for_its_figures() -> None:
    found = loaded.of(InheritedPipeline(), "text-to-image", limits=Limits(steps=5))
    assert (found.pipeline, found.task) == ("InheritedPipeline", "text-to-image")
    height = found.parameter("height")
    assert height == Parameter(
        "height",
        "integer",
        "In pixels.",
        default=256,
        minimum=1,
        maximum=4096,  # 256 is no multiple of 12
    )
    scale = found.parameter("guidance_scale")
    assert scale is not None
    assert (scale.description, scale.minimum, scale.maximum) == ("How closely.", 0, 9)
    assert found.parameter("scheduler") is None


CODE = """
class P:
    def __call__(self, a=None, b=None, c=None, d=None, e=None):
        a = a or self.size * 2 ** 3
        if b is None:
            b = 7 if isinstance(self.size, int) else 8
        c = c or a
        if self.unknown > 3:
            d = 1
        for each in range(3):
            e = 2
        e = -1 if not self.size else max(1, 2)
        x = 10 ** 10 ** 10
"""


def test_only_what_is_known_is_a_default() -> None:
    given = dict.fromkeys("abcde")
    assert source.defaults(CODE, given, {"size": 64}) == {"a": 512, "b": 7, "e": 2}
    assert source.defaults("no ( python", given, {}) == {}
