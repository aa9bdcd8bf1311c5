"""MkDocs hooks: show figures of results/, and fill in the table of recipe fields."""

import re
from dataclasses import MISSING, fields
from html import escape
from pathlib import Path

from mkdocs.structure.files import File

from shakeshake.train.recipe import Recipe

ROOT = Path(__file__).parent.parent
FIGURE = re.compile(r"(?<=\]\()(?:\.\./)+results/(?=[^)]+\.(?:svg|png)\))")
TABLE = "<!-- recipe fields -->"


def on_files(files, config):
    figures = (path for path in sorted((ROOT / "results").rglob("*")) if path.suffix in (".svg", ".png"))
    for path in figures:
        name = f"figures/{path.relative_to(ROOT / 'results').as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Figures lie in results/ in the repository and in figures/ on the site."""
    up = "../" * page.file.src_uri.count("/")
    return FIGURE.sub(f"{up}figures/", markdown).replace(TABLE, recipe_table())


def recipe_table() -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for field in fields(Recipe):
        default = "required" if field.default is MISSING else f"`{field.default}`"
        choices = field.metadata.get("choices")
        text = field.metadata["help"] + (f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else "")
        lines.append(f"| `--{field.name.replace('_', '-')}` | {default} | {escape(text).replace('|', '&#124;')} |")
    return "\n".join(lines)
