"""Compare one BN per shaken half with one BN after the mix.

    python -m benchmarks shakeified_bn --out results/bench/shakeified_bn.json

`shakeify` gives each half a BN. The alternative keeps the block's BN, which then sees shaken sums
in training and plain sums in evaluation. Digits, 15 epochs, the same initial weights for both; test
errors in %.
"""

from __future__ import annotations

import importlib.util
import statistics
from types import ModuleType
from typing import Any

import torch
from torch import nn

import shakeshake as ss
from shakeshake.models.shakeify import ShakenHalves

from ._common import ROOT, parser, save

EPOCHS, LR = 15, 0.1
WAYS = ("each half", "behind the mix")


def example() -> ModuleType:
    path = ROOT / "examples" / "shakeified_resnext.py"
    spec = importlib.util.spec_from_file_location("shakeified_resnext", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shaken(network: nn.Module, way: str, rule: str) -> nn.Module:
    if way == "each half":
        return ss.shakeify(network, rule)
    for block in [module for module in network.modules() if hasattr(module, "conv3")]:
        block.conv3 = ShakenHalves(block.conv3, None, rule)
    return network


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    args = options.parse_args(argv)
    host, data = example(), ss.load_data("digits")
    (x, y), (x_test, y_test) = (
        ((torch.from_numpy(split.images) - data.mean[0]) / data.std[0], torch.from_numpy(split.labels))
        for split in (data.train, data.test)
    )
    errors: dict[str, Any] = {}
    for rule in ("S-S-I", "E-E-B"):
        errors[rule] = {way: [] for way in WAYS}
        for seed in range(args.seeds):
            for way in WAYS:
                torch.manual_seed(seed)
                network = shaken(host.ResNeXt(data.num_classes), way, rule)
                host.train(network, x, y, args.epochs, LR)
                errors[rule][way].append(round(host.error(network, x_test, y_test), 2))
        for way, found in errors[rule].items():
            print(f"{rule}  BN {way:<14}  {statistics.mean(found):.2f} %  ({', '.join(map(str, found))})", flush=True)
    save(args.out, {"epochs": args.epochs, "test_error": errors}, device="cpu")
