"""What is said of a volume: what is used where it lies, what cannot be used, and what to do."""

from __future__ import annotations

from pod.volume import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pod.volume.layout import VolumeLayout


def about_homes(found: VolumeLayout) -> list[str]:
    """Say what is used of other images' ComfyUI on the volume."""
    places = {"models": found.models, "outputs": (found.output,), "inputs": (found.input,)}
    places |= {"settings": (found.user,), "custom nodes": found.nodes}
    said = []
    for home in found.homes:
        used = [what for what, paths in places.items() if any(path.startswith(f"{home}/") for path in paths)]
        if used:
            what = ", ".join(used)
            said.append(f"another image installed ComfyUI in {home}: its {what} are used where they lie")
    return said


def about_others(found: VolumeLayout, links: Sequence[str]) -> list[str]:
    """Say which models and folders of others are used; `links` are files that name further folders."""
    said = []
    if found.loose:
        said.append(
            f"models lie right in {found.root} ({', '.join(found.loose)}): they are used there, and new ones "
            f"go to {found.root}/models"
        )
    said += [f"the models of another program in {folder} are used where they lie" for folder in found.webui]
    said += [f"{path} is read for further folders" for path in links]
    return said


def about_closed(found: VolumeLayout, stand_in: str) -> str:
    """Say which folders may not be read, what becomes of them, and what to do."""
    models = f"{found.root}/models"
    lost = f"{stand_in} stands in for what ComfyUI writes to, and ends with this container"
    if models in found.closed:
        lost += ", and models cannot be fetched"
    return (
        f"{', '.join(found.closed)} cannot be read by this pod's user (or the file server fails): {lost}; "
        "give the user of this pod access (chmod, or the export's root_squash), and start the pod again"
    )


def about_blocked(found: VolumeLayout, stand_in: str) -> list[str]:
    """Say what lies in the place of which folder, what becomes of it, and what to do."""
    meaning = {
        f"{found.root.rstrip('/')}/models": "models cannot be fetched",
        f"{found.root.rstrip('/')}/{layout.OURS}": "podkiln keeps nothing of its own on the volume",
    }
    said = []
    for path, what in zip(found.blocked, found.obstacles, strict=True):
        name = path.rpartition("/")[2]
        lost = meaning.get(path, f"{stand_in}/{name} stands in for it, and ends with this container")
        said.append(f"{what}: {lost}; put a folder there, and start the pod again")
    return said
