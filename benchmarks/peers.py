"""Compare our logits with public implementations of 26 2x32d, for the same weights.

    pip install --no-deps pytorchcv archai
    python -m benchmarks peers --out results/bench/peers.json

Each public network gets random BN statistics, its weights are loaded into ours, and both evaluate
the same images. The other benchmarks import their public networks from here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn

import shakeshake as ss
from shakeshake.models.convert import load_external_weights

from ._common import parser, save

MODEL = "shake_resnet26_2x32d"


def pytorchcv() -> nn.Module:
    from pytorchcv.models.shakeshakeresnet_cifar import shakeshakeresnet26_2x32d_cifar10

    return shakeshakeresnet26_2x32d_cifar10()


def archai() -> nn.Module:
    """archai draws coefficients as CUDA tensors, even for images on the CPU: without CUDA, use the CPU type instead."""
    from archai.supergraph.models.shakeshake import shake_resnet

    if not torch.cuda.is_available():
        torch.cuda.FloatTensor = torch.FloatTensor
    return shake_resnet.ShakeResNet(26, 32, 10)


PEERS: dict[str, Callable[[], nn.Module]] = {"pytorchcv": pytorchcv, "archai": archai}
BUILT = {"pytorchcv": {"activation": "post"}, "archai": {"skip_shift": "mirrored"}}


def versions() -> dict[str, str]:
    """Versions of the public implementations that are installed."""
    return {name: version(name) for name in PEERS if importlib.util.find_spec(name)}


def disagreement(name: str, images: torch.Tensor) -> tuple[float, float]:
    """Largest difference between the logits, and the largest logit."""
    theirs = PEERS[name]().eval()
    for key, values in theirs.named_buffers():
        if key.endswith("running_mean"):
            values.copy_(0.1 * torch.randn_like(values))
        elif key.endswith("running_var"):
            values.copy_(torch.rand_like(values) + 0.5)
    ours = load_external_weights(ss.create_model(MODEL, **BUILT[name]), theirs.state_dict()).eval()
    with torch.inference_mode():
        expected = theirs(images)
        return float((ours(images) - expected).abs().max()), float(expected.abs().max())


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(argv)
    torch.manual_seed(args.seed)
    images = torch.randn(args.images, 3, 32, 32)
    result = {"model": MODEL, "images": args.images, "seed": args.seed, "versions": versions(), "peers": {}}
    for name in PEERS:
        difference, largest = disagreement(name, images)
        result["peers"][name] = {"largest_difference": difference, "largest_logit": largest}
        print(f"{name:<12}largest difference {difference:.1e} of logits up to {largest:.1f}")
    save(args.out, result, device="cpu")
