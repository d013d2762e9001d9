"""The bake file: what BuildKit is told to build, one target a variant.

Only keys that `docker buildx bake --print` echoes are written: bake drops the others without a word.
Format: https://docs.docker.com/build/bake/reference/.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podkiln.options import NetworkOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.plan.plan import Plan
    from podkiln.plan.substitutes import Substitute

BAKE_FILE = "docker-bake.json"
PARTIAL = "image.partial"
TARGET = "image"
"""The stage of the Dockerfile that becomes the image."""
# zstd, because it takes half of gzip's time here, and hosts unpack it several times faster.
_EXPORT = "tar=false,rewrite-timestamp=true,compression=zstd,force-compression=true,oci-mediatypes=true"


@dataclass(frozen=True)
class BuildSecrets:
    """What the builder's own network needs: never part of the image, so given as build secrets.

    `apt_suite`: Debian's code name of the base, which a mirror of it is asked for.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    apt_suite: str = ""

    def secrets(self) -> list[str]:
        """Return them in BuildKit's notation. Values travel in variables, not in the file."""
        found = []
        if self.network.ca_bundle:
            file = str(self.network.ca_bundle.resolve()).replace('"', '""')  # the notation is CSV
            found += [f'id=ca,"src={file}"', "id=apt-conf,env=PODKILN_APT_CONF"]
        if self.network.python_index:
            found.append("id=python-index,env=PODKILN_PYTHON_INDEX")
        if self.network.apt_mirror:
            found.append("id=apt-sources,env=PODKILN_APT_SOURCES")
        return found

    def variables(self) -> dict[str, str]:
        """Return the variables that carry the secrets."""
        found = {}
        if self.network.ca_bundle:
            found["PODKILN_APT_CONF"] = 'Acquire::https::CAInfo "/run/secrets/ca";'
        if self.network.python_index:
            found["PODKILN_PYTHON_INDEX"] = self.network.python_index
        if self.network.apt_mirror:
            found["PODKILN_APT_SOURCES"] = (
                f"Types: deb\nURIs: {self.network.apt_mirror}\nSuites: {self.apt_suite}\n"
                "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            )
        return found


def bake_file(
    plans: Sequence[Plan],
    environment: BuildSecrets,
    sources: Mapping[str, str],
    packed: Mapping[Substitute, str] | None = None,
) -> dict[str, Any]:
    """Return the bake file of one or more variants; paths are relative to the folder that it lies in.

    `sources`: named contexts of all of them, besides the inputs of each. `packed`: what BuildKit is given for
    an input that is a folder.
    """
    return {
        "group": {"default": {"targets": [plan.name for plan in plans]}},
        "target": {plan.name: _target(plan, environment, sources, packed or {}) for plan in plans},
    }


def _target(
    plan: Plan, environment: BuildSecrets, sources: Mapping[str, str], packed: Mapping[Substitute, str]
) -> dict[str, Any]:
    target: dict[str, Any] = {
        "context": plan.name,
        "dockerfile": "Dockerfile",
        "target": TARGET,
        "platforms": [plan.described.platform],
        "args": {"SOURCE_DATE_EPOCH": str(plan.described.spec.runtime.epoch)},
        "attest": ["type=provenance,disabled=true"],
        "output": [f"type=oci,dest={plan.name}/{PARTIAL},{_EXPORT}"],
    }
    own = {each.name: packed.get(each, each.context) for each in plan.inputs if each.context}
    if contexts := {**own, **sources}:
        target["contexts"] = contexts
    if secrets := environment.secrets():
        target["secret"] = secrets
    return target


def as_text(data: dict[str, Any]) -> str:
    """Return the bake file as it is written."""
    return json.dumps(data, indent=2) + "\n"
