"""Compare the training loss of 20 2x16d: pytorchcv's, and ours with and without kernels.

    pip install --no-deps pytorchcv
    python -m benchmarks loss_curves --out results/bench/loss_curves.json

All see the same batches of CIFAR-10 with the same learning rates, over several seeds. Ours runs in
fp32 with plain operations, in fp32 with the fused kernels, and in bf16 with them; for one seed
these share initial weights and coefficients. pytorchcv's network uses its default initialisation
and draws its coefficients itself.
"""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch import nn

from shakeshake.data.registry import load_data
from shakeshake.kernels import revert
from shakeshake.train.device import choose_device
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

from ._common import parser, save

MODEL = "shake_resnet20_2x16d"
OURS = {"plain fp32": ("fp32", False), "fp32": ("fp32", True), "bf16": ("bf16", True)}


def trainer(recipe: Recipe, fused: bool) -> Trainer:
    made = Trainer(recipe, load_data("cifar10", train_size=recipe.train_size, seed=0))
    if not fused:
        revert(made.network)
    return made


def ours(recipe: Recipe, fused: bool) -> list[float]:
    """Mean loss of each epoch."""
    made, curve = trainer(recipe, fused), []
    for epoch in range(recipe.epochs):
        for batch in made.loader.epoch(epoch):
            made.train_step(batch)
        curve.append(float(made.loss_per_step.mean()))
        made.epoch, made.step_in_epoch = epoch + 1, 0
    return curve


def theirs(recipe: Recipe) -> list[float]:
    """Mean loss of each epoch of pytorchcv's network, with the batches and learning rates of our trainer."""
    from pytorchcv.models.shakeshakeresnet_cifar import shakeshakeresnet20_2x16d_cifar10

    source, curve = trainer(recipe, False), []
    torch.manual_seed(recipe.seed)
    network: nn.Module = shakeshakeresnet20_2x16d_cifar10().train()
    weights, decay = network.parameters(), recipe.weight_decay
    optimizer = torch.optim.SGD(weights, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=decay)
    for epoch in range(recipe.epochs):
        losses = []
        for batch in source.loader.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = source.lr_at(epoch * source.steps_per_epoch + len(losses))
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(batch.images), batch.labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curve.append(statistics.fmean(losses))
    return curve


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--train-size", type=int, default=1280)
    options.add_argument("--seeds", type=int, default=3)
    args = options.parse_args(argv)
    recipe = Recipe(data="cifar10", model=MODEL, rule="S-S-I", epochs=args.epochs, device=str(choose_device("auto")))
    recipe = recipe.replace(train_size=args.train_size, batch_size=64)
    curves: dict[str, list[list[float]]] = {name: [] for name in ("pytorchcv", *OURS)}
    for seed in range(args.seeds):
        now = recipe.replace(seed=seed)
        curves["pytorchcv"].append(theirs(now.replace(precision="fp32")))
        for name, (precision, fused) in OURS.items():
            curves[name].append(ours(now.replace(precision=precision), fused))
    for name, found in curves.items():
        means = " ".join(f"{statistics.fmean(epoch):.3f}" for epoch in zip(*found, strict=True))
        spread = statistics.stdev(one[-1] for one in found) if args.seeds > 1 else 0.0
        print(f"{name:<12}{means}   last ± {spread:.3f}")
    result = {"model": MODEL, "train_size": args.train_size, "seeds": args.seeds, "curves": curves}
    save(args.out, result, device=recipe.device, threads=torch.get_num_threads())
