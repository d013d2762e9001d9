"""Which custom nodes ComfyUI loads: everyday ones and the user's own always, a model's with its model."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from pod.errors import SETTING_MALFORMED
from pod.flags import node_selection
from pod.flags.model_selection import ModelOffer, Need
from pod.flags.node_selection import DISABLE, WHITELIST, CodeOffer, NodeOffer
from pod.util.env import SettingError
from pod.volume.custom_nodes import Nodes
from pod.volume.node_requirements import NodeReport
from pod.volume.volume import Volume, usual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unit.pod.conftest import Choose

    from pod.flags.decision import Decision

COMMIT = "c" * 40
NOTHING: Mapping[str, str] = MappingProxyType({})
MODELS = tuple(
    ModelOffer(
        name, f"ENABLE_{name.upper()}", default=False, baked=False, needs=(Need(None, 1, 1),), unmet=()
    )
    for name in ("wan", "story", "mv")
)
NODES = (
    NodeOffer("everyday", "Everyday", COMMIT, True, environment=(("EVERY", "1"),)),
    NodeOffer(
        "wrapper",
        "Wan",
        COMMIT,
        True,
        ("wan", "story"),
        (("CKPTS", "{workspace}/models/wan"), ("PLAIN", "x")),
    ),
    NodeOffer("asks", "Asks", COMMIT, False, ("story",)),
    NodeOffer("ours", "Ours", COMMIT, True, ("mv",), code=(CodeOffer("code", COMMIT, "MV_CODE", None),)),
)
ONLY = f"{DISABLE} {WHITELIST}"
OF_IMAGE = ("Everyday", "Ours", "Wan", "websocket_image_save.py")


def decide(
    choose: Choose,
    nodes: tuple[NodeOffer, ...] = NODES,
    own: tuple[str, ...] = (),
    environ: Mapping[str, str] = NOTHING,
    **more: str,
) -> Decision:
    """Decide for a pod on whose volume these nodes lie, `Mine` and one.py besides."""
    names = tuple(sorted({*OF_IMAGE, "Mine", "one.py", *own}))
    seen = Nodes(names, own=("Mine", "one.py", *own))
    volume = Volume(**{**vars(usual("/workspace")), "nodes": seen})
    return choose(offers=MODELS, nodes=nodes, volume=volume, environ={**environ, **more})


def whitelist(decision: Decision) -> str | None:
    """Return what is on the list, without ComfyUI's own file; None where nothing is kept out."""
    if "--disable-all-custom-nodes" not in decision.args:
        return None
    words = decision.args
    first = words.index("--whitelist-custom-nodes") + 1
    listed = []
    for word in words[first:]:
        if word.startswith("--"):
            break
        listed.append(word)
    assert "websocket_image_save.py" in listed
    return " ".join(word for word in listed if word != "websocket_image_save.py")


