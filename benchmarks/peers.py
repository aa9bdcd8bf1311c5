"""Public implementations of 26 2x32d that PyPI has, and whether ours computes what they do.

    pip install --no-deps pytorchcv archai
    python benchmarks/peers.py --out results/bench/peers.json

Each of theirs gets statistics that are not neutral, its weights are loaded into ours by `load_foreign`, and both see
the same images in evaluation. The other benchmarks take their peers from here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

import shakeshake as ss
from shakeshake.models.convert import load_foreign
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

MODEL = "shake_resnet26_2x32d"


def pytorchcv() -> nn.Module:
    from pytorchcv.models.shakeshakeresnet_cifar import shakeshakeresnet26_2x32d_cifar10

    return shakeshakeresnet26_2x32d_cifar10()


def archai() -> nn.Module:
    """Draws its coefficients by the CUDA tensors' type, whatever its images are on: without CUDA, by the CPU's."""
    from archai.supergraph.models.shakeshake import shake_resnet

    if not torch.cuda.is_available():
        torch.cuda.FloatTensor = torch.FloatTensor
    return shake_resnet.ShakeResNet(26, 32, 10)


PEERS: dict[str, Callable[[], nn.Module]] = {"pytorchcv": pytorchcv, "archai": archai}
BUILT = {"pytorchcv": {"activation": "post"}, "archai": {"skip_shift": "mirrored"}}


def versions() -> dict[str, str]:
    return {name: version(name) for name in PEERS}


def disagreement(name: str, images: torch.Tensor) -> tuple[float, float]:
    """Largest difference of the logits, and the largest logit."""
    theirs = PEERS[name]().eval()
    for key, values in theirs.named_buffers():
        if key.endswith("running_mean"):
            values.copy_(0.1 * torch.randn_like(values))
        elif key.endswith("running_var"):
            values.copy_(torch.rand_like(values) + 0.5)
    ours = load_foreign(ss.create_model(MODEL, **BUILT[name]), theirs.state_dict()).eval()
    with torch.inference_mode():
        expected = theirs(images)
        return float((ours(images) - expected).abs().max()), float(expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    images = torch.randn(given.images, 3, 32, 32)
    result = {"model": MODEL, "images": given.images, "seed": given.seed, "versions": versions(), "peers": {}}
    for name in PEERS:
        difference, largest = disagreement(name, images)
        result["peers"][name] = {"largest_difference": difference, "largest_logit": largest}
        print(f"{name:<12}largest difference {difference:.1e} of logits up to {largest:.1f}")
    result["environment"] = environment(device="cpu")
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
