"""Names that were given up for the field's own."""

from __future__ import annotations

import ast

import pytest
from unit.test_architecture import IN_IMAGES, PODKILN

# By package: classes, functions and constants at the top of a module.
RETIRED = {
    "comfy": """
        _LONGEST_MESSAGE _LONGEST_NAME
    """,
    "pod.downloads": """
        Board Contents Crew Goal Growth Hands Job Part Space Span Store Trail Work _LONGEST_SPAN
    """,
    "pod.flags": """
        Card Choice Given Offer Parsed judge
    """,
    "pod.hardware": """
        Question
    """,
    "pod.model_refs": """
        File Wish WordError _LONGEST_SHOWN
    """,
    "pod.net": """
        Idle Meter Patience Policy SpentError
    """,
    "pod.resolve": """
        Asker Finder Found Header Kind Pins
    """,
    "pod.services": """
        Keeper PAUSES Wish _LONGEST
    """,
    "pod.supervisor": """
        Journal Keeper Life Outlet PAUSES Pulse Rotated STEADY _LONGEST _NEVER_SERVES
    """,
    "pod.util": """
        Claim
    """,
    "pod.volume": """
        Asked Beside Question Survey Verdict _Home judge look
    """,
    "podkiln.build": """
        KEPT _bring_back alone recover
    """,
    "podkiln.config": """
        Described Many Matching Offered Strict _LONGEST_NAME _MOST_DIGITS _refuse_strangers
    """,
    "podkiln.lock": """
        Found Outcome Question Remembered Summary WithheldError _MOST_PLACES as_described drifts
        own_folder
    """,
    "podkiln.pipeline": """
        Request Route _telling_of_news foresee
    """,
    "podkiln.plan": """
        Bundle Fit Input MOST_LAYERS Nearby Pull Terms TooLarge Unused Verdict Weight judge
    """,
    "podkiln.registry": """
        Answer BlobCopy ChunksWantedError Content OriginError Patience Pieces Settings Sockets
        Streaming StreamsRefusedError
    """,
    "podkiln.render": """
        Environment Step foretell
    """,
    "podkiln.util": """
        find
    """,
    "podkiln.verify": """
        Contents Held Placed Verdict _MOST_LINKS
    """,
    "podkiln.weights": """
        Access Ahead Assembled Baked Buffers Hashes Helpers Origins Part Places Reading Separate
        Shared Sink WeightStream _AHEAD _Joined _KEPT _Oven _Resumed _yield_to look
    """,
}
MODULES = """
pod.decide pod.doors.access pod.doors.login pod.doors.shell pod.examining.diagnosis pod.examining.hardware
pod.examining.needs pod.failure pod.fetching.carried pod.fetching.claim pod.fetching.contents
pod.fetching.crew pod.fetching.disk pod.fetching.display pod.fetching.fetcher pod.fetching.hands
pod.fetching.idle pod.fetching.part pod.fetching.patience pod.fetching.sources pod.fetching.store
pod.fetching.web pod.flags.card pod.flags.selection pod.foreign pod.health pod.keeping.children
pod.keeping.ending pod.keeping.interruption pod.keeping.journal pod.keeping.keeper pod.keeping.life
pod.keeping.ping pod.keeping.timeline pod.machine.presence pod.machine.smi pod.machine.visible pod.nodes
pod.plainfile pod.saying pod.secrets pod.session pod.storage.beside pod.storage.foreign
pod.storage.handover pod.storage.inspection pod.storage.overlay pod.storage.packages
pod.storage.requirement pod.wishes.asking pod.wishes.facts pod.wishes.finding pod.wishes.header
pod.wishes.kind pod.wishes.listing pod.wishes.naming pod.wishes.pins pod.wishes.resolving pod.wishes.wish
podkiln.bake podkiln.bootstrap podkiln.bundle podkiln.catalogue podkiln.cli.building podkiln.cli.choosing
podkiln.cli.locking podkiln.cli.planning podkiln.cli.rendering podkiln.cli.verifying podkiln.command
podkiln.concurrency podkiln.context podkiln.delivery podkiln.flagfiles podkiln.flags podkiln.folders
podkiln.hashing podkiln.inputs podkiln.interruption podkiln.job podkiln.kept podkiln.layers podkiln.limits
podkiln.load podkiln.lockfile podkiln.measured podkiln.modeltypes podkiln.native podkiln.needed
podkiln.nodes podkiln.output podkiln.payload podkiln.places podkiln.portable podkiln.pulls
podkiln.registry.clients podkiln.registry.copying podkiln.registry.reading podkiln.registry.refusal
podkiln.registry.settings podkiln.registry.sockets podkiln.registry.streaming podkiln.registry.trust
podkiln.remembered podkiln.resolve.answer podkiln.resolve.aside podkiln.resolve.civitai_answer
podkiln.resolve.hub podkiln.resolve.newest podkiln.resolve.web podkiln.runners podkiln.schemas
podkiln.sinks podkiln.sources podkiln.tarlayer podkiln.terms podkiln.tree podkiln.unfinished
podkiln.verify.read podkiln.verify.runtime podkiln.wording
"""


def defined(package: str) -> set[str]:
    """Return what the modules of a package define at their top.

    Fails for a single module, which a name that comes back may well not be in, and for what does not exist.
    """
    modules = {**PODKILN, **IN_IMAGES}
    paths = [path for name, path in modules.items() if name.startswith(f"{package}.")]
    assert paths, f"{package} is no package"
    found: set[str] = set()
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_retired_names_stay_away() -> None:
    back = {package: sorted(defined(package) & set(names.split())) for package, names in RETIRED.items()}
    assert {package: names for package, names in back.items() if names} == {}


def test_retired_modules_stay_away() -> None:
    known = {*PODKILN, *IN_IMAGES}
    assert sorted(known & set(MODULES.split())) == []


@pytest.mark.parametrize("name", ["comfy.client", "comfy.nothing", "pod.downloads.queue"])
def test_names_are_looked_for_in_whole_packages(name: str) -> None:
    with pytest.raises(AssertionError, match="is no package"):
        defined(name)
