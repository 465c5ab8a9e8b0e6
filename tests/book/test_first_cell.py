"""The first cell of every chapter, run where the package is missing, as on a fresh Colab machine."""

import subprocess
import zipfile
from pathlib import Path

import address
import clean_env
import pytest

WHERE = "import sys, torch, torchvision; print(sys.prefix, torch.__file__, torch.__version__, torchvision.__version__)"


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of an environment without our package."""
    return clean_env.make(tmp_path_factory.mktemp("bare") / "env")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return clean_env.build_wheel(tmp_path_factory.mktemp("wheel"))


def run(python: Path, code: str, **variables: str) -> subprocess.CompletedProcess:
    env = clean_env.environment(PIP_NO_INDEX="1", PIP_FIND_LINKS="", **variables)
    return subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=python.parent, env=env)


def test_without_an_address_it_says_what_to_set(bare):
    done = run(bare, address.first_cell(""))
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: Set BIOLEARN_SOURCE to")
    assert "Traceback" in done.stderr
    assert "During handling" not in done.stderr


def test_with_a_wheel_it_installs_the_package_and_leaves_torch_alone(bare, wheel):
    before = run(bare, WHERE).stdout
    done = run(bare, address.first_cell("") + "\nprint(here.seed, here.scale)", BIOLEARN_SOURCE=str(wheel))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0"
    assert bare.parent.parent in clean_env.location(bare).parents
    assert run(bare, WHERE).stdout == before


def test_the_wheel_carries_the_papers_tables_and_our_results(wheel):
    inside = {name.removeprefix("biolearn_lite/_data/") for name in zipfile.ZipFile(wheel).namelist()}
    data = clean_env.ROOT / "data"
    paths = [path for name in ("papers", "results") for path in (data / name).rglob("[!.]*.*")]
    files = {path.relative_to(data).as_posix() for path in paths}
    assert files <= inside


def test_an_address_is_installed_from_by_git_never_by_a_bare_name():
    cell = address.first_cell("https://example.org/someone/project")
    assert 'or "git+https://example.org/someone/project"' in cell
    assert '"biolearn' not in cell
