"""Run every chapter once as a reader on Colab would, and compare what it prints with what it has stored.

The chapters are copied to an empty folder; the kernel is the Python of a clean environment (see clean_env.py). Part of
`make test`. To run a few only: python tests/book/run_chapters.py book/chapters/03*.ipynb
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import clean_env

CHAPTERS = clean_env.ROOT / "book" / "chapters"


def add_kernel(folder: Path, python: Path) -> None:
    """A kernel called python3 that is this Python."""
    spec = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))


def main(chapters: list[Path]) -> int:
    if not chapters:
        raise FileNotFoundError(f"no chapters in {CHAPTERS}")
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name).resolve()
        python = clean_env.make(temporary / "env", clean_env.build_wheel(temporary))
        add_kernel(temporary / "jupyter", python)
        folder = temporary / "chapters"
        folder.mkdir()
        for path in [clean_env.ROOT / "conftest.py", *chapters]:
            shutil.copy(path, folder)
        command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=600", "--nbval-kernel-name=python3"]
        command += ["-p", "no:cacheprovider", "-q", "--dist=loadscope", f"--numprocesses={min(2, len(chapters))}"]
        env = clean_env.environment(JUPYTER_PATH=str(temporary / "jupyter"), OMP_NUM_THREADS="1")
        return subprocess.run([*command, str(folder)], cwd=folder, env=env).returncode


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]] or sorted(CHAPTERS.glob("*.ipynb"))))
