"""What a finished run loses and gains by being exported: errors over its test images, differences, bytes.

    python benchmarks/exports.py runs/mine --out results/bench/exports.json

The network in PyTorch as it is, fused, in torch.export's archive, in ONNX and in int8; calibration without the
temperature and with it, each fifth of the images by the temperature of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from shakeshake.analysis.calibration import reliability
from shakeshake.export import onnx
from shakeshake.export import torch_export as program
from shakeshake.inference.calibration import cross_fitted, fit_temperature, probabilities
from shakeshake.inference.pipeline import Deployed
from shakeshake.models.model import load
from shakeshake.models.weights import weights_as_bytes
from shakeshake.train.open_run import open_run
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

PART = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run")
    parser.add_argument("--calibration", type=int, default=512, metavar="N", help="images for int8 (default 512)")
    parser.add_argument("--out", type=Path, metavar="F", help="everything measured, as JSON")
    given = parser.parse_args()
    opened, model = open_run(given.run, device="cpu"), load(given.run)
    test, train = opened.data.test, opened.data.train
    deployed = Deployed(model)
    at = np.linspace(0, len(train.labels) - 1, given.calibration).round().astype(int)
    exported = onnx.to_onnx(deployed, {})
    small = onnx.to_int8(exported, decoded(train.images[at]))
    archive = program.to_program(deployed, {})
    ways: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
        "pytorch": (len(weights_as_bytes(model.network)), lambda x: plain(model, x)),
        "fused": (0, lambda x: deployed.run(torch.from_numpy(x)).numpy()),
        "torch.export": (len(archive), lambda x: program.run_program(archive, x)),
        "onnx": (len(exported), lambda x: onnx.run_onnx(exported, x)),
        "onnx, int8": (len(small), lambda x: onnx.run_onnx(small, x)),
    }
    parts = [slice(i, i + PART) for i in range(0, len(test.labels), PART)]
    found = {name: np.concatenate([run(decoded(test.images[p])) for p in parts]) for name, (_, run) in ways.items()}
    rows = [
        {
            "way": name,
            "bytes": size or None,
            "test_error": 100 * float((found[name].argmax(axis=1) != test.labels).mean()),
            "largest_difference": float(np.abs(found[name] - found["pytorch"]).max()),
        }
        for name, (size, _) in ways.items()
    ]
    for row in rows:
        told = f"{row['bytes']:,}" if row["bytes"] else "-"
        print(f"{row['way']:<14}{row['test_error']:8.2f} %{row['largest_difference']:12.1e}{told:>14} bytes")
    logits = np.log(found["pytorch"].astype(np.float64).clip(1e-30)) * model.temperature
    calibration = {
        "temperature": fit_temperature(logits, test.labels),
        "ece": reliability(probabilities(logits), test.labels).ece,
        "ece_cross_fitted": reliability(cross_fitted(logits, test.labels), test.labels).ece,
    }
    print("calibration   ", ", ".join(f"{name} {value:.4f}" for name, value in calibration.items()))
    if given.out is not None:
        recipe = {key: getattr(opened.recipe, key) for key in ("data", "model", "rule", "epochs", "train_size", "seed")}
        images = {"test_images": len(test.labels), "int8_images": len(at)}
        measured = {**recipe, **images, "ways": rows, "calibration": calibration, "environment": environment()}
        print(write_results(given.out, measured))


def plain(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The network as it was trained, a part of the images at a time."""
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(250)
    return torch.cat([model.predict(batch) for batch in batches]).numpy()  # type: ignore[operator]


def decoded(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


if __name__ == "__main__":
    main()
