"""The plan of the house holds: imports go up only, unsafe loading is nowhere, files stay readable."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "shakeshake"
FILES = sorted(SOURCE.rglob("*.py"))

# What each room may import, besides itself.
KNOWS = {
    "errors": set(),
    "utils": {"errors"},
    "layers": {"errors"},
    "models": {"errors", "utils", "layers"},
    "kernels": {"utils", "layers", "models"},
    "data": {"errors", "utils"},
    "inference": {"errors", "utils", "layers", "kernels", "models", "data"},
    "train": {"errors", "utils", "layers", "kernels", "models", "data", "inference"},
    "analysis": {"errors", "utils", "layers", "models", "data", "train", "inference"},
    "export": {"errors", "utils", "models", "data", "inference", "train", "analysis"},
    "experiments": {"errors", "utils", "layers", "models", "data", "train", "analysis", "inference"},
    "report": {"errors", "utils", "layers.rules", "models.registry", "train.run_directory"},
    "bench": {"errors", "utils", "models", "data", "train", "inference"},
    "doctor": {"kernels", "utils", "data", "train", "bench", ""},  # "" is the package itself, for its version
    "classifier": {"errors", "utils", "models", "data", "train"},
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
        "",
    },
    "__main__": {"cli"},
    "__init__": {"errors", "layers", "models", "data", "train", "analysis", "export", "inference", "classifier"},
}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, by their names within it."""
    package = ("shakeshake", *path.relative_to(SOURCE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = ".".join((*base, *(node.module.split(".") if node.module else ()))).removeprefix("shakeshake")
            names = [f"{module}.{alias.name}" for alias in node.names] if node.module is None else [module]
            found |= {name.strip(".") for name in names}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not any(name.split(".")[0] == "shakeshake" for name in names), f"{path}: relative imports, please"
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imported(path):
        home = name.split(".")[0]
        home = "" if home.startswith("__") else home
        assert home == room or home in KNOWS[room] or ".".join(name.split(".")[:2]) in KNOWS[room], (
            f"{path.relative_to(SOURCE)} imports {name}, which {room} may not know"
        )


def test_nothing_is_unpickled_and_no_file_is_dreaded():
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"pickle\.loads?\(|import pickle\b|yaml\.load\(|allow_pickle=True", text), path
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, path
        assert len(text.splitlines()) <= 400, path
        assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it knows"
