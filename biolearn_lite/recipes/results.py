"""Where results live, and how they stay honest: one JSON file per run, written whole or not at all.

Only a run writes a result. A record holds what was computed and everything it depended on: the settings, the hash of
the sources, the versions, the device, the date. New records go to `folder()`; `BIOLEARN_RESULTS` moves it, say to a
mounted drive that survives a lost machine. Records are read from there and from those committed with the package.

Every record is sealed with a digest over its whole content; one whose content was edited, typed by hand or cut short
does not match its digest and is not read. The digest is a seal, not a signature: it needs no secret, so it stops slips,
not someone determined to forge. Against that helps only what the record also says: the commit and the source hash from
which anyone can make the run again.
"""

import ast
import hashlib
import inspect
import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, cast

from biolearn_lite.training.checkpoint import replace_file

PACKAGE = Path(__file__).resolve().parent.parent
COMPUTING = ("rules", "nets", "training", "data", "recipes")
PLANNING = ("checkpoint", "engine", "papers", "plots", "report", "results")


class Record(TypedDict):
    """What one run leaves behind."""

    recipe: str
    row: str
    column: str
    seed: int
    scale: str
    epochs: dict[str, int]  # run, and the recipe's own
    settings: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float
    peak_memory: dict[str, Any]  # bytes, and of what
    device: str
    versions: dict[str, str]
    source: str  # `source_hash`
    git: dict[str, Any] | None  # `git_state`
    date: str  # UTC
    digest: str


def committed(kind: str) -> Path:
    """The folder of `papers` or `results` that comes with the package: in a checkout, or inside an installed wheel."""
    checkout = PACKAGE.parent / "data" / kind
    if checkout.is_dir() and (PACKAGE.parent / "pyproject.toml").exists():
        return checkout
    return PACKAGE / "_data" / kind


def folder() -> Path:
    """Where new results go: `BIOLEARN_RESULTS`, else data/results of a checkout, else ./biolearn-results."""
    if chosen := os.environ.get("BIOLEARN_RESULTS"):
        return Path(chosen).expanduser()
    here = committed("results")
    return Path("biolearn-results") if here.is_relative_to(PACKAGE) else here


def read(recipe: str) -> list[Record]:
    """All whole, untouched records of a recipe, oldest first; the others are named in a warning and left out."""
    found: dict[str, Record] = {}
    for place in dict.fromkeys([committed("results"), folder()]):
        for path in sorted((place / recipe).glob("*.json")):
            try:
                record = load(path)
            except (ValueError, OSError) as problem:
                warnings.warn(str(problem), stacklevel=2)
            else:
                found[record["digest"]] = record
    return sorted(found.values(), key=lambda record: record["date"])


def load(path: Path) -> Record:
    """One record. Raises ValueError if the file is not a record as a run wrote it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{path.name} is not JSON ({problem}): delete it and run again") from None
    if not isinstance(content, dict) or set(content) != set(Record.__annotations__):
        raise ValueError(f"{path.name} is not a record of a run: only `python -m biolearn_lite run` writes results")
    if content["digest"] != digest(content):
        raise ValueError(f"{path.name} was changed after its run (its digest does not match): delete it and run again")
    return cast(Record, content)


def write(content: dict[str, Any]) -> Path:
    """Seal a record and write it in one piece."""
    path = folder() / str(content["recipe"]) / file_name(content)
    text = json.dumps(content | {"digest": digest(content)}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    replace_file(path, text.encode())
    path.chmod(0o644)
    return path


def file_name(content: dict[str, Any]) -> str:
    """Readable, and different for different runs: column, row, seed, epochs, and a hash of the settings."""
    words = f"{content['column']} {content['row']} seed {content['seed']} epochs {content['epochs']['run']}"
    safe = "".join(c if c.isalnum() else "-" for c in words)
    return f"{safe}-{fingerprint(content['settings'])[:8]}.json"


def unfinished(content: dict[str, Any]) -> Path:
    """The folder of the checkpoints of a run: another one for other settings, and for other code."""
    return folder() / str(content["recipe"]) / f".{Path(file_name(content)).stem}-{content['source'][:8]}"


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything in a record but the digest itself."""
    return fingerprint({key: value for key, value in content.items() if key != "digest"})


def fingerprint(content: object) -> str:
    """SHA-256 of the canonical JSON of anything JSON can hold."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def source_hash(train: Callable[..., Any]) -> str:
    """Hash of the code a run computes with, as it was when a process first asked.

    The file that defines `train`, and all it imports, directly or not, from rules, nets, training, data and recipes.
    What changes no number is left out: what merely plans, stores or shows runs; docstrings and comments; and what only
    refuses, so that a clearer error message does not make a result old.
    """
    start = Path(inspect.getsourcefile(train) or "")
    files, todo = {start}, [start]
    while todo:
        new = set(_imports(todo.pop())) - files
        files |= new
        todo += new
    content = {path.name if path == start else str(path.relative_to(PACKAGE)): _code(path) for path in files}
    return fingerprint(content)


def is_current(record: Record, source: str) -> bool:
    """Whether a record was made by the code with this hash, or by code known to compute the same (sources.json)."""
    return _equal_sources().get(record["source"], record["source"]) == source


@cache
def _equal_sources() -> dict[str, str]:
    """Hashes made by an earlier rule, and what they are by today's: `tools/sources.py` finds them in the history."""
    path = committed("results") / "sources.json"
    return cast(dict[str, str], json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


@cache
def git_state() -> dict[str, Any] | None:
    """Commit, and whether the package differs from it, when a process first asked; None outside a checkout."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=30).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", PACKAGE.name])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _imports(path: Path) -> Iterable[Path]:
    """Files of the computing wings that a source file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, *parts = name.split(".")
            file = PACKAGE.joinpath(*parts).with_suffix(".py")
            computes = parts and parts[0] in COMPUTING and parts[-1] not in PLANNING
            if package == PACKAGE.name and computes and file.is_file():
                yield file


def _code(path: Path) -> str:
    """A source file without what changes no number."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and (_is_docstring(node) or _only_refuses(node)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * len(lines[node.lineno - 1 : node.end_lineno])
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _only_refuses(node: ast.stmt) -> bool:
    """`raise ...`, or an `if` that does nothing else: such code lets a run go on as it was, or ends it."""
    if not isinstance(node, ast.If):
        return isinstance(node, ast.Raise)
    names = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test))
    return not names and not node.orelse and all(isinstance(part, ast.Raise) for part in node.body)
