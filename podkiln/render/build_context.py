"""Turn a plan into the files of a build context. Pure: names, bytes and modes come out, nothing is written.

What comes from a template or from data is rendered; what is only carried along (the Python lock, scripts/) is
copied as it is.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pod.net.hubs import Hubs
from pod.util import secret_variables
from podkiln.config import model_folders, model_server, model_types, presets, strip_list
from podkiln.config.additions import LAYER
from podkiln.errors import DescriptionError
from podkiln.lock import family_bases
from podkiln.lock.apt import NOT_LOCKED
from podkiln.plan import cuda
from podkiln.render import (
    apt_index,
    baked_stage,
    examples,
    image_metadata,
    image_scripts,
    node_stages,
    pyworker,
    templates,
)
from podkiln.render import flags_json as flags
from podkiln.render.context_file import File

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.plan.plan import Plan

_DOCKERFILE = "Dockerfile.j2"
_SYSTEM_RULES = "build/strip-system.txt"


def render(plan: Plan) -> dict[str, File]:
    """Return the context of one variant, by path. Raises RenderError and DescriptionError."""
    _check_version(plan)
    facts = _facts(plan)
    return {
        "Dockerfile": templates.render(_DOCKERFILE, facts),
        ".dockerignore": templates.render("dockerignore.j2", facts),
        "start.sh": templates.render("start.sh.j2", facts, executable=True),
        "podkiln/manifest.json": _json(image_metadata.manifest(plan)),
        "podkiln/models.json": _json(image_metadata.models(plan)),
        "podkiln/flags.json": _json(flags_json(plan)),
        "podkiln/model-types.json": _json(model_types.to_json()),
        **(_of_comfyui(plan, facts) if plan.described.spec.has_comfyui else _of_server(plan)),
        **{path: File(content) for path, content in apt_index.texts(plan.apt).items()},
        **{path: File(content, copied=True) for path, content in apt_index.packed(plan.apt).items()},
        **_added_index(plan),
        **_strip_rules(plan),
        **_requirements(plan),
        **node_stages.files(plan),
        **image_scripts.files(comfyui=plan.described.spec.has_comfyui),
        **pyworker.files(plan),
    }


def _of_server(plan: Plan) -> dict[str, File]:
    """Return what only an image with the server of a model has."""
    found = {"podkiln/detection.json": _json(family_bases.knowledge(plan.lock.bases))}
    if plan.lock.model:
        found["podkiln/model-lock.json"] = _json(plan.lock.model.document.to_json())
    return found


def _of_comfyui(plan: Plan, facts: dict[str, Any]) -> dict[str, File]:
    """Return what only an image with ComfyUI has."""
    return {
        "podkiln/extra_model_paths.yaml": templates.render("extra_model_paths.yaml.j2", facts),
        "podkiln/presets.json": _json(presets.to_json(plan.described, plan.offered)),
        "podkiln/nodes.json": _json(image_metadata.nodes(plan)),
        "podkiln/folders.json": _json(_folders_json(plan)),
        **_examples(plan),
        **_test_inputs(plan),
    }


def dockerfile(plan: Plan) -> str:
    """Return the Dockerfile of one variant alone. Raises RenderError."""
    return templates.render(_DOCKERFILE, _facts(plan)).content.decode()


def _folders_json(plan: Plan) -> dict[str, Any]:
    described = plan.described
    return model_folders.to_json(described.spec.runtime.comfyui.version, described.flags)


def _check_version(plan: Plan) -> None:
    """See that flags and folders of the variant's ComfyUI are known. Raises DescriptionError."""
    try:
        model_folders.load(plan.described.spec.runtime.comfyui.version, plan.described.flags)
    except DescriptionError as unknown:
        what = str(unknown)
        raise plan.described.error(
            ("runtime", "comfyui", "version"), what[0].lower() + what[1:], hint=unknown.hint
        ) from None


def rendered_only(files: Mapping[str, File]) -> dict[str, File]:
    """Return what was rendered: what is worth a golden copy."""
    return {path: file for path, file in files.items() if not file.copied}


