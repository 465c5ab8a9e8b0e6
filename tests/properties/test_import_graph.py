"""Who may import whom: each rule readable alone, a trainer that knows no rule, pictures that know nothing else."""

import ast
import sys
from pathlib import Path

import pytest

import biolearn_lite

PACKAGE = Path(biolearn_lite.__file__).parent
WINGS = ("rules", "nets", "training", "data", "recipes", "show")
ALLOWED = {
    "rules": {"rules"},
    "nets": {"rules", "nets"},
    "training": {"training"},
    "data": {"data"},
    "recipes": set(WINGS),
    "show": {"show"},
}
SHARED_PAGES = {"kernels", "plasticity"}


def imports(source, module):
    """Every module a file imports, at any depth, by its full name; `from p import q` counts as p.q."""
    package = module.rsplit(".", 1)[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (parent, node.module) if part)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden(module, source):
    """The imports of a module that its place in the package does not allow."""
    return [name for name in imports(source, module) if not allowed(module, name)]


def allowed(module, name):
    _, wing, *page = module.split(".")
    first, *rest = name.split(".")
    if first != "biolearn_lite":
        return wing != "rules" or first in {"torch", "lazy_loader"} or first in sys.stdlib_module_names
    if not rest:
        return wing in {"recipes", "show"}  # the version
    if rest[0] not in ALLOWED[wing]:
        return False
    return wing != "rules" or not {*rest[1:2]} - SHARED_PAGES - {*page}


FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for wing in WINGS
    for path in sorted((PACKAGE / wing).rglob("*.py"))
}


@pytest.mark.parametrize("module", list(FILES))
def test_imports_stay_inside_the_arrows(module):
    assert forbidden(module.removesuffix(".__init__"), FILES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("biolearn_lite.rules.hsic", "from biolearn_lite.rules import contrastive"),
        ("biolearn_lite.rules.hsic", "from biolearn_lite.rules.online import online_update"),
        ("biolearn_lite.rules.online", "from .hsic import hsic"),
        ("biolearn_lite.rules.kernels", "import numpy as np"),
        ("biolearn_lite.rules.kernels", "from biolearn_lite.nets import layers"),
        ("biolearn_lite.training.fit", "import biolearn_lite.rules.hsic"),
        ("biolearn_lite.training.fit", "def late():\n    from biolearn_lite.nets.networks import mlp"),
        ("biolearn_lite.training.fit", "from biolearn_lite import rules"),
        ("biolearn_lite.show.figures", "from biolearn_lite.rules import kernels"),
        ("biolearn_lite.nets.layers", "from biolearn_lite.training import fit"),
        ("biolearn_lite.data.sets", "import biolearn_lite"),
    ],
)
def test_the_guard_sees_every_way_to_break_the_rule(module, line):
    assert forbidden(module, line) != []


def test_the_guard_allows_what_is_meant():
    assert (
        forbidden("biolearn_lite.rules.hsic", "import math\nimport torch.nn\nfrom biolearn_lite.rules import kernels")
        == []
    )
    assert forbidden("biolearn_lite.nets.layers", "from biolearn_lite.rules.kernels import centre") == []
    assert forbidden("biolearn_lite.recipes.engine", "import biolearn_lite\nfrom biolearn_lite.rules import hsic") == []
    assert len(FILES) > 12
