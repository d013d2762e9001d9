"""What a build made, as JSON that scripts rely on (schema 1) and as sentences for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podkiln.lock.apt import NOT_LOCKED
from podkiln.plan import notes
from podkiln.plan.destination import OPTION
from podkiln.util import atomic, console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.oci.layout import Layout
    from podkiln.plan.plan import Plan
    from podkiln.registry import PushReport
    from podkiln.weights.bake import BakeResult


@dataclass(frozen=True)
class Report:
    """One variant's build, once it is done. Sizes are bytes, times seconds; `command` is for a shell.

    `before` is the digest of the variant's last build here, None where there was none.
    """

    plan: Plan
    image: str
    command: str
    layout: Layout
    seconds: Mapping[str, float]
    baked: Sequence[BakeResult] = ()
    pushed: PushReport | None = None
    before: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report for scripts."""
        return {
            "schema": 1,
            "variant": self.plan.name,
            "image": self.image,
            "digest": self.layout.descriptor.digest,
            "lock": self.plan.lock.digest,
            "pushed": self.pushed is not None,
            "registry_source": where.source if (where := self.plan.destination) else None,
            "layers": self._layers(),
            "seconds": {step: round(took, 3) for step, took in self.seconds.items()},
            "weights": self._weights(),
            "runtime": {
                "uploaded_bytes": self.pushed.uploaded_bytes if self.pushed else 0,
                "mounted_bytes": self.pushed.mounted_bytes if self.pushed else 0,
                "existing_bytes": self.pushed.existing_bytes if self.pushed else 0,
            },
            "left_out": self._left_out(),
            "substituted": {
                each.name: {"locked": each.locked, "actual": each.actual} for each in self.plan.substituted
            },
            "apt": self.plan.apt.digest if self.plan.apt else NOT_LOCKED,
            "notes": list(self.plan.notes),
            "command": self.command,
        }

    def _weights(self) -> dict[str, int]:
        """Count what the weights cost; what was sent went to the registry, or else onto this disk."""
        return {
            "fetched_bytes": sum(each.fetched for each in self.baked),
            **{
                f"{how}_bytes": sum(each.blob.size for each in self.baked if each.how == how)
                for how in ("uploaded", "copied", "mounted", "existing")
            },
        }

    def _layers(self) -> list[dict[str, Any]]:
        """Pair each layer with the history entry that made it."""
        made = [str(entry.get("created_by", "")) for entry in self.layout.config.layer_history]
        rows = zip(self.layout.manifest.layers, made, self.layout.config.diff_ids, strict=True)
        return [
            {
                "digest": layer.digest,
                "diff_id": diff_id,
                "size": layer.size,
                "media_type": layer.media_type,
                "what": what,
            }
            for layer, what, diff_id in rows
        ]

    def _told_by(self) -> str:
        """Say what named the registry, where that was not the command line."""
        where = self.plan.destination
        return f"; the registry is that of {where.source}" if where and where.source != OPTION else ""

    def _left_out(self) -> list[str]:
        kept = {offer.id for offer in self.plan.baked}
        return [offer.id for offer in self.plan.offered if offer.baked and offer.id not in kept]

    def sentences(self) -> list[str]:
        """Return what people want to know."""
        layers = self.layout.manifest.layers
        size = console.size(sum(layer.size for layer in layers))
        took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
        lines = [f"{self.plan.name}: {len(layers)} layers, {size} ({took})"]
        lines += [f"    {note}" for note in self.plan.notes if "leaves out" in note]
        lines += [f"    substituted: {each.difference}" for each in self.plan.substituted]
        if self.plan.apt is None:
            lines.append(f"    apt {NOT_LOCKED}: another day may give other versions of Debian's packages")
        lines += [f"    {note}" for note in notes.of_model(self.plan)]
        if self.baked:
            fetched = console.size(self._weights()["fetched_bytes"])
            count = len(self.baked)
            lines.append(f"    {count} weight layer{'s' * (count > 1)}, {fetched} fetched for them")
        digest = self.layout.descriptor.digest
        lines.append(f"    {digest}{', as it was built last' if digest == self.before else ''}")
        lines.append(f"    again by hand: {self.command}")
        return [*lines, *self._what_next()]

    def _what_next(self) -> list[str]:
        """Say where the image is, and how it is started."""
        output, spec = self.plan.request.output, self.plan.described.spec
        lines = [f"    loaded {self.image}"] if output.load else []
        if self.pushed:
            sent = console.size(self.pushed.uploaded_bytes)
            lines.append(f"    pushed {self.image} ({sent} sent{self._told_by()})")
        if not lines:
            place = output.out / self.plan.name / "image"
            return [f"    {self.image} lies in {place}, as an OCI layout; --load gives it to the engine"]
        options = f"--publish {spec.runtime.port}:{spec.runtime.port} "
        if not spec.has_comfyui:
            options += "--env API_TOKEN=… " if spec.model else "--env MODEL_ID=… --env API_TOKEN=… "
        elif spec.serve:
            options = ""
        start = f"docker run --rm {options}{self.image}"
        return [*lines, f"    start it, with --gpus all where there is a card: {start}"]


def last_digest(path: Path) -> str | None:
    """Return the digest in the report of one variant's last build; None where there is none."""
    try:
        digest = json.loads(path.read_bytes())["digest"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None


def write(reports: list[Report], path: Path) -> None:
    """Write one report, or several as a list under `reports`, aside and then by rename."""
    found = [report.as_json() for report in reports]
    data = found[0] if len(found) == 1 else {"schema": 1, "reports": found}
    atomic.write(path, json.dumps(data, indent=2) + "\n")
