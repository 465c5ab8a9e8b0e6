"""Write constraints.txt: the versions in this environment, the ones the book is tested with.

A local suffix (torch 2.13.0+cpu) is dropped, so that the pin holds for any build of that version. A version that has
left the oldest Python we support behind is pinned from the first Python it runs on; before it, pip may choose.
"""

from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
NOT_PINNED = {"biolearn-lite", "pip", "setuptools", "wheel"}
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def pins() -> list[str]:
    lines = []
    for dist in distributions():
        name = canonicalize_name(dist.metadata["Name"])
        if name in NOT_PINNED:
            continue
        needs = SpecifierSet(dist.metadata["Requires-Python"] or "")
        first = next(python for python in PYTHONS if needs.contains(f"{python}.99"))
        marker = "" if first == PYTHONS[0] else f' ; python_version >= "{first}"'
        lines.append(f"{name}=={Version(dist.version).public}{marker}")
    return sorted(set(lines))


if __name__ == "__main__":
    target = ROOT / "constraints.txt"
    header = "# The tested set, written by `make pins`. pyproject.toml says what is needed; this says what was tested.\n"
    target.write_text(header + "\n".join(pins()) + "\n", encoding="utf-8")
    print(f"wrote {target.name}")
