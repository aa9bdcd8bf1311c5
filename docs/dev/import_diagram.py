"""Print the imports between the parts of the package as a Mermaid diagram: `python docs/dev/import_diagram.py`."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "shakeshake"


def part_of(path: Path) -> str:
    """The first folder or the name of a source file."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    """The name of a source file within the package, such as ``train.fit``."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, *, at_load: bool = False) -> set[str]:
    """Modules of the package that a source file imports; at_load: only those outside functions and type checking."""
    package = path.relative_to(SOURCE).parts[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    for node in _outside_functions(tree) if at_load else ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        for alias in node.names:
            parts = (*base, *(node.module.split(".") if node.module else ()))
            deeper = SOURCE.joinpath(*parts, alias.name)
            if deeper.is_dir() or deeper.with_suffix(".py").exists():
                parts = (*parts, alias.name)
            found.add(".".join(parts) or "__init__")
    return found


def _outside_functions(node: ast.AST) -> list[ast.AST]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        found += [child, *_outside_functions(child)]
    return found


def imports_at_load() -> dict[str, set[str]]:
    """Module -> modules that are imported when it is loaded."""
    return {
        module_name(path): imported(path, at_load=True) - {module_name(path)} for path in sorted(SOURCE.rglob("*.py"))
    }


def diagram() -> str:
    """The Mermaid diagram; an arrow points to what is imported. Transitive arrows are left out."""
    edges: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        own = part_of(path)
        if own not in ("__init__", "__main__"):
            edges.setdefault(own, set()).update({module.split(".")[0] for module in imported(path)} - {own, "__init__"})
    lines = ["graph BT"]
    for part in sorted(edges):
        for other in sorted(edges[part]):
            if not any(other in _reachable(edges, between) for between in edges[part] - {other}):
                lines.append(f"    {part} --> {other}")
    return "\n".join(lines)


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    found, waiting = set(), [start]
    while waiting:
        for other in edges[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


if __name__ == "__main__":
    print(diagram())
