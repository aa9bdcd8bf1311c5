"""The demo: one small network on some of the bundled digits, Even-Even and Shake-Shake, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .errors import InputError
from .report.page import write_report
from .train.fit import fit
from .train.presets import quick
from .utils.files import free_numbered_path

TRAIN_SIZE = 300


def run_demo(out: Path | None = None, *, epochs: int = 30) -> Iterator[str]:
    """Train twice and yield the lines that say what came of it."""
    recipe = quick("digits").replace(train_size=TRAIN_SIZE, epochs=epochs, batch_size=32, lr=0.05)
    out = out or free_numbered_path(Path("runs"), "demo")
    if out.exists():
        raise InputError(f"out: {out} is there already, expected a new folder")
    rules = {"E-E-B": "Even-Even (no shaking)", "S-S-I": "Shake-Shake, by image"}
    yield f"{recipe.model} on {TRAIN_SIZE} bundled digits of 8x8 pixels, {epochs} epochs, twice"
    results = {}
    for rule, meaning in rules.items():
        yield f"\n{meaning}: {rule}"
        results[rule] = fit(recipe.replace(rule=rule), out / rule)
    page = write_report([out / rule for rule in rules], out / "report.html")
    yield f"\n{'':<26}{'test error':>12}{'train error':>13}"
    for rule, meaning in rules.items():
        yield f"{meaning:<26}{results[rule]['last_error']:>10.2f} %{results[rule]['last_train_error']:>11.2f} %"
    images = results["S-S-I"]["test_images"]
    yield (
        f"\nLast epoch, {images} test images, one seed: differences of a point or two are chance "
        f"(one image is {100 / images:.2f} points)."
    )
    yield f"Report: {page}"
