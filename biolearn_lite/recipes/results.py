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
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

PACKAGE = Path(__file__).resolve().parent.parent
COMPUTING = ("rules", "nets", "training", "data")
KEYS = frozenset(
    ("recipe", "row", "column", "seed", "scale", "epochs", "settings", "metrics")
    + ("seconds", "peak_memory", "device", "versions", "source", "git", "date", "digest")
)


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
    return sorted(found.values(), key=lambda record: str(record["date"]))


def load(path: Path) -> Record:
    """One record. Raises ValueError if the file is not a record as a run wrote it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{path.name} is not JSON ({problem}): delete it and run again") from None
    if not isinstance(record, dict) or set(record) != KEYS:
        raise ValueError(f"{path.name} is not a record of a run: only `python -m biolearn_lite run` writes results")
    if record["digest"] != digest(record):
        raise ValueError(f"{path.name} was changed after its run (its digest does not match): delete it and run again")
    return record


def write(record: Record) -> Path:
    """Seal a record and write it in one piece; a record of the same run that is already there stays as it is."""
    record = {**record, "digest": digest(record)}
    if set(record) != KEYS:
        raise ValueError(f"a record needs exactly {sorted(KEYS)}, got {sorted(record)}")
    path = folder() / record["recipe"] / file_name(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_atomically(path, json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def file_name(record: Record) -> str:
    """Readable, and different for different runs: column, row, seed, epochs, and a hash of the settings."""
    words = f"{record['column']} {record['row']} seed {record['seed']} epochs {record['epochs']['run']}"
    safe = "".join(c if c.isalnum() else "-" for c in words)
    return f"{safe}-{fingerprint(record['settings'])[:8]}.json"


def digest(record: Record) -> str:
    """SHA-256 of everything in a record but the digest itself."""
    return fingerprint({key: value for key, value in record.items() if key != "digest"})


def fingerprint(content: object) -> str:
    """SHA-256 of the canonical JSON of anything JSON can hold."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def source_hash(train: Callable[..., Any]) -> str:
    """Hash of the source files a run computes with.

    The file that defines `train`, and all it imports, directly or not, from rules, nets, training and data. What
    merely plans, stores or shows runs is left out: changing it changes no number.
    """
    start = Path(inspect.getsourcefile(train) or "")
    files, todo = {start}, [start]
    while todo:
        new = set(_imports(todo.pop())) - files
        files |= new
        todo += new
    content = {
        path.name if path == start else str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in files
    }
    return fingerprint(content)


def git_state() -> dict[str, Any] | None:
    """Commit, and whether the package differs from it; None outside a checkout."""
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
            if package == PACKAGE.name and parts and parts[0] in COMPUTING and file.is_file():
                yield file


def _write_atomically(path: Path, text: str) -> None:
    """A reader finds the old state or the new one, never half a file, whenever the power goes."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
