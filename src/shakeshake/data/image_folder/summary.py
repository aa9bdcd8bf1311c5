"""Summary of an image folder in words: complete for `data check`, brief before training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from ...utils.console import escape

logger = logging.getLogger(__name__)
_logged: set[tuple[str, ...]] = set()  # summaries that log_summary has logged

SHOWN = 5  # names per note; --json has all
FEW = 10  # classes with fewer training images are reported
UNEVEN = 1.5  # ratio of the largest to the smallest class from which imbalance is reported


def as_lines(found: dict[str, Any]) -> list[str]:
    """Return all findings of `read_image_folder` as lines for a terminal."""
    classes, sides = found["classes"], found["sides"]
    lines = [f"{found['folder']}: {_count(found['images'], 'image')} in {_count(len(classes), 'class')}"]
    parts = [part for part in ("train", "val", "test") if any(entry[part] for entry in classes)]
    names = [escape(entry["name"]) for entry in classes]
    width = max(map(len, ["class", *names]))
    lines += ["", f"  {'class':<{width}}" + "".join(f"{part:>9}" for part in parts)]
    for name, entry in zip(names, classes, strict=True):
        lines.append(f"  {name:<{width}}" + "".join(f"{entry[part]:>9,}" for part in parts))
    if len(classes) > 1:
        total = [sum(entry[part] for entry in classes) for part in parts]
        lines.append(f"  {'':<{width}}" + "".join(f"{number:>9,}" for number in total))
    lines += ["", f"sizes: {_sides(sides)}"] if sides else []
    lines += [f"image size: {_size(found)}", f"splits: {_splits(found)}"]
    return lines + [f"- {note}" for note in notes(found)]


def log_summary(found: dict[str, Any]) -> None:
    """Log ``in_brief`` at level INFO, once per process: choosing a recipe and training load the same folder."""
    lines = tuple(in_brief(found))
    if lines not in _logged:
        _logged.add(lines)
        for line in lines:
            logger.info("%s", line)


def in_brief(found: dict[str, Any]) -> list[str]:
    """Return one line of counts, and the notes on problems."""
    classes = found["classes"]
    counts = {part: sum(entry[part] for entry in classes) for part in ("train", "val", "test")}
    some = ", ".join(f"{escape(entry['name'])} {entry['train']:,}" for entry in classes[:SHOWN])
    more = f", and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    split = ", ".join(f"{number:,} {part}" for part, number in counts.items() if number)
    return [
        f"{found['folder']}: {len(classes)} classes ({some}{more}); {split}; {_splits(found)}; {_size(found)}",
        *(f"- {note}" for note in notes(found)),
    ]


def _sides(sides: dict[str, list[int]]) -> str:
    smallest, middle, largest = (" x ".join(map(str, sides[key])) for key in ("smallest", "median", "largest"))
    if smallest == largest:
        return f"all {middle} pixels"
    return f"{smallest} to {largest} pixels, half of them {middle} or larger"


def _size(found: dict[str, Any]) -> str:
    size = found["image_size"]
    why = (
        "set by --image-size" if found["image_size_given"] else "chosen from the images' sizes; --image-size changes it"
    )
    return f"{size} x {size} pixels ({why})"


def _splits(found: dict[str, Any]) -> str:
    if found["test"] != "drawn":
        return "split by the folders" + (
            " (val/ is the test set, as there is no test/)" if found["test"] == "val" else ""
        )
    return f"a fifth of each class held out for testing, drawn with split seed {found['split_seed']}"


def notes(found: dict[str, Any]) -> Iterator[str]:
    """Yield one line per problem, with how it was handled."""
    for key, what in (("unreadable", "is unreadable and skipped"), ("troubles", "is not followed")):
        if entries := found[key]:
            plural = what.replace("is", "are", 1) if len(entries) > 1 else what
            kind = "file" if key == "unreadable" else "folder or link"
            named = [f"{entry['path']} {entry['reason']}" for entry in entries]
            yield f"{_count(len(entries), kind)} {plural}: {_some(named)}"
    if torn := found["in_several_classes"]:
        named = [" = ".join(same) for same in torn]
        yield f"{_count(len(torn), 'image')} in several classes, excluded from all: {_some(named)}"
    across = [entry for entry in found["duplicates"] if entry["across"]]
    within = [entry for entry in found["duplicates"] if not entry["across"]]
    if across:
        named = [f"{entry['path']} = {entry['same_as']}" for entry in across]
        yield f"{_count(len(across), 'image')} in two splits, excluded from training: {_some(named)}"
    if within:
        named = [f"{entry['path']} = {entry['same_as']}" for entry in within]
        yield f"{_count(len(within), 'duplicate')} excluded: {_some(named)}"
    if others := found["other_files"]:
        named = [f"{number} {suffix}" for suffix, number in sorted(others.items())]
        yield f"{_count(sum(others.values()), 'other file')} skipped: {_some(named)}"
    if found["beside_classes"]:
        yield f"{_count(found['beside_classes'], 'image')} outside class folders, skipped"
    if found["other_folders"]:
        yield f"folders beside train/ and test/, skipped: {_some(found['other_folders'])}"
    if alike := found.get("alike_classes"):  # not in older records
        named = [" and ".join(names) for names in alike]
        yield f"classes whose names differ only in case, kept separate: {_some(named)}"
    if found["empty_classes"]:
        yield f"classes without images, skipped: {_some(found['empty_classes'])}"
    yield from _about_counts(found)


def _about_counts(found: dict[str, Any]) -> Iterator[str]:
    classes = found["classes"]
    if small := [f"{entry['name']} ({entry['train']})" for entry in classes if entry["train"] < FEW]:
        yield f"classes with fewer than {FEW} training images, too few to learn well: {_some(small)}"
    if untested := [entry["name"] for entry in classes if not entry["test"]]:
        yield f"classes without test images, whose error cannot be measured: {_some(untested)}"
    trained = sorted((entry["train"], escape(entry["name"])) for entry in classes if entry["train"])
    if trained and trained[-1][0] >= UNEVEN * trained[0][0]:
        (few, rare), (many, common) = trained[0], trained[-1]
        yield (
            f"imbalanced classes: {many:,} training images of {common}, {few:,} of {rare}; the defaults compensate for "
            "it (--balance), and the balanced error weights all classes equally"
        )
    tests = sum(entry["test"] for entry in classes)
    if 0 < tests < 400:
        points = 196 * math.sqrt(0.2 * 0.8 / tests)
        yield f"with {_count(tests, 'test image')}, an error of 20 % is accurate to ± {points:.0f} points (95 %)"
    if found["sides"] and min(found["sides"]["median"]) < found["image_size"]:
        yield f"half of the images are smaller than {found['image_size']} pixels and are upscaled"


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(escape, names[:SHOWN])) + more


def _count(number: int, what: str) -> str:
    plural = "classes" if what == "class" else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
