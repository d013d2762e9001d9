"""The example workflows that an image carries: of the models that it offers and can run.

ComfyUI's template browser shows the `example_workflows` of custom nodes (app/custom_node_manager.py);
podkiln's is one without classes. Beside it lie the API forms, for podkiln-comfy and other programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from podkiln.config import catalog, workflow
from podkiln.config.document import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from podkiln.config.catalog import VariantModel

NODE: Final = "podkiln/custom_nodes/podkiln"
API: Final = "podkiln/workflows"
_CODE: Final = ROOT / "scripts" / "examples" / "__init__.py"


def paths(offered: Iterable[VariantModel]) -> dict[str, Path]:
    """Return where each file lies in the checkout, by its path in the build context."""
    found = {f"{NODE}/__init__.py": _CODE}
    for offer in offered:
        if has_one(offer) and not offer.unmet:
            editor = workflow.FOLDER / f"{offer.id}.json"
            found[f"{NODE}/example_workflows/{editor.name}"] = editor
            api = workflow.path_of(offer.id)
            found[f"{API}/{api.name}"] = api
    return found


def has_one(offer: VariantModel) -> bool:
    """Tell whether a model has an example workflow; one that a variant describes itself has none."""
    return offer.entry.source.path.parent == catalog.MODELS and workflow.path_of(offer.id).is_file()
