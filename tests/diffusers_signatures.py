"""What diffusers 0.42.1 says of its pipelines' parameters, from tests/fixtures/diffusers/signatures.json."""

from __future__ import annotations

import ast
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

from podkiln.config import families

_FILE = Path(__file__).parent / "fixtures" / "diffusers" / "signatures.json"
VALUES: dict[str, Any] = {
    "vae_scale_factor": 8,
    "vae_scale_factor_spatial": 8,
    "vae_scale_factor_temporal": 4,
    "vae_spatial_compression_ratio": 32,
    "vae_temporal_compression_ratio": 8,
    "default_sample_size": 128,
    "_is_unet_config_sample_size_int": True,
    "unet.config.sample_size": 64,
    "transformer": ...,
    "transformer.config.patch_size": (1, 2, 2),
    "patch_size": 2,
}
"""Of models of usual size."""


@cache
def table() -> dict[str, Any]:
    """Return the file."""
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))


@cache
def tasks() -> dict[str, str]:
    """Return what each pipeline makes of what, as detection has it."""
    return {name: each.task for name, each in families.classes().pipelines.items()}


def code(pipeline: str) -> str:
    """Return what a pipeline's class says of defaults and bounds."""
    return str(table()["pipelines"][pipeline]["code"])


def signature(pipeline: str) -> inspect.Signature:
    """Return the signature of a __call__. Annotations are texts; a default that is no literal is ..."""
    numbers = table()["pipelines"][pipeline]["parameters"]
    return inspect.Signature([_parameter(table()["parameters"][number]) for number in numbers])


@cache
def _parameter(written: str) -> inspect.Parameter:
    node = ast.parse(f"def f({written}): pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    (arg,), defaults = node.args.args, node.args.defaults
    default: Any = inspect.Parameter.empty
    if defaults:
        try:
            default = ast.literal_eval(defaults[0])
        except ValueError:
            default = ...
    hint = ast.unparse(arg.annotation) if arg.annotation else inspect.Parameter.empty
    return inspect.Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
