"""Write constraints.txt: the versions in this environment, the ones the book is tested with.

Pinned is what pyproject.toml asks for and what that asks for in turn. A local suffix (torch 2.13.0+cpu) is dropped, so
that the pin holds for any build of that version. A version that no longer runs on the oldest Python we support is
pinned from the first Python it does run on; before it, pip may choose.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT, EXTRAS = "biolearn-lite", ("book", "test", "dev")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
HEADER = "# The tested set, written by `make pins`. pyproject.toml says what is needed; this says what was tested.\n"


def needed(name: str, extras: tuple[str, ...], seen: set[tuple[str, tuple[str, ...]]]) -> None:
    """Collect in `seen` every installed distribution that `name[extras]` needs."""
    if (name, extras) in seen:
        return
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:  # for another platform or Python
        return
    seen.add((name, extras))
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            needed(canonicalize_name(requirement.name), tuple(sorted(requirement.extras)), seen)


def pin(name: str) -> str:
    """The line for one distribution."""
    dist = distribution(name)
    runs_on = SpecifierSet(dist.metadata["Requires-Python"] or "")
    first = next(python for python in PYTHONS if runs_on.contains(f"{python}.99"))
    marker = "" if first == PYTHONS[0] else f' ; python_version >= "{first}"'
    return f"{name}=={Version(dist.version).public}{marker}"


if __name__ == "__main__":
    found: set[tuple[str, tuple[str, ...]]] = set()
    needed(PROJECT, EXTRAS, found)
    lines = sorted({pin(name) for name, _ in found if name != PROJECT})
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {len(lines)} pins to constraints.txt")
