"""A bake as a process of its own, so that it can be measured and killed: REGISTRY/REPOSITORY and weights.

Prints JSON: digests, what became of them, and the most memory it ever held (KiB).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "scripts")]

from podkiln.oci.reference import Reference  # noqa: E402
from podkiln.plan.weight_layers import WeightFile, bundles  # noqa: E402 - the path comes first
from podkiln.registry import RegistryOptions, Repository  # noqa: E402
from podkiln.weights.bake import bake  # noqa: E402
from podkiln.weights.sink import RegistrySink  # noqa: E402
from podkiln.weights.source import SourceClient  # noqa: E402


def main(target: str, weights: str) -> None:
    """Bake weights, given as JSON, into a repository."""
    groups = bundles(WeightFile(**each) for each in json.loads(weights))
    with Repository(Reference.parse(target), RegistryOptions(), push=True) as repository:
        baked = bake(groups, RegistrySink(repository), SourceClient.from_environment(os.environ))
    rows = [{"digest": each.blob.digest, "how": each.how, "fetched": each.fetched} for each in baked]
    sys.stdout.write(json.dumps({"rss": most_memory(), "layers": rows}))


def most_memory() -> int:
    """KiB. Not getrusage's ru_maxrss: that also counts the process we were forked from, before our exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
