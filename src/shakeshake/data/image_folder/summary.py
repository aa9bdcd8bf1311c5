"""What was found in a folder of photos, in words: all of it for `data check`, in brief before a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ...utils.console import escape

SHOWN = 5  # of a kind, by name; --json has all
FEW = 10  # training images of a class, below which it is told
UNEVEN = 1.5  # times as many training images in the largest class as in the smallest


def as_lines(found: dict[str, Any]) -> list[str]:
    """Everything that was found, for a terminal."""
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


def in_brief(found: dict[str, Any]) -> list[str]:
    """A line of what is there, and the notes."""
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
    return f"{smallest} to {largest} pixels, half of them {middle} or more"


def _size(found: dict[str, Any]) -> str:
    size = found["image_size"]
    why = "as asked for" if found["image_size_given"] else "by the images' own sizes; --image-size for another"
    return f"{size} x {size} pixels ({why})"


def _splits(found: dict[str, Any]) -> str:
    if found["test"] != "drawn":
        return "split as the folders are" + (" (val/ is the test, for want of test/)" if found["test"] == "val" else "")
    return f"a fifth of each class held out as test, drawn by split seed {found['split_seed']}"


def notes(found: dict[str, Any]) -> Iterator[str]:
    """What is not as it should be, each with what is done about it."""
    for key, what in (("unreadable", "cannot be read and is left out"), ("troubles", "is not followed")):
        if entries := found[key]:
            plural = what.replace("is", "are", 1) if len(entries) > 1 else what
            kind = "file" if key == "unreadable" else "folder or link"
            named = [f"{entry['path']} {entry['reason']}" for entry in entries]
            yield f"{_count(len(entries), kind)} {plural}: {_some(named)}"
    if torn := found["in_several_classes"]:
        named = [" = ".join(same) for same in torn]
        yield f"{_count(len(torn), 'image')} in several classes, left out of all: {_some(named)}"
    across = [entry for entry in found["duplicates"] if entry["across"]]
    within = [entry for entry in found["duplicates"] if not entry["across"]]
    if across:
        named = [f"{entry['path']} = {entry['same_as']}" for entry in across]
        yield f"{_count(len(across), 'image')} in two splits at once, left out of training: {_some(named)}"
    if within:
        named = [f"{entry['path']} = {entry['same_as']}" for entry in within]
        yield f"{_count(len(within), 'duplicate')} left out: {_some(named)}"
    if others := found["other_files"]:
        named = [f"{number} {suffix}" for suffix, number in sorted(others.items())]
        yield f"{_count(sum(others.values()), 'other file')} passed over: {_some(named)}"
    if found["beside_classes"]:
        yield f"{_count(found['beside_classes'], 'image')} outside of class folders, passed over"
    if found["other_folders"]:
        yield f"folders beside train/ and test/ passed over: {_some(found['other_folders'])}"
    if alike := found.get("alike_classes"):  # older records have none
        named = [" and ".join(names) for names in alike]
        yield f"classes that differ in small and large letters alone, and stay apart: {_some(named)}"
    if found["empty_classes"]:
        yield f"classes without images left out: {_some(found['empty_classes'])}"
    yield from _about_counts(found)


def _about_counts(found: dict[str, Any]) -> Iterator[str]:
    classes = found["classes"]
    if small := [f"{entry['name']} ({entry['train']})" for entry in classes if entry["train"] < FEW]:
        yield f"classes of less than {FEW} training images, too few to be learnt well: {_some(small)}"
    if untested := [entry["name"] for entry in classes if not entry["test"]]:
        yield f"classes without a test image, of which no error will be known: {_some(untested)}"
    trained = sorted((entry["train"], escape(entry["name"])) for entry in classes if entry["train"])
    if trained and trained[-1][0] >= UNEVEN * trained[0][0]:
        (few, rare), (many, common) = trained[0], trained[-1]
        yield (
            f"uneven classes: {many:,} training images of {common}, {few:,} of {rare}; the defaults make up for it "
            "(--balance), and the balanced error counts each class the same"
        )
    tests = sum(entry["test"] for entry in classes)
    if 0 < tests < 400:
        points = 196 * math.sqrt(0.2 * 0.8 / tests)
        yield f"with {_count(tests, 'test image')} an error of 20 % is known to {points:.0f} points up or down"
    if found["sides"] and min(found["sides"]["median"]) < found["image_size"]:
        yield f"half of the images are smaller than {found['image_size']} pixels and are enlarged"


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(escape, names[:SHOWN])) + more


def _count(number: int, what: str) -> str:
    plural = "classes" if what == "class" else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
