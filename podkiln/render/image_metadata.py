"""What an image knows of itself, as the JSON files in /opt/podkiln: manifest.json and models.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podkiln import __version__
from podkiln.config import model_server
from podkiln.lock import requirements
from podkiln.lock.apt import NOT_LOCKED
from podkiln.plan import weight_layers
from podkiln.render import node_stages

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.catalog import VariantModel
    from podkiln.config.model import ModelFile
    from podkiln.lock.schema import LockedFile
    from podkiln.plan.plan import Plan


def manifest(plan: Plan) -> dict[str, Any]:
    """Return what the image holds: every pin, and every input that was put in the place of one."""
    runtime = plan.described.spec.runtime
    locked = plan.lock.runtime
    left_out = {each.name for each in runtime.python.layers} - {
        each.name for each in model_server.python_layers(plan.described)
    }
    added = {"additions": _additions(plan)} if plan.lock.additions else {}
    return {
        "schema": 1,
        "podkiln": __version__,
        "variant": plan.name,
        "lock": plan.lock.digest,
        "base": {"image": locked.base_image, "digest": locked.base_digest},
        "apt": plan.apt.digest if plan.apt else NOT_LOCKED,
        **({"comfyui": _comfyui(plan)} if plan.described.spec.has_comfyui else {}),
        "python": {
            "version": locked.python,
            "layers": {
                layer.name: f"sha256:{layer.sha256}"
                for layer in (locked.installed if runtime.has_jupyterlab else locked.python_layers)
                if layer.name not in left_out
            },
        },
        "cuda": runtime.cuda,
        "driver": runtime.driver,
        "platform": plan.described.platform,
        # Of a node of this repository, which has no commit of its own, git's hash of its files.
        "nodes": {
            each.id: each.entry.node.commit or each.entry.own_tree for each in plan.nodes if each.included
        },
        **added,
        **({"serve": _serving(plan)} if plan.described.spec.serve else {}),
        "baked": [offer.id for offer in plan.baked],
        "substituted": {
            each.name: {"locked": each.locked, "actual": each.actual} for each in plan.substituted
        },
    }


def _comfyui(plan: Plan) -> dict[str, str]:
    """Return which ComfyUI lies in the image."""
    locked = plan.lock.runtime
    return {
        "version": plan.described.spec.runtime.comfyui.version,
        "commit": locked.comfyui_commit,
        "tree": locked.comfyui_tree,
    }


def _additions(plan: Plan) -> dict[str, Any]:
    """Return what lies above the layers that the variant shares: asked for, and what that came to."""
    added, locked = plan.described.additions, plan.lock.additions
    apt = plan.added_apt
    python = locked.python if locked else None
    return {
        "extras": [each.name for each in added.extras],
        "apt": list(added.packages),
        "apt_lock": apt.digest if apt else NOT_LOCKED if added.packages else None,
        "debian_packages": {name: each.version for name, each in sorted(apt.all.items())} if apt else {},
        "python": list(added.requirements),
        "python_packages": requirements.known_pins([locked.requirements]) if locked and python else {},
    }


def _serving(plan: Plan) -> dict[str, Any]:
    """Return what takes the image's jobs, and its packages."""
    locked = plan.lock.serving
    return {"by": plan.described.spec.serve, "packages": locked.pins() if locked else {}}


def nodes(plan: Plan) -> dict[str, Any]:
    """Return the custom nodes of the variant, as scripts/pod/ reads them; not all need be in the image."""
    return {"schema": 1, "nodes": [node_stages.as_json(each) for each in plan.nodes]}


def models(plan: Plan) -> dict[str, Any]:
    """Return the models that the image offers, as scripts/pod/ reads them."""
    baked = {offer.id for offer in plan.baked}
    return {
        "schema": 1,
        "variant": plan.name,
        "models": [_model(offer, plan, baked=offer.id in baked) for offer in plan.offered],
    }


def _model(offer: VariantModel, plan: Plan, *, baked: bool) -> dict[str, Any]:
    model = offer.model
    locked = plan.lock.weights[offer.id]
    return {
        "id": offer.id,
        "title": model.title,
        "env": offer.entry.env,
        "default": offer.default,
        "baked": baked,
        "gated": model.gated,
        "licence": model.licence.id,
        "task": model.task,
        "vram_gb": model.needs.vram_gb,
        "ram_gb": model.needs.ram_gb,
        "memory_modes": [mode.model_dump() for mode in model.memory_modes],
        "requires": list(model.requires),
        "unmet": list(offer.unmet),
        "files": [
            _file(file, known, offer.entry.source.path.parent)
            for file, known in zip(model.files, locked, strict=True)
            if not file.local
        ],
    }


def _file(file: ModelFile, known: LockedFile, folder: Path) -> dict[str, Any]:
    return {
        "folder": file.folder,
        "name": file.filename,
        "size": known.size,
        "size_approx": file.size_approx,
        "precision": file.precision,
        "sha256": known.sha256,
        "pickle": file.pickle,
        "optional": file.optional,
        "source": weight_layers.origin(file, known, folder),
    }
