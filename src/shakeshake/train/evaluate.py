"""Loss and errors of a network on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.loader import Loader
from ..inference.fuse import evaluation_network, is_fully_fusable
from ..utils.modes import eval_mode
from .device import autocast
from .distributed import SINGLE_PROCESS, DistContext

TOP = 5


@dataclass(frozen=True)
class Counts:
    """What a network predicted for a split.

    Attributes:
        loss: Summed cross-entropy.
        confusion: (classes, classes + 1) int64 on the CPU, number of images by label and predicted class, for the
            classes up to the last that occurs; the last column counts predictions of later classes.
        in_top: Images whose label is among the five most probable classes.
    """

    loss: float
    confusion: Tensor
    in_top: int

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def support(self) -> Tensor:
        """(classes,) images of each class."""
        return self.confusion.sum(dim=1)

    @property
    def correct(self) -> Tensor:
        """(classes,) images of each class that were predicted correctly."""
        return self.confusion.diagonal()

    def summary(self) -> dict[str, float]:
        """``loss`` (mean cross-entropy), ``error`` and ``balanced_error`` (mean over classes of the error), in %."""
        wrong, present = self.support - self.correct, self.support > 0
        return {
            "loss": self.loss / self.images,
            "error": 100.0 * float(wrong.sum()) / self.images,
            "balanced_error": 100.0 * float((wrong.double()[present] / self.support[present]).mean()),
        }


@torch.no_grad()
def count_predictions(
    network: nn.Module,
    loader: Loader,
    precision: str,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
    dist: DistContext = SINGLE_PROCESS,
) -> Counts:
    """Evaluate a network on all images of a loader. The network itself is not changed; a fused copy computes.

    Args:
        network: Maps images (N, C, H, W) to logits.
        loader: The images and labels.
        precision: fp32 or bf16.
        device: Where the network is.
        tick: Called after every batch; may raise.
        dist: The processes, which share the batches and all get the result.
    """
    dist.broadcast_buffers(network)
    tested, dtype = evaluation_network(network), torch.float32
    if precision == "bf16" and is_fully_fusable(network):  # the same as under autocast, without its casts
        for module in tested.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
        precision, dtype = "fp32", torch.bfloat16
    loss, in_top = torch.zeros((), device=device), torch.zeros((), device=device)
    classes = int(loader.labels.max()) + 1
    confusion = torch.zeros(classes * (classes + 1), device=device)
    with eval_mode(tested):
        for number, batch in enumerate(loader.eval_batches()):
            if number % dist.size == dist.rank:
                with autocast(precision, device):
                    logits = tested(batch.images.to(dtype, memory_format=torch.channels_last)).float()
                loss += F.cross_entropy(logits, batch.labels, reduction="sum")
                pairs = batch.labels * (classes + 1) + logits.argmax(dim=1).clamp_max(classes)
                confusion.index_add_(0, pairs, torch.ones_like(pairs, dtype=torch.float32))
                top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
                in_top += (top == batch.labels[:, None]).sum()
            if number % dist.size == dist.size - 1:  # as often in every process
                tick()
    loss, confusion, in_top = dist.all_reduce_sum(loss, confusion, in_top)
    return Counts(float(loss), confusion.cpu().long().reshape(classes, classes + 1), int(in_top))


def evaluate_network(
    network: nn.Module,
    loader: Loader,
    precision: str,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
    dist: DistContext = SINGLE_PROCESS,
) -> dict[str, float]:
    """Return ``Counts.summary`` of a network; the arguments are those of ``count_predictions``."""
    return count_predictions(network, loader, precision, device, tick, dist).summary()