# What is asked, what is on the list, and what code is fetched.
CASES: dict[str, tuple[dict[str, str], str | None, str]] = {
    "no model": ({}, "Everyday Mine one.py", ""),
    "one model of two": ({"ENABLE_WAN": "true"}, "Everyday Mine Wan one.py", ""),
    "a model with two nodes": ({"MODELS": "story"}, "Asks Everyday Mine Wan one.py", "asks"),
    "a model with code": ({"ENABLE_MV": "1"}, "Everyday Mine Ours one.py", "ours"),
    "all models": ({"MODELS": "all"}, None, "asks ours"),
    "by hand": ({"NODES": "wrapper, ASKS"}, "Asks Everyday Mine Wan one.py", "asks"),
    "all by hand": ({"NODES": "all"}, None, "asks ours"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_node_is_loaded_with_its_model(choose: Choose, name: str) -> None:
    environ, listed, fetched = CASES[name]
    decision = decide(choose, environ=environ)
    assert whitelist(decision) == listed
    nodes = decision.to_json()["nodes"]
    assert " ".join(each["id"] for each in nodes if each["fetch"]) == fetched
    named = OF_IMAGE if listed is None else listed
    assert [each["id"] for each in nodes if each["loaded"] and each["included"]] == [
        each.id for each in NODES if each.included and each.folder in named
    ]


def test_it_is_said_in_one_line_what_is_left_out_and_what_loads_it(choose: Choose) -> None:
    said = [each for each in decide(choose).reasons if "custom node" in each.lower()]
    left_out = (
        "wrapper (ENABLE_WAN=true or ENABLE_STORY=true), asks (ENABLE_STORY=true), ours (ENABLE_MV=true)"
    )
    words = "Custom nodes that no enabled model needs are not loaded"
    assert said == [f"{words}: {left_out}; NODES=all loads them all."]
    on = decide(choose, ENABLE_MV="1", ENABLE_WAN="1").reasons
    assert "Custom node ours is loaded: mv needs it." in on


def test_a_variant_without_model_nodes_starts_as_before(choose: Choose) -> None:
    everyday = decide(choose, NODES[:1])
    assert whitelist(everyday) is None
    assert everyday.args == decide(choose, ()).args
    assert everyday.reasons == decide(choose, ()).reasons


# COMFYUI_ARGS, what becomes of the arguments, and which nodes are loaded.
GIVEN: dict[str, tuple[str | None, str]] = {
    "--disable-all-custom-nodes": ("", ""),
    "--disable-all-custom-nodes --whitelist-custom-nodes Wan Mine": ("Wan Mine", "wrapper"),
    "--whitelist-custom-nodes Mine": (None, "everyday wrapper ours"),
    "--base-directory /mine": (None, ""),
    "--cpu": ("Everyday Mine one.py", "everyday"),
}


@pytest.mark.parametrize("args", GIVEN)
def test_a_users_own_flags_win(choose: Choose, args: str) -> None:
    listed, loaded = GIVEN[args]
    decision = decide(choose, COMFYUI_ARGS=args)
    if args == "--cpu":
        assert whitelist(decision) == listed
    else:
        own = args.split(" ")
        assert [word for word in decision.args if "custom-nodes" in word] == [
            word for word in own if "custom-nodes" in word
        ]
        assert set(own) <= set(decision.args)
    assert " ".join(each.offer.id for each in decision.nodes.choices if each.loaded) == loaded
    assert decision.nodes.by_user == ("--disable" in args), "a whitelist alone does nothing in ComfyUI"


@pytest.mark.parametrize("folder", ["Wan", "wan"])
def test_a_node_that_is_on_the_volume_too_is_the_users_own(choose: Choose, folder: str) -> None:
    decision = decide(choose, own=(folder,))
    assert "Wan" in (whitelist(decision) or "")
    assert folder in (whitelist(decision) or "")


def test_a_node_on_the_volume_is_not_fetched(choose: Choose) -> None:
    decision = decide(choose, own=("asks",), MODELS="story")
    assert not decision.nodes.fetches
    (why,) = [each["why"] for each in decision.to_json()["nodes"] if each["id"] == "asks"]
    assert why == "Asks is on the volume, and is used"


def test_where_the_volumes_nodes_are_not_known_all_are_loaded(choose: Choose) -> None:
    """A whitelist would keep the user's own out."""
    volume = Volume(**{**vars(usual("/workspace")), "nodes": Nodes(unread="it did not answer within 2 s")})
    decision = choose(offers=MODELS, nodes=NODES, volume=volume)
    assert whitelist(decision) is None
    assert [each.offer.id for each in decision.nodes.choices if each.loaded] == [
        "everyday",
        "wrapper",
        "ours",
    ]


def test_a_node_that_does_not_fit_stays_out_whatever_is_on(choose: Choose) -> None:
    clash = NodeReport("Mine", ("numpy<2, and the image has 2.5.5",))
    seen = Nodes((*OF_IMAGE, "Mine"), own=("Mine",), verdicts=(clash,))
    volume = Volume(**{**vars(usual("/workspace")), "nodes": seen})
    decision = choose(offers=MODELS, nodes=NODES, volume=volume, MODELS="all")
    assert whitelist(decision) == "Asks Everyday Ours Wan"


# What on the volume clashes, what COMFYUI_ARGS say, whether the image has the node; whether that is
# loaded, whether what it asks for is there, and why.
CLASHES = "Wan on the volume requires what the image does not have, and is left out by its name"
SHADOWED: dict[str, tuple[str, str, bool, bool, bool, str]] = {
    "the image's": ("Wan", "", True, False, False, CLASHES),
    "in other letters": ("wan", "", True, True, True, "wan needs it"),
    "one that is fetched": ("Wan", "", False, False, False, CLASHES),
    "that in other letters": ("wan", "", False, False, False, CLASHES),
    "one that fits": ("", "", False, False, True, "Wan is on the volume, and is used"),
    "one that is named": ("", f"{ONLY} Wan", False, False, True, "Wan is on the volume, and is used"),
    "one that is not named": (
        *("", f"{ONLY} Mine", False, False, False),
        "Wan is on the volume, and COMFYUI_ARGS leave it out",
    ),
}


@pytest.mark.parametrize("case", SHADOWED)
def test_a_node_with_the_name_of_one_on_the_volume_is_told_as_it_is(choose: Choose, case: str) -> None:
    clash, args, included, loaded, used, why = SHADOWED[case]
    code = () if included else (CodeOffer("code", COMMIT, "MV_CODE", None),)
    offer = NodeOffer("wrapper", "Wan", COMMIT, included, ("wan",), (("CKPTS", "{workspace}/c"),), code)
    own = clash or "Wan"
    verdicts = (NodeReport(clash, ("numpy<2, and the image has 2.5.5",)),) if clash else ()
    seen = Nodes(tuple(sorted({*OF_IMAGE, "Mine", own})), own=("Mine", own), verdicts=verdicts)
    volume = Volume(**{**vars(usual("/workspace")), "nodes": seen})
    decision = choose(offers=MODELS, nodes=(offer,), volume=volume, ENABLE_WAN="1", COMFYUI_ARGS=args)
    (one,) = decision.nodes.choices
    assert (one.loaded, one.switch, one.why) == (loaded, "", why)
    assert decision.nodes.environment("/data", "/local").get("CKPTS") == ("/data/c" if used else None)
    assert decision.nodes.folders("/data") == (["/data/c"] if used else [])
    assert decision.nodes.fetches == bool(code and used), "of a copy on the volume the code alone"


def test_variables_are_those_of_the_nodes_that_load(choose: Choose) -> None:
    off, on = decide(choose).nodes, decide(choose, MODELS="wan,mv").nodes
    assert off.environment("/data", "/local") == {"EVERY": "1"}
    assert off.folders("/data") == []
    assert on.environment("/data", "/local") == {
        "EVERY": "1",
        "CKPTS": "/data/models/wan",
        "PLAIN": "x",
        "MV_CODE": "/local/code/ours-code",
    }
    assert on.folders("/data") == ["/data/models/wan"]


def test_code_in_the_image_is_found_there(choose: Choose) -> None:
    built_in = NodeOffer("ours", "Ours", COMMIT, True, ("mv",), (), (CodeOffer("c", COMMIT, "MV", "/opt/c"),))
    chosen = decide(choose, (built_in,), ENABLE_MV="1").nodes
    assert not chosen.fetches
    assert chosen.environment("/data", "/local") == {"MV": "/opt/c"}


def test_a_node_that_the_image_does_not_have_is_refused() -> None:
    with pytest.raises(SettingError, match=r"NODES names 'wraper'.* did you mean wrapper") as refused:
        node_selection.check_names(("all", "wraper"), NODES)
    assert refused.value.exit_code == SETTING_MALFORMED
