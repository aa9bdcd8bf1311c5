"""Imports go one way, unsafe loading is absent, and files stay readable."""

import ast
import re
import sys
from pathlib import Path

import pytest

from helpers import python

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "shakeshake"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 400

# Part of the package, lowest first -> what it may import besides itself.
ALLOWED = {
    "errors": set(),
    "utils": {"errors"},
    "layers": {"errors"},
    "models": {"errors", "utils", "layers"},
    "kernels": {"utils", "layers", "models"},
    "data": {"errors", "utils"},
    "inference": {"errors", "utils", "layers", "kernels", "models", "data"},
    "train": {"errors", "utils", "layers", "kernels", "models", "data", "inference"},
    "analysis": {"errors", "utils", "layers", "models", "data", "train", "inference"},
    "export": {"errors", "utils", "layers", "models", "data", "inference", "train", "analysis"},
    "experiments": {"errors", "utils", "layers", "models", "data", "train", "analysis", "inference"},
    "report": {
        "errors",
        "utils",
        "layers.rules",
        "models.registry",
        "analysis.schema",
        "experiments.schema",
        "train.run_directory",
        "train.schema",
    },
    "bench": {"errors", "utils", "models", "data", "train", "inference"},
    "classifier": {"errors", "utils", "models", "data", "train"},
    "__init__": {
        "errors",
        "utils",
        "layers",
        "models",
        "data",
        "train",
        "analysis",
        "export",
        "inference",
        "classifier",
        "experiments",
        "report",
    },
    "doctor": {"kernels", "utils", "data", "train", "bench", "__init__"},
    "demo": {"errors", "utils", "experiments", "report"},
    "cli": {
        "errors",
        "utils",
        "layers",
        "models",
        "data",
        "train",
        "analysis",
        "experiments",
        "report",
        "bench",
        "doctor",
        "demo",
        "inference",
        "export",
        "__init__",
    },
    "__main__": {"cli"},
}

sys.path.insert(0, str(ROOT / "docs" / "dev"))
from import_diagram import imported, imports_at_load, part_of  # noqa: E402


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_layer_order(path):
    own = part_of(path)
    for module in imported(path):
        parts = module.split(".")
        assert parts[0] == own or {parts[0], ".".join(parts[:2])} & ALLOWED[own], (
            f"{path.relative_to(SOURCE)} imports {module}, which {own} may not import"
        )


def test_allowed_imports_follow_the_order():
    order = list(ALLOWED)
    for part, allowed in ALLOWED.items():
        assert all(order.index(other.split(".")[0]) < order.index(part) for other in allowed), part


def test_no_import_cycles_exist():
    """Imports at module level have no cycle, so that modules can be imported in any order."""
    edges = imports_at_load()
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_pickle_is_never_loaded():
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"pickle\.loads?\(|import pickle\b|yaml\.load\(|allow_pickle=True", text), path
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, path


def test_files_are_short_and_documented():
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_LINES, path
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_imports_within_the_package_are_relative():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "shakeshake" for name in names), path


def test_importing_the_package_does_not_import_torch():
    code = "import sys, shakeshake; shakeshake.__version__; assert not {'torch', 'numpy'} & set(sys.modules)"
    python("-c", code)


def test_the_import_diagram_is_drawn():
    out, _ = python(ROOT / "docs" / "dev" / "import_diagram.py")
    assert out.startswith("graph BT\n")
    assert "    models --> layers\n" in out
