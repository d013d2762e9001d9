"""Where a push goes, and what names it: the option, the environment, the variant, or GitHub Actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.errors import UsageError
from podkiln.oci.reference import Reference, registry_name

if TYPE_CHECKING:
    from podkiln.config.variant import LoadedVariant
    from podkiln.options import BuildRequest

OPTION: Final = "--registry"
VARIABLE = "PODKILN_REGISTRY"
_KEY: Final = ("image", "registry")


@dataclass(frozen=True)
class Destination:
    """A registry with its namespace, HOST/NAMESPACE, and what named it, in words."""

    registry: str
    source: str

    @property
    def host(self) -> str:
        """The registry's host; Docker Hub's where only a namespace is named."""
        return Reference.parse(f"{self.registry}/x").host


def find(described: LoadedVariant, request: BuildRequest) -> Destination | None:
    """Return where an image goes; None where nothing names it. The first source that names it wins.

    Where the image is not to be pushed, --registry alone counts. Raises UsageError for a name that is none.
    """
    environ = request.environ
    if request.image.registry is not None:
        return _checked(request.image.registry, OPTION)
    if request.image.push is False:
        return None
    if environ.get(VARIABLE, "").strip():
        return _checked(environ[VARIABLE].strip(), VARIABLE)
    if described.spec.image.registry:
        file = described.owner(_KEY)
        return Destination(described.spec.image.registry, f"image.registry, {file.path}:{file.line(_KEY)}")
    # Set by GitHub: https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    owner = environ.get("GITHUB_REPOSITORY_OWNER") if environ.get("GITHUB_ACTIONS") == "true" else None
    if owner:  # names of owners may have upper case, names of repositories may not
        return _checked(f"ghcr.io/{owner.lower()}", "GITHUB_REPOSITORY_OWNER")
    return None


def is_pushed(described: LoadedVariant, request: BuildRequest) -> bool:
    """Tell whether a variant's image is pushed, or planned to be. Raises UsageError."""
    push = request.image.push
    return find(described, request) is not None if push is None else push


def _checked(text: str, source: str) -> Destination:
    try:
        return Destination(registry_name(text), source)
    except UsageError as wrong:
        raise UsageError(f"{source}: {wrong}", hint=wrong.hint) from None


def ways(described: LoadedVariant) -> str:
    """Return how to say where a push goes."""
    path = described.chain[0].path
    file = path if described.option else f"variants/{path.name}"
    return (
        f"Add {OPTION} HOST/NAMESPACE, set {VARIABLE}, or write image.registry into {file}; "
        "in GitHub Actions it is ghcr.io/OWNER."
    )
