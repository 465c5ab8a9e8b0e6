"""The Colab condition: an environment with torch and all the rest, where the package comes only from a wheel."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("biolearn_lite", "_biolearn_lite", "__editable__")


def build_wheel(folder: Path) -> Path:
    """Build the package's wheel into `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def make(folder: Path, wheel: Path | None = None) -> Path:
    """An environment in `folder` that inherits every installed package but ours; returns its Python.

    With a `wheel` our package is installed from it. What is inherited is linked, one entry of site-packages at a time.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    inherited = folder / "inherited"
    inherited.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(OURS) and entry.suffix != ".pth":
            (inherited / entry.name).symlink_to(entry)
    python = folder / "bin" / "python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True, env=environment()
    )
    (Path(site.strip()) / "inherited.pth").write_text(f"{inherited}\n")
    if wheel:
        command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run(command, check=True, env=environment())
        where = location(python)
        if folder.resolve() not in where.parents:
            raise RuntimeError(f"biolearn_lite is imported from {where}, not from the wheel in {folder}")
    return python


def location(python: Path) -> Path:
    """The file `import biolearn_lite` finds, run outside the project's folder."""
    code = "import biolearn_lite; print(biolearn_lite.__file__)"
    found = subprocess.check_output([python, "-c", code], text=True, cwd=python.parent, env=environment())
    return Path(found.strip()).resolve()


def environment(**extra: str) -> dict[str, str]:
    """The variables for a process there: ours, less what would show it the project or an address."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "BIOLEARN_SOURCE", "BIOLEARN_SCALE"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | extra
