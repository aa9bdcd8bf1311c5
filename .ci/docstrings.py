"""Docstrings as Markdown for the site: roles become code, lines such as `branches: ...` become a list."""

import re

import griffe

ROLE = re.compile(r":(?:func|class|mod|meth):(`[^`]+`)")
ENTRY = re.compile(r"([a-z_]+(?:, [a-z_]+)*): (?=\S)")


def as_markdown(text: str) -> str:
    lines, listed = [], False
    for line in ROLE.sub(r"\1", text).splitlines():
        if entry := ENTRY.match(line):
            lines += ([] if listed else [""]) + [f"- `{entry[1]}`: {line[entry.end() :]}"]
            listed = True
        elif listed and line and not line.startswith(" "):
            lines += ["", line]
            listed = False
        else:
            lines.append(line)
            listed = listed and bool(line)
    return "\n".join(lines)


class Markdown(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