def flags_json(plan: Plan) -> dict[str, Any]:
    """Return ComfyUI's flags and our profiles for the pinned version, checked against each other."""
    spec, runtime = plan.described.spec, plan.described.spec.runtime
    try:
        return flags.to_json(
            runtime.comfyui.version,
            list(runtime.comfyui.arguments),
            spec.profile,
            port=runtime.port,
            workspace=runtime.workspace,
            folder=plan.described.flags,
            cuda=cuda.for_pods(plan.described, plan.lock),
        )
    except DescriptionError as wrong:
        raise _placed(plan, wrong) from None


def _placed(plan: Plan, wrong: DescriptionError) -> DescriptionError:
    """Return an error about what a variant describes with its file, line and key."""
    key, colon, what = str(wrong).partition(": ")
    location = tuple(key.split("."))
    if not colon or location[0] != "runtime":
        return wrong
    return plan.described.error(location, what, hint=wrong.hint)


def _facts(plan: Plan) -> dict[str, Any]:
    spec, runtime = plan.described.spec, plan.described.spec.runtime
    files = {layer.name: layer.file.rsplit("/", 1)[-1] for layer in plan.lock.runtime.python_layers}
    rules = _strip_rules(plan)
    stripped = {name: f"strip-python-{name}.txt" if _rules_path(name) in rules else "" for name in files}
    return {
        "variant": {"name": plan.name, "title": spec.title, "description": spec.description},
        "context": f"dist/{plan.name}",
        "epoch": runtime.epoch,
        "base": runtime.base,
        "base_image": _base_image(plan),
        "kept": str(plan.kept) if plan.kept else "",
        "fresh": plan.fresh,
        "private_index": plan.request.network.python_index is not None,
        "comfyui": runtime.comfyui,
        "has_comfyui": spec.has_comfyui,
        "program": "ComfyUI" if spec.has_comfyui else "the model server",
        "nodes": node_stages.facts(plan),
        "nodes_imported": any(each.included for each in plan.nodes),
        "node_environment": node_stages.environment(plan),
        "apt": sorted(runtime.apt),
        "apt_locked": plan.apt is not None,
        "python": {
            "version": runtime.python.version,
            "layers": [
                {
                    "name": layer.name,
                    "why": layer.why,
                    "file": files[layer.name],
                    "strip": stripped[layer.name],
                }
                for layer in model_server.python_layers(plan.described)
            ],
        },
        "jupyter": runtime.has_jupyterlab,
        "added": _additions(plan),
        "strip_system": _SYSTEM_RULES in rules,
        "port": runtime.port,
        "workspace": runtime.workspace,
        "stop_seconds": runtime.stop_seconds,
        "access_secrets": secret_variables.ACCESS,
        "serve": spec.serve,
        "serve_packages": plan.lock.serving.document.layer.file if plan.lock.serving else "",
        "labels": labels(plan),
        "folders": model_folders.load(runtime.comfyui.version, plan.described.flags).places(),
        "hubs": Hubs(),
        "weights": baked_stage.steps(plan),
    }


def _base_image(plan: Plan) -> str:
    """Return the repository of the base: that of the kept packages, where the base lies there too."""
    base = plan.described.spec.runtime.base
    return plan.kept.repository if plan.kept and base.digest in plan.kept.bases else base.image


def labels(plan: Plan) -> dict[str, str]:
    """Return the image's labels. Names: https://github.com/opencontainers/image-spec/blob/main/annotations.md."""
    spec, runtime = plan.described.spec, plan.described.spec.runtime
    base = plan.lock.runtime
    own = {
        "org.opencontainers.image.title": spec.title,
        "org.opencontainers.image.description": spec.description,
        "org.opencontainers.image.version": plan.version,
        "org.opencontainers.image.base.name": base.base_image,
        "org.opencontainers.image.base.digest": base.base_digest,
        "io.podkiln.variant": plan.name,
        "io.podkiln.lock": plan.lock.digest,
        "io.podkiln.apt": plan.apt.digest if plan.apt else NOT_LOCKED,
        **({"io.podkiln.comfyui": base.comfyui_commit} if spec.has_comfyui else {}),
        "io.podkiln.cuda": runtime.cuda,
    }
    if plan.lock.additions:
        own |= _added_labels(plan)
    if spec.serve:
        own["io.podkiln.serve"] = spec.serve
    if plan.substituted:
        own["io.podkiln.substituted"] = " ".join(f"{each.name}={each.actual}" for each in plan.substituted)
    return {**own, **spec.image.labels}


