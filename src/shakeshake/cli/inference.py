"""predict, export."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..utils.console import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, escape, log_stderr
from .parser import door

if TYPE_CHECKING:
    from ..inference.predict import Prediction


def predict(arguments: Sequence[str]) -> int:
    parser = door(
        "predict",
        "The classes of image files (JPEG, PNG, WebP, BMP, a GIF's first frame), with calibrated probabilities.\n"
        "A file that is no image costs that file: told on stderr, exit code 1, or 2 if there was no other.",
        epilog="examples:\n"
        "  shakeshake predict runs/mine photo.jpg --top 1\n"
        "  shakeshake predict runs/mine photos/ --json > found.jsonl\n"
        "  find /photos -name '*.jpg' -print0 | shakeshake predict runs/mine -",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, or a folder that `export` wrote")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders with all below them, - for a list of names on stdin (by lines or zero bytes)",
    )
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes for each image (default 3)")
    parser.add_argument("--json", action="store_true", help="an object on a line for each file, bad ones included")
    parser.add_argument("--flips", action="store_true", help="the mean over the image and its mirror image")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)
    if given.top < 1:
        raise InputError(f"top: got {given.top}, expected 1 or more")

    from ..inference.image_files import find_images
    from ..inference.predict import Prediction, predict_files
    from ..models.model import load
    from ..train.device import choose_device, keep_freed_memory

    device = choose_device(given.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = load(given.run, device)
    if "temperature" not in model.config:
        log_stderr("shakeshake: the model has no temperature, its probabilities are not calibrated")
    good = bad = 0
    paths = find_images(given.images, sys.stdin.buffer if sys.stdin is not None else io.BytesIO())
    for found in predict_files(model, paths, top=given.top, flips=given.flips):
        if isinstance(found, Prediction):
            good += 1
            print(json.dumps(found.to_dict()) if given.json else _line(found), flush=True)
            continue
        bad += 1
        if given.json:
            print(json.dumps({"file": str(found.path), "error": f"{escape(found.path)} {found.reason}"}), flush=True)
        log_stderr(f"shakeshake: {found}")
    if not good and not bad:
        raise InputError("image: the list has no names, expected one a line")
    return EXIT_OK if not bad else EXIT_FAILURE if good else EXIT_USAGE


def _line(found: Prediction) -> str:
    ranked = ", ".join(f"{escape(name)} {100 * value:.1f} %" for name, value in found.ranked)
    return f"{escape(found.path)}: {ranked}"


def export(arguments: Sequence[str]) -> int:
    parser = door(
        "export",
        "A finished run for other programs. What is exported is read back and compared with PyTorch on images of the\n"
        "run's test split before it is written.\n\n"
        "formats\n"
        "  onnx         images (batch, height, width, channel) uint8 in, calibrated probabilities out; RUN/model.onnx\n"
        "  torch        the same by torch.export, for torch.export.load; RUN/model.pt2\n"
        "  safetensors  a folder in the layout of the Hugging Face hub, with a model card; RUN/huggingface",
        epilog="examples:\n"
        "  shakeshake export runs/mine --format onnx\n"
        "  shakeshake export runs/mine --format onnx --int8 --out small.onnx\n"
        "  shakeshake export runs/mine --format safetensors --licence cc-by-4.0",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run")
    parser.add_argument("--format", required=True, metavar="X", help="onnx, torch or safetensors")
    parser.add_argument("--out", type=Path, metavar="F", help="the file, or the folder (default in the run, see above)")
    parser.add_argument("--int8", action="store_true", help="onnx in int8, with its measured error beside fp32's")
    parser.add_argument("--half", action="store_true", help="safetensors in float16: half the size")
    parser.add_argument(
        "--licence", "--license", default="unknown", metavar="ID", help="for the card: mit, cc-by-4.0, other, ..."
    )
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    given = parser.parse_args(arguments)

    from ..export.export_run import export_run

    print(
        export_run(
            given.run,
            given.format,
            given.out,
            int8=given.int8,
            half=given.half,
            licence=given.licence,
            data_dir=given.data_dir,
            say=lambda line: print(line, flush=True),
        )
    )
    return EXIT_OK
