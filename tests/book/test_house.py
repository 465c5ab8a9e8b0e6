"""House rules that no single module can keep: one address, one list of chapters, one declaration of dependencies."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import address
import make_book
import nbformat
import pytest
import refresh
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(line)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in group
]
GITHUB = "https://github.com/someone/learning-without-backprop"


def text(name: str, root: Path = ROOT) -> str:
    return (root / name).read_text(encoding="utf-8")


# dependencies


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_reason_a_lower_bound_and_a_pin(requirement):
    assert re.search(rf"^\| {re.escape(requirement.name)} \| .{{8,}} \|$", text("CONTRIBUTING.md"), re.MULTILINE)
    assert any(clause.operator == ">=" for clause in requirement.specifier)
    pinned = re.search(rf"^{re.escape(requirement.name)}==(\S+)", text("constraints.txt"), re.MULTILINE)
    assert pinned
    assert requirement.specifier.contains(Version(pinned[1]), prereleases=True)
    assert "+" not in pinned[1]


def test_no_reason_is_left_over():
    table = re.findall(r"^\| ([a-z][\w-]+) \|", text("CONTRIBUTING.md"), re.MULTILINE)
    assert sorted(set(table) - {"package"}) == sorted(requirement.name for requirement in REQUIREMENTS)


def test_conda_delegates_to_pyproject():
    environment = yaml.safe_load(text("environment.yml"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", "-e .[book,test,dev]"]
    named = {re.split("[<>=]", entry)[0] for entry in environment["dependencies"] if isinstance(entry, str)}
    assert named == {"python", "pip", "make"}


# chapters


def test_readme_and_table_of_contents_agree():
    rows = re.findall(r"^\| (\d\d) \| .+ \| (finished|planned) \|$", text("README.md"), re.MULTILINE)
    assert [number for number, _ in rows] == [f"{n:02d}" for n in range(1, 18)]
    toc = yaml.safe_load(text("book/_toc.yml"))
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    in_toc = [Path(name).name[:2] for name in files if name.startswith("chapters/")]
    assert in_toc == [number for number, state in rows if state == "finished"]
    assert in_toc == sorted(path.name[:2] for path in (ROOT / "book" / "chapters").glob("*.ipynb"))


def test_every_page_of_the_book_is_in_the_table_of_contents():
    toc = yaml.safe_load(text("book/_toc.yml"))
    listed = {toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])}
    folder = ROOT / "book"
    pages = [path for pattern in ("*.md", "appendix/*.*", "chapters/*.*") for path in folder.glob(pattern)]
    assert {path.relative_to(folder).with_suffix("").as_posix() for path in pages} == listed


# the address


@pytest.fixture
def copy(tmp_path):
    """What `make address` writes to, copied."""
    for name in ["pyproject.toml", "README.md", "CITATION.cff", "book/_config.yml"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "book" / "chapters", tmp_path / "book" / "chapters", ignore=shutil.ignore_patterns(".*"))
    return tmp_path


def everything(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.*") if path.is_file()}


def test_the_address_agrees_everywhere(copy):
    assert address.write(address.read(), copy) == []


def test_an_address_is_written_everywhere_and_can_be_taken_back(copy):
    address.write("", copy)
    before = everything(copy)
    assert GITHUB not in str(before)
    assert "colab.research.google.com" not in str(before)
    assert {path.name for path in address.write(f"{GITHUB}.git/", copy)} == {Path(name).name for name in before}
    assert address.read(copy) == GITHUB
    assert tomllib.loads(text("pyproject.toml", copy))["project"]["urls"] == {"Repository": GITHUB}
    assert yaml.safe_load(text("CITATION.cff", copy))["repository-code"] == GITHUB
    config = yaml.safe_load(text("book/_config.yml", copy))
    assert config["repository"] == {"url": GITHUB, "path_to_book": "book", "branch": "main"}
    assert config["html"]["use_repository_button"]
    assert config["launch_buttons"]["colab_url"]
    assert "colab.research.google.com/github/someone/learning-without-backprop)" in text("README.md", copy)
    for path in (copy / "book" / "chapters").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert f"git+{GITHUB}" in next(cell.source for cell in cells if cell.cell_type == "code")
        assert f"github/someone/learning-without-backprop/blob/main/book/chapters/{path.name})" in cells[0].source
    assert address.write(GITHUB, copy) == []
    address.write("", copy)
    assert everything(copy) == before


def test_elsewhere_than_on_github_there_are_no_colab_badges(copy):
    address.write("https://example.org/someone/book", copy)
    assert "colab.research.google.com" not in str(everything(copy))
    assert yaml.safe_load(text("book/_config.yml", copy))["repository"]["url"] == "https://example.org/someone/book"


@pytest.mark.parametrize("url", ["github.com/a/b", "http://github.com/a/b", "https://github.com", "biolearn-lite"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="https://host/owner/project"):
        address.normal(url)


# commands


def test_make_alone_lists_the_commands():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("book", "test", "lab", "check", "bench", "refresh", "address"):
        assert f"make {command} " in listed


def test_the_cache_is_emptied_when_the_package_changes(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    make_book.forget_if_stale(cache)
    kept = cache / "executed"
    kept.write_text("a chapter's outputs")
    make_book.forget_if_stale(cache)
    assert kept.exists()
    monkeypatch.setattr(make_book, "ROOT", tmp_path)
    (tmp_path / "biolearn_lite").mkdir()
    (tmp_path / "biolearn_lite" / "new.py").write_text("x = 1")
    make_book.forget_if_stale(cache)
    assert not kept.exists()


def test_a_changed_style_sheet_is_noticed(tmp_path):
    make_book.copy_plotly()
    assert make_book.static_changed(tmp_path)
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "_static")
    shutil.copytree(ROOT / "book" / "_generated", tmp_path / "_static", dirs_exist_ok=True)
    assert not make_book.static_changed(tmp_path)
    (tmp_path / "_static" / "book.css").write_text("p { color: red }")
    assert make_book.static_changed(tmp_path)


def test_storing_outputs_twice_gives_the_same_bytes():
    def executed(model: str, bar: str, second: str):
        view = {refresh.WIDGET: {"model_id": model}, "text/html": "<p>drawn</p>"}
        outputs = [
            nbformat.v4.new_output("stream", name="stderr", text=bar),
            nbformat.v4.new_output("display_data", data=view),
        ]
        cell = nbformat.v4.new_code_cell("x", outputs=outputs, id="a", metadata={"execution": {"at": second}})
        state = {"application/vnd.jupyter.widget-state+json": {"state": {model: {"state": {}}}}}
        return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": state})

    one = refresh.stored(executed("a" * 32, "10%", "noon"))
    two = refresh.stored(executed("b" * 32, "20%", "night"))
    assert one == two
    assert "<p>drawn</p>" in one


# the product speaks of itself alone


def test_no_file_names_one_machine():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.splitlines() if name != "tests/book/test_chapters.py"]
    kinds = {".py", ".md", ".yml", ".toml", ".txt", ".css", ".js"}
    paths = [ROOT / name for name in names if Path(name).suffix in kinds]
    here = re.compile(re.escape(str(ROOT)) + r"|(?<![\w.])/(?:root|work)/")
    assert [path.name for path in paths if path.exists() and here.search(path.read_text(encoding="utf-8"))] == []


def test_the_four_papers_are_cited():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert [reference["year"] for reference in citation["references"]] == [2020, 2022, 2021, 2021]
    bibliography = text("book/references.bib").replace("{", "").replace("}", "").lower()
    for reference in citation["references"]:
        assert reference["title"].lower() in bibliography
        assert str(reference.get("doi", "")) in bibliography
