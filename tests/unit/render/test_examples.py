"""Which example workflows an image carries."""

from __future__ import annotations

from podkiln.config import catalog, variant
from podkiln.render import examples


def carried(name: str) -> set[str]:
    """Return the models whose workflow an image of the variant shows."""
    offered = catalog.offered(variant.load(name), catalog.load())
    found = examples.paths(offered)
    shown = {path.rpartition("/")[2] for path in found if "/example_workflows/" in path}
    api = {path.rpartition("/")[2] for path in found if path.startswith(f"{examples.API}/")}
    assert {each.removesuffix(".json") for each in shown} == {each.removesuffix(".api.json") for each in api}
    assert f"{examples.NODE}/__init__.py" in found
    return {each.removesuffix(".json") for each in shown}


def test_only_models_that_the_variant_offers() -> None:
    assert carried("baked") == {
        *("sdxl-base", "sdxl-vae", "pony-v6-xl", "pony-realism-v21", "realvisxl-v4", "juggernaut-xl-v9")
    }


def test_a_model_that_the_image_cannot_run_is_not_shown() -> None:
    offered = catalog.offered(variant.load("lazy"), catalog.load())
    unmet = {offer.id for offer in offered if offer.unmet}
    assert unmet
    assert not carried("lazy") & unmet
    assert carried("lazy") >= {"flux2-dev", "hunyuanvideo", "scail"}
