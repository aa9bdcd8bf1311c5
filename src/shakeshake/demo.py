"""The demo: one small network on a few of the bundled digits, without and with shaking."""

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
    """Train the same network without shaking (E-E-B) and with it (S-S-I), and write a report about both.

    Args:
        out: A new folder for both runs; None for runs/demo-N.
        epochs: Epochs of each run.

    Yields:
        Lines about the progress and the results.

    Raises:
        InputError: If the folder exists, or a package is missing.
    """
    recipe = quick("digits").replace(train_size=TRAIN_SIZE, epochs=epochs, batch_size=32, lr=0.05)
    out = out or free_numbered_path(Path("runs"), "demo")
    if out.exists():
        raise InputError(f"out: {out} exists, expected a new folder")
    rules = {"E-E-B": "Even-Even (no shaking)", "S-S-I": "Shake-Shake, per image"}
    yield f"{recipe.model} on {TRAIN_SIZE} bundled digits of 8x8 pixels, {epochs} epochs, twice"
    results = {}
    for rule, description in rules.items():
        yield f"\n{description}: {rule}"
        results[rule] = fit(recipe.replace(rule=rule), out / rule)
    page = write_report([out / rule for rule in rules], out / "report.html")
    yield f"\n{'':<26}{'test error':>12}{'train error':>13}"
    for rule, description in rules.items():
        result = results[rule]
        yield f"{description:<26}{result.last_error:>10.2f} %{result.last_train_error:>11.2f} %"
    images = results["S-S-I"].test_images
    yield (
        f"\nLast epoch, {images} test images, one seed: a difference of one or two points is within chance "
        f"(one image is {100 / images:.2f} points)."
    )
    yield f"Report: {page}"
