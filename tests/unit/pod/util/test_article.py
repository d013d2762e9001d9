"""Articles before names of classes and types."""

from __future__ import annotations

from pod.util.article import an

NAMES = """
an AutoencoderKL
an EulerDiscreteScheduler
an I2VGenXLPipeline
an LTXPipeline
an SD3Transformer2DModel
an UpscaleModel
an IMAGE
a CLIPTextModel
a FluxPipeline
a LoHa
a MODEL
a T5EncoderModel
a UMT5EncoderModel
a UNet2DConditionModel
a UniPCMultistepScheduler
"""


def test_a_name_has_the_article_that_is_said_before_it() -> None:
    said = NAMES.strip().splitlines()
    assert [an(each.partition(" ")[2]) for each in said] == said
