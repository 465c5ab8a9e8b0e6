"""The project's public address: one line in pyproject.toml, copied by `make address URL=…` to where it is needed.

Those places are the first cell of every chapter, the badges of chapters and README, CITATION.cff and the buttons in
book/_config.yml. While the address is unset there are no badges and no buttons.
"""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent

FIRST_CELL = """\
try:
    import biolearn_lite
except ImportError:  # as on Colab: install it and leave torch as it is
    import os, subprocess, sys
    from importlib.metadata import distributions

    source = os.environ.get("BIOLEARN_SOURCE") or "{source}"
    if not source:
        sentence = "Set BIOLEARN_SOURCE to the project's folder or wheel."
        raise ImportError(sentence) from None
    found = {{d.name: d.version for d in distributions()}}
    keep = [f"{{p}}=={{found[p]}}" for p in ("torch", "torchvision") if p in found]
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, source, *keep], check=True)

from biolearn_lite.show.about import about

here = about(seed=0)
here"""


def read(root: Path = ROOT) -> str:
    """The address in pyproject.toml; empty while unset."""
    found = re.search(r'^\[project\.urls\]\nRepository = "(.*)"$', _text(root / "pyproject.toml"), re.MULTILINE)
    return found[1] if found else ""


def first_cell(address: str) -> str:
    """The code of every chapter's first code cell."""
    return FIRST_CELL.format(source=address and f"git+{address}")


def colab(address: str, chapter: str) -> str:
    """Where Colab opens book/chapters/<chapter>; empty unless the address is on GitHub."""
    parts = urlsplit(address)
    if parts.hostname != "github.com":
        return ""
    return f"https://colab.research.google.com/github{parts.path}/blob/main/book/chapters/{chapter}"


def badge(address: str, chapter: str) -> str:
    """The line under a chapter's title; empty unless Colab can open the chapter."""
    link = colab(address, chapter)
    return link and f"[Open in Colab]({link})"


def normal(url: str) -> str:
    """The address as it is written everywhere: https, no .git, no slash at the end."""
    parts = urlsplit(url.strip())
    if url.strip() and (parts.scheme != "https" or not parts.hostname or not parts.path.strip("/")):
        raise ValueError(f"{url!r} is no project address; it should look like https://host/owner/project")
    return url.strip().rstrip("/").removesuffix(".git")


def write(url: str, root: Path = ROOT) -> list[Path]:
    """Write the address everywhere and return the files that changed."""
    address = normal(url)
    edits = {
        root / "pyproject.toml": _pyproject,
        root / "README.md": _readme,
        root / "CITATION.cff": _citation,
        root / "book" / "_config.yml": _config,
    }
    edits |= dict.fromkeys(sorted((root / "book" / "chapters").glob("*.ipynb")), _chapter)
    changed = []
    for path, edit in edits.items():
        before = _text(path)
        after = edit(before, address, path.name)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _pyproject(text: str, address: str, _: str) -> str:
    text = re.sub(r"\[project\.urls\]\n.*\n\n", "", text)
    table = f'[project.urls]\nRepository = "{address}"\n\n' if address else ""
    return text.replace("[project.scripts]\n", f"{table}[project.scripts]\n")


def _citation(text: str, address: str, _: str) -> str:
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    line = f'repository-code: "{address}"\n' if address else ""
    return text.replace("license:", f"{line}license:", 1)


def _readme(text: str, address: str, _: str) -> str:
    link = colab(address, "").partition("/blob/")[0]  # the list of notebooks
    lines = [f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"] if link else []
    return _between(text, "<!-- address: begin -->", "<!-- address: end -->", [lines])


def _config(text: str, address: str, _: str) -> str:
    on_github = urlsplit(address).hostname == "github.com"
    buttons = ["use_repository_button: true", "use_issues_button: true"] if address else []
    launch = ["colab_url: https://colab.research.google.com"] if on_github else []
    repository = [f"url: {address}", "path_to_book: book", "branch: main"] if address else ['url: ""']
    return _between(text, "# address: begin", "# address: end", [buttons, launch, repository])


def _between(text: str, begin: str, end: str, blocks: list[list[str]]) -> str:
    """Put each block of lines between its pair of marker lines, at the markers' indentation."""
    remaining = iter(blocks)

    def fill(found: re.Match[str]) -> str:
        indent = found[1]
        return "".join(f"{indent}{line}\n" for line in [begin, *next(remaining), end])

    pattern = rf"^([ ]*){re.escape(begin)}\n(?:.*\n)*?[ ]*{re.escape(end)}\n"
    text, count = re.subn(pattern, fill, text, flags=re.MULTILINE)
    if count != len(blocks):
        raise ValueError(f"expected {len(blocks)} pairs of {begin!r} and {end!r}, found {count}")
    return text


def _chapter(text: str, address: str, name: str) -> str:
    notebook = nbformat.reads(text, as_version=4)
    title = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    heading, *rest = [part for part in title.source.split("\n\n") if not part.startswith("[Open in Colab](")]
    title.source = "\n\n".join(filter(None, [heading, badge(address, name), *rest]))
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first_cell(address)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit(f"The address is {read() or 'unset'}. To set it: make address URL=https://host/owner/project")
    try:
        written = write(sys.argv[1])
    except ValueError as wrong:
        sys.exit(str(wrong))
    print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in written) or "nothing to change")