def _added_labels(plan: Plan) -> dict[str, str]:
    """Return what is asked for above the shared layers, and the digest of the lock of the Debian packages."""
    added = plan.described.additions
    asked = [*added.packages, *(each.replace(" ", "") for each in added.requirements)]
    labels = {"io.podkiln.added": " ".join(asked)}
    if added.packages:
        labels["io.podkiln.added-apt"] = plan.added_apt.digest if plan.added_apt else NOT_LOCKED
    return labels


def _json(data: dict[str, Any]) -> File:
    return File((json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def _strip_rules(plan: Plan) -> dict[str, File]:
    """Return what each install step leaves out, a file a step, so that a new rule rebuilds its own layer."""
    runtime, layers = plan.described.spec.runtime, plan.lock.packages_by_layer()
    there = {each.name for each in model_server.python_layers(plan.described)}
    texts = {
        _rules_path(name): strip_list.of_layer(runtime, each)
        for name, each in layers.items()
        if name in there
    }
    texts[_SYSTEM_RULES] = strip_list.of_system(runtime)
    return {path: File(text.encode()) for path, text in texts.items() if text}


def _rules_path(layer: str) -> str:
    return f"build/strip-python-{layer}.txt"


def _added_index(plan: Plan) -> dict[str, File]:
    """Return the apt lock of what the variant adds, as files."""
    added = apt_index.with_restored(plan.added_apt, plan.apt, _restored(plan))
    texts, packed = (made(added, apt_index.ADDED) for made in (apt_index.texts, apt_index.packed))
    return {path: File(content) for path, content in texts.items()} | {
        path: File(content, copied=True) for path, content in packed.items()
    }


def _restored(plan: Plan) -> tuple[str, ...]:
    wanted = plan.described.additions.packages
    return strip_list.restored(plan.described.spec.runtime, wanted)


def _additions(plan: Plan) -> dict[str, Any]:
    """Return what the template says of additions."""
    added = plan.described.additions
    return {
        "apt": added.packages,
        "named": added.named(),
        "apt_locked": plan.added_apt is not None,
        "restored": _restored(plan),
        "python": f"{LAYER}.txt" if added.requirements else "",
    }


def _requirements(plan: Plan) -> dict[str, File]:
    texts = {f"requirements/{name}": text for name, text in plan.lock.requirements().items()}
    if plan.lock.additions and plan.lock.additions.python:
        # By itself, and not in the stage of the others: what stands in for that one knows nothing of it.
        texts[f"build/{LAYER}.txt"] = plan.lock.additions.requirements
    if plan.lock.serving:
        texts[f"build/{plan.lock.serving.document.layer.file}"] = plan.lock.serving.requirements
    texts["build/uv.txt"] = (plan.lock.folder / plan.lock.runtime.uv.file).read_text(encoding="utf-8")
    return {path: File(text.encode(), copied=True) for path, text in sorted(texts.items())}


def _examples(plan: Plan) -> dict[str, File]:
    found = examples.paths(plan.offered)
    return {target: File(path.read_bytes(), copied=True) for target, path in found.items()}


def _test_inputs(plan: Plan) -> dict[str, File]:
    """Return an example of a request for each preset; they lie beside the Dockerfile, and in no image."""
    made = presets.examples(plan.described, plan.offered)
    return {f"test_input/{name}.json": replace(_json(said), copied=True) for name, said in made.items()}
