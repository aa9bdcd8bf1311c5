"""predict, export."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..utils.console import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, escape, log_stderr
from .options import (
    PATH,
    argument,
    command,
    data_dir_option,
    device_option,
    option,
    register_user_code,
    suggest,
    user_code_options,
)

if TYPE_CHECKING:
    from ..inference.predict import Prediction


@command(
    help="Classify image files (JPEG, PNG, WebP, BMP, the first frame of a GIF), with calibrated probabilities.\n\n"
    "Unreadable files are skipped and reported on stderr; the exit status is then 1, or 2 if no file was readable.",
    examples=(
        "shakeshake predict runs/mine photo.jpg --top 1",
        "shakeshake predict runs/mine photos/ --json > found.jsonl",
        "find /photos -name '*.jpg' -print0 | shakeshake predict runs/mine -",
    ),
)
@argument("run", metavar="RUN", type=PATH, help="A finished run, or a directory that `export` wrote.")
@argument(
    "images",
    metavar="IMAGE...",
    nargs=-1,
    required=True,
    shell_complete=suggest(tuple, files=True),
    help="Files, directories (searched recursively), or - for names on stdin, separated by newlines or zero bytes.",
)
@option("--top", type=int, default=3, metavar="K", help="Number of classes per image.  [default: 3]")
@option("--json", "as_json", is_flag=True, help="Print one JSON object per line and file, also for unreadable files.")
@option("--flips", is_flag=True, help="Average the predictions for the image and its mirror image.")
@device_option
@user_code_options
def predict(
    run: Path,
    images: tuple[str, ...],
    top: int,
    as_json: bool,
    flips: bool,
    device: str,
    **user_code: str | None,
) -> int:
    if top < 1:
        raise InputError(f"top: got {top}, expected 1 or more")
    register_user_code(user_code, only=True)

    from ..inference.image_files import find_images
    from ..inference.predict import Prediction, iter_predictions
    from ..models.model import load
    from ..train.device import choose_device, keep_freed_memory

    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    trained = load(run, chosen)
    if "temperature" not in trained.config:
        log_stderr("shakeshake: the model has no temperature, so its probabilities are not calibrated")
    good = bad = 0
    paths = find_images(images, sys.stdin.buffer if sys.stdin is not None else io.BytesIO())
    for found in iter_predictions(trained, paths, hflip_tta=flips):
        if isinstance(found, Prediction):
            good += 1
            print(json.dumps(found.to_dict(top)) if as_json else _line(found, top), flush=True)
            continue
        bad += 1
        if as_json:
            print(json.dumps({"file": str(found.path), "error": f"{escape(found.path)} {found.reason}"}), flush=True)
        log_stderr(f"shakeshake: {found}")
    if not good and not bad:
        raise InputError("image: got an empty list, expected one file name per line")
    return EXIT_OK if not bad else EXIT_FAILURE if good else EXIT_USAGE


def _line(found: Prediction, top: int) -> str:
    ranked = ", ".join(f"{escape(name)} {100 * value:.1f} %" for name, value in found.top(top))
    return f"{escape(found.source)}: {ranked}"


@command(
    help="Export a finished run for use in other programs. The export is read back and compared with PyTorch on "
    "images of the run's test split before it is written.\n\n"
    "\b\n"
    "Formats:\n"
    "  onnx         uint8 images (batch, height, width, channel) to calibrated probabilities; RUN/model.onnx\n"
    "  torch        the same as a torch.export program, for torch.export.load; RUN/model.pt2\n"
    "  safetensors  a directory in the layout of the Hugging Face hub, with a model card; RUN/huggingface",
    examples=(
        "shakeshake export runs/mine --format onnx",
        "shakeshake export runs/mine --format onnx --int8 --out small.onnx",
        "shakeshake export runs/mine --format safetensors --licence cc-by-4.0",
    ),
)
@argument("run", metavar="RUN", type=PATH, help="A finished run.")
@option(
    "--format",
    "format_",
    required=True,
    metavar="FORMAT",
    shell_complete=suggest(lambda: ("onnx", "torch", "safetensors")),
    help="onnx, torch or safetensors.",
)
@option("--out", type=PATH, metavar="PATH", help="Output file or directory. Default: in the run, see above.")
@option("--int8", is_flag=True, help="onnx: quantize to int8, and report its error and that of fp32.")
@option("--half", is_flag=True, help="safetensors: store float16, half the size.")
@option(
    "--licence",
    "--license",
    default="unknown",
    metavar="ID",
    help="Licence in the model card, such as mit or cc-by-4.0.  [default: unknown]",
)
@data_dir_option
@user_code_options
def export(
    run: Path,
    format_: str,
    out: Path | None,
    int8: bool,
    half: bool,
    licence: str,
    data_dir: str | None,
    **user_code: str | None,
) -> int:
    register_user_code(user_code, only=True)
    from ..export.export_run import export_run

    written = export_run(
        run,
        format_,
        out,
        int8=int8,
        half=half,
        licence=licence,
        data_dir=data_dir,
    )
    print(written)
    return EXIT_OK
