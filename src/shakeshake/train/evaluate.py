"""Loss and errors of a network on a split."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..data.loader import Loader
from ..inference.fuse import evaluation_network, is_fully_fusable
from ..utils.modes import eval_mode
from .device import autocast
from .distributed import SINGLE_PROCESS, DistContext


@torch.no_grad()
def evaluate_network(
    network: nn.Module,
    loader: Loader,
    precision: str,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
    dist: DistContext = SINGLE_PROCESS,
) -> dict[str, float]:
    """Evaluate a network on all images of a loader. The network itself is not changed; a fused copy computes.

    Args:
        network: Maps images (N, C, H, W) to logits.
        loader: The images and labels.
        precision: fp32 or bf16.
        device: Where the network is.
        tick: Called after every batch; may raise.
        dist: The processes, which share the batches and all get the result.

    Returns:
        ``loss`` (mean cross-entropy), ``error`` and ``balanced_error`` (mean over classes of the error), in %.
    """
    dist.broadcast_buffers(network)
    tested, dtype = evaluation_network(network), torch.float32
    if precision == "bf16" and is_fully_fusable(network):  # the same as under autocast, without its casts
        for module in tested.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
        precision, dtype = "fp32", torch.bfloat16
    classes = int(loader.labels.max()) + 1
    loss = torch.zeros((), device=device)
    errors = torch.zeros(classes, device=device)  # by class
    with eval_mode(tested):
        for number, batch in enumerate(loader.eval_batches()):
            if number % dist.size == dist.rank:
                with autocast(precision, device):
                    logits = tested(batch.images.to(dtype, memory_format=torch.channels_last)).float()
                loss += F.cross_entropy(logits, batch.labels, reduction="sum")
                errors.index_add_(0, batch.labels, (logits.argmax(dim=1) != batch.labels).float())
            if number % dist.size == dist.size - 1:  # as often in every process
                tick()
    loss, errors = dist.all_reduce_sum(loss, errors)
    images = torch.bincount(loader.labels, minlength=classes)
    n, present = len(loader.labels), images > 0
    return {
        "loss": float(loss) / n,
        "error": 100.0 * float(errors.sum()) / n,
        "balanced_error": 100.0 * float((errors.double()[present] / images[present]).mean()),
    }
