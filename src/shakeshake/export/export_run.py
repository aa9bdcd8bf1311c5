"""export_run(): a finished run as a file for other programs, compared with PyTorch on real images before it is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..analysis.calibration import reliability
from ..data.registry import Split
from ..errors import InputError, RunError
from ..inference.calibration import cross_fitted, probabilities
from ..inference.pipeline import Deployed
from ..models.model import CONFIG, WEIGHTS, TrainedModel, check_finished, load
from ..models.weights import sha256, weights_as_bytes
from ..train.calibration_split import logits_of
from ..train.open_run import TrainedRun, open_run
from ..train.run_directory import check_target, is_rubbish
from ..utils.console import escape
from ..utils.files import atomic_write, atomic_write_all
from . import onnx, torch_export
from .model_card import CARD, Measured, check_licence, model_card

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "huggingface"}
COMPARED = 1_000  # test images
TOLERANCE = 1e-4  # of a probability: rounding is a hundredth of it
CALIBRATED = 512  # training images over which int8 takes its ranges
Say = Callable[[str], None]


@dataclass(frozen=True)
class Exporting:
    """What is exported: a finished run with its images, opened, and what its user wants said of it."""

    opened: TrainedRun
    model: TrainedModel
    licence: str
    say: Say

    @property
    def about(self) -> dict[str, str]:
        """What an exported file says of itself."""
        config = self.model.config
        size = config["image_size"]
        return {
            "format": "shakeshake/1",
            "model": config["model"],
            "classes": json.dumps(self.model.classes, ensure_ascii=False),
            "preprocessing": f"{'RGB' if config['in_channels'] == 3 else 'grey'}, upright, the middle square resized "
            f"to {size} x {size} pixels (antialiased bicubic), uint8, (batch, height, width, channel)",
            "temperature": repr(self.model.temperature),
            "weights_sha256": config.get("weights_sha256", ""),
            "test_error": repr(config.get("test_error")),
            "licence": self.licence,
        }


def export_run(
    path: str | Path,
    form: str,
    out: str | Path | None = None,
    *,
    int8: bool = False,
    half: bool = False,
    licence: str = "unknown",
    data_dir: str | None = None,
    say: Say = print,
) -> Path:
    """Export a finished run and return what was written: a file, or for safetensors a folder.

    form: onnx, torch (a torch.export archive) or safetensors (the layout of the Hugging Face hub). onnx and torch take
    images (batch, H, W, C) uint8 and give probabilities (batch, classes). int8: quantized, for onnx; half: weights in
    float16, for safetensors. licence: for the model's card. say: gets what was compared and measured, as lines.

    What is exported is read back, run over images of the run's test split, and compared with the network in PyTorch;
    only then is it written, whole. Raises InputError for what the caller can mend, RunError when the two differ.
    """
    if form not in FORMATS:
        raise InputError(f"format: got {form!r}, expected one of {', '.join(FORMATS)}")
    for name, given, only in (("int8", int8, "onnx"), ("half", half, "safetensors")):
        if given and form != only:
            raise InputError(f"{name}: not for the format {form}, expected {only}")
    if form == "onnx":
        onnx.needed("onnx", "onnxscript", "onnxruntime")
    check_licence(licence)
    check_finished(Path(path))
    model = load(path)
    name = "model.int8.onnx" if int8 else FORMATS[form]
    target = Path(out) if out is not None else Path(path) / name
    _check_writable(target, folder=form == "safetensors")
    if "temperature" not in model.config:
        say("the run is older than the temperature: its probabilities are not calibrated")
    exporting = Exporting(open_run(path, data_dir=data_dir, device="cpu"), model, licence, say)
    if form == "safetensors":
        return _folder(exporting, target, half)
    if form == "torch":
        content = torch_export.to_program(Deployed(model), exporting.about)
        _compare(exporting, lambda images: torch_export.run_program(content, images), "torch.export")
    else:
        content = onnx.to_onnx(Deployed(model), exporting.about)
        _compare(exporting, lambda images: onnx.run_onnx(content, images), "onnxruntime")
        content = _int8(exporting, content) if int8 else content
    _write(target, content)
    return target


def compared(model: TrainedModel, images: np.ndarray, run: Callable[[np.ndarray], np.ndarray]) -> tuple[float, int]:
    """The largest difference of a probability between PyTorch's own network, not fused, and ``run``, over images (N, C,
    H, W) uint8; and for how many of them the first class differs by more than rounding."""
    ours = torch.cat([model.predict(part) for part in torch.from_numpy(images).split(256)]).numpy()
    theirs = run(_as_decoded(images))
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return float("inf"), len(images)
    # A tie is no difference: where another class is first, it has to be behind by more than the tolerance.
    behind = ours.max(axis=1) - np.take_along_axis(ours, theirs.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.abs(ours - theirs).max()), int((behind > TOLERANCE).sum())


def _compare(
    exporting: Exporting, run: Callable[[np.ndarray], np.ndarray], where: str, most: float = TOLERANCE
) -> None:
    images = _some(exporting.opened.data.test, COMPARED).images
    difference, others = compared(exporting.model, images, run)
    if not difference <= most:
        raise RunError(
            f"export: {where} differs from PyTorch by {difference:.2g} in a probability over {len(images):,} test "
            f"images (another class for {others:,}), expected at most {most:g}; nothing was written"
        )
    exporting.say(
        f"compared with PyTorch over {len(images):,} test images: {where} differs by at most {difference:.1e} in a "
        f"probability and names another class for {others or 'none'} of them"
    )


def _int8(exporting: Exporting, content: bytes) -> bytes:
    """The quantized model, with its error over all test images beside that of fp32, both by onnxruntime."""
    data = exporting.opened.data
    train = _as_decoded(_some(data.train, CALIBRATED).images)
    small = onnx.to_int8(content, train)
    errors = [_error(one, data.test) for one in (content, small)]
    exporting.say(
        f"test error {errors[0]:.2f} % in fp32, {errors[1]:.2f} % in int8, of {len(data.test.labels):,} test images; "
        f"{len(content):,} and {len(small):,} bytes; ranges from {len(train):,} training images"
    )
    return onnx.described(small, {**exporting.about, "test_error": repr(errors[1]), "test_error_fp32": repr(errors[0])})


def _error(content: bytes, test: Split) -> float:
    """In %, over all images of a split, a part of them in memory at a time."""
    wrong = 0
    for first in range(0, len(test.labels), COMPARED):
        at = slice(first, first + COMPARED)
        found = onnx.run_onnx(content, _as_decoded(test.images[at])).argmax(axis=1)
        wrong += int((found != test.labels[at]).sum())
    return 100 * wrong / len(test.labels)


def _folder(exporting: Exporting, target: Path, half: bool) -> Path:
    """model.safetensors, config.json and README.md, loaded back before they are put into their place."""
    model = exporting.model
    weights = weights_as_bytes(model.network, half=half)
    config = {**model.config, "weights_sha256": sha256(weights), "licence": exporting.licence}
    card = model_card(exporting.opened, config, _measured(exporting), exporting.licence)
    files = {
        WEIGHTS: weights,
        CONFIG: json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        CARD: card.encode("utf-8", "replace"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        back = load(folder)
    _compare(
        exporting,
        lambda images: back.predict(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy(),
        "the float16 copy" if half else "what was loaded back",
        most=1e-2 if half else TOLERANCE,
    )
    try:
        atomic_write_all(target, files)
    except OSError as error:
        raise InputError(f"out: {escape(target)} cannot be written: {error.strerror or error}") from None
    return target


def _measured(exporting: Exporting) -> Measured:
    """What the card says of the probabilities, over the test images."""
    opened, model = exporting.opened, exporting.model
    test = opened.data.test
    logits = logits_of(opened.network, test, opened.data)
    if model.config.get("calibration", {}).get("split") == "test":  # no image may judge itself
        calibrated = cross_fitted(logits, test.labels)
    else:
        calibrated = probabilities(logits, model.temperature)
    plain = probabilities(logits)
    return Measured(
        error=100 * float((logits.argmax(axis=1) != test.labels).mean()),
        images=len(test.labels),
        ece=reliability(plain, test.labels).ece,
        ece_calibrated=reliability(calibrated, test.labels).ece,
    )


def _some(split: Split, most: int) -> Split:
    """At most so many images, evenly over the split, so that one which is in order of its classes has them all."""
    at = np.unique(np.linspace(0, len(split.labels) - 1, min(most, len(split.labels))).round().astype(np.int64))
    return Split(np.ascontiguousarray(split.images[at]), split.labels[at])


def _as_decoded(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _check_writable(target: Path, *, folder: bool) -> None:
    """Before minutes of work: a file where there is a folder, a folder where there is something else, no room."""
    if not folder:
        check_target(target)
    expected = "a new folder, or one that holds an export" if folder else "the name of a file in a folder that is there"
    ours = {WEIGHTS, CONFIG, CARD}
    if folder:
        others = target.is_dir() and any(entry.name not in ours and not is_rubbish(entry) for entry in target.iterdir())
        bad = others or (target.exists() and not target.is_dir())
    else:
        bad = target.is_dir() or not target.parent.is_dir()
    if bad:
        raise InputError(f"out: {escape(target)} cannot be written, expected {expected}")


def _write(target: Path, content: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, content)
    except OSError as error:
        raise InputError(f"out: {escape(target)} cannot be written: {error.strerror or error}") from None
