"""Build the book: run the chapters whose cache is stale, write book/_build/html, print the path to open.

Jupyter's cache knows a chapter by its code cells alone. What the cells import counts too, so the cache (and every page
made from it) is thrown away when the package, its data or the installed versions change.
"""

import argparse
import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import plotly
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"


def fingerprint() -> str:
    """Of everything a chapter's outputs depend on but its own cells: package, data, versions, Python."""
    digest = hashlib.sha256(sys.version.encode())
    for folder in ("biolearn_lite", "data"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    for line in sorted(f"{dist.metadata['Name']}=={dist.version}" for dist in distributions()):
        digest.update(line.encode())
    return digest.hexdigest()


def forget_if_stale(build: Path) -> None:
    """Empty `build` unless it was made with today's fingerprint."""
    mark, now = build / "fingerprint", fingerprint()
    if not mark.exists() or mark.read_text() != now:
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        mark.write_text(now)


def copy_plotly() -> None:
    """Plotly's script, as installed, where the site takes its static files from."""
    target = BOOK / "_generated" / "plotly.min.js"
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


def static_changed(pages: Path) -> bool:
    """Whether a style sheet or script differs from its copy in the site; Sphinx alone would not notice."""
    for folder in ("_static", "_generated"):
        for source in (BOOK / folder).iterdir():
            copy = pages / "_static" / source.name
            if not copy.exists() or not filecmp.cmp(source, copy, shallow=False):
                return True
    return False


def build(output: Path, *, execute: str = "cache", quiet: bool = False) -> Path:
    """Build the site below `output`; every warning is an error. Returns the folder of pages.

    `execute="off"` takes the outputs stored in the chapters instead of running them.
    """
    copy_plotly()
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = execute
    folder = output / "_build"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(BOOK), "--path-output", str(output)]
    command += ["--config", str(folder / "_config.yml"), "-W", "-n", "--keep-going", *(["-q"] if quiet else [])]
    command += ["--all"] if static_changed(folder / "html") else []
    subprocess.run(command, check=True, env={"OMP_NUM_THREADS": "1"} | os.environ)
    return folder / "html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stored", action="store_true", help="show the stored outputs, run nothing")
    options = parser.parse_args()
    if options.stored:
        pages = build(BOOK / "_build" / "stored", execute="off")
    else:
        forget_if_stale(BOOK / "_build")
        try:
            pages = build(BOOK)
        except subprocess.CalledProcessError as failed:
            sys.exit(f"the book was not built (exit status {failed.returncode}); the messages above say why")
    print(f"\nThe book is ready. Open {pages / 'index.html'}")
