"""Which committed results were made by code that computes what the present code does: data/results/sources.json.

A record holds the hash of its sources. Where the rule by which `recipes.results` hashes has changed, this finds a
commit whose code has the recorded hash by the rule of its day, and hashes that commit's code by the rule of today:

    python tools/sources.py       # writes {recorded hash: today's hash}, from the history of this repository
"""

import json
import subprocess
import sys
import tempfile

from biolearn_lite.recipes import engine, results

ROOT = results.PACKAGE.parent
THEIRS = "from biolearn_lite.recipes import engine, results; print(results.source_hash(engine.find(sys.argv[1]).train))"
OURS = """
import importlib.util
from biolearn_lite.recipes import engine
spec = importlib.util.spec_from_file_location("today", sys.argv[2])
today = importlib.util.module_from_spec(spec)
spec.loader.exec_module(today)
today.PACKAGE = type(today.PACKAGE)(engine.__file__).resolve().parent.parent
print(today.source_hash(engine.find(sys.argv[1]).train))
"""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def hashed(commit: str, code: str, *arguments: str) -> str | None:
    """What the code prints in the package as it was at that commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit, "biolearn_lite"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'){chr(10)}{code}", *arguments]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        return found.stdout.strip() or None


def main() -> None:
    known: dict[str, str] = {}
    history = git("rev-list", "HEAD", "--", "biolearn_lite").split()
    for name, recipe in engine.recipes().items():
        records = results.read(name)
        for source in sorted({record["source"] for record in records} - {results.source_hash(recipe.train), *known}):
            made = [(record["git"] or {}).get("commit", "HEAD") for record in records if record["source"] == source]
            for commit in dict.fromkeys([*made, *history]):
                if hashed(commit, THEIRS, name) == source:
                    if not (today := hashed(commit, OURS, name, results.__file__)):
                        raise RuntimeError(f"{name} at {commit}: its code cannot be hashed by today's rule")
                    known[source] = today
                    break
            print(name, source[:8], "→", known.get(source, "not found")[:9])
    target = results.committed("results") / "sources.json"
    target.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
