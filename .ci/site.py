"""What the site needs beyond Markdown: figures lie in results/, outside docs/, and are shown from there."""

import re
from pathlib import Path

from mkdocs.structure.files import File

RESULTS = Path(__file__).parent.parent / "results"
LINK = re.compile(r"(?<=\]\()\.\./results/(?=[^)]+\.(?:svg|png)\))")


def on_files(files, config):
    for path in sorted([*RESULTS.rglob("*.svg"), *RESULTS.rglob("*.png")]):
        if "cells" not in path.relative_to(RESULTS).parts:
            name = f"figures/{path.relative_to(RESULTS).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """`../results/small/x.svg` is where the repository has it, `figures/small/x.svg` where the site does."""
    return LINK.sub("figures/", markdown)
