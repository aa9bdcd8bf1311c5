"""Trainer: the training step, evaluation, and the state of a run for checkpoints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..data.dataset import ImageData
from ..data.loader import Augmentation, Batch, Loader
from ..data.sampler import class_weights
from ..errors import InputError, RunError
from ..models.head import find_head
from ..models.origin import Origin, library_of
from ..models.registry import create_model
from .compile import compile_network, mark_step
from .device import autocast, choose_device, choose_precision, keep_freed_memory, seed_generators
from .distributed import SINGLE_PROCESS, DistContext
from .ema import EMA
from .evaluate import evaluate_network
from .ghost_batch_norm import convert_ghost_batch_norm
from .init_weights import InitWeights
from .linear_probe import probe_head
from .optimizers import create_optimizer
from .recipe import Recipe
from .schedule import learning_rate, parse_milestones


def _seed(*parts: int | str) -> int:
    """A 63-bit seed from the hash of all parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


class Trainer:
    """Trains a network.

    Randomness depends only on the recipe's seed and the step, so a resumed run gives bit-identical results. All
    processes must call ``train_step``, ``finish_epoch`` and ``state_dict`` at the same points.

    Args:
        recipe: The settings of the run.
        data: The images.
        dist: The processes that train the network together.
        init: Weights to start from instead of random ones.
        origin: What a run recorded of a network of transformers or timm; by default read from the library.
        resumed: The state will be loaded, so no weights of that library are.

    Raises:
        InputError: Recipe and data, device or number of processes do not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        dist: DistContext = SINGLE_PROCESS,
        init: InitWeights | None = None,
        *,
        origin: Origin | None = None,
        resumed: bool = False,
    ) -> None:
        n = len(data.train.labels)
        if recipe.batch_size > n:
            raise InputError(f"batch_size: got {recipe.batch_size}, expected at most {n} (training images)")
        smallest_batch = min(recipe.batch_size, n % recipe.batch_size or n)
        if smallest_batch < dist.size:
            raise InputError(
                f"batch_size: with {recipe.batch_size} the smallest batch has {smallest_batch} images, expected at "
                f"least one for each of {dist.size} processes"
            )
        size = data.image_size
        for name, value, limit in (
            ("crop_padding", recipe.crop_padding, size),
            ("cutout_size", recipe.cutout_size, 2 * size),
        ):
            if value > limit:
                raise InputError(f"{name}: got {value}, expected at most {limit} for images of {size} x {size} pixels")
        self.recipe, self.data, self.dist, self.origin = recipe, data, dist, origin
        self.device = choose_device(recipe.device, dist.local_rank if dist.size > 1 else None)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # also used by calls without a device, such as memory pinning
        self.precision = choose_precision(recipe.precision, self.device)
        torch.backends.cudnn.deterministic = True  # for bit-identical resume
        seed_generators(_seed(recipe.seed, "weights"), self.device)
        self.network = create_model(
            recipe.model,
            num_classes=data.num_classes,
            rule=recipe.rule,
            in_channels=data.channels,
            image_size=data.image_size,
            pretrained=bool(library_of(recipe.model)) and recipe.pretrained and init is None and not resumed,
            origin=origin,
        ).to(self.device)
        self.new_head = False  # whether the last layer was not among the initial weights
        if init is not None:
            self.new_head = init.load_into(self.network, data.classes)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        eager_on_cpu = self.device.type == "cpu" and recipe.compile_mode == "none"
        if eager_on_cpu:
            self.network = kernels.convert(self.network)
        self.kernels = kernels.is_converted(self.network)
        self.microbatch_size = recipe.ghost_batch_size  # images per forward pass
        if not eager_on_cpu:
            self.network = convert_ghost_batch_norm(self.network, recipe.ghost_batch_size)
            self.microbatch_size = None
        if self.device.type == "cpu":
            keep_freed_memory()
        if recipe.probe and not resumed:
            probe_head(self.network, data, self.device)
        head: list[nn.Parameter] = []
        if recipe.freeze or recipe.head_lr is not None:
            head += self.network.get_submodule(find_head(self.network, data.num_classes)).parameters()
        if recipe.freeze:
            self.network.requires_grad_(False)
            for parameter in head:
                parameter.requires_grad_(True)
        self.ema = EMA(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.optimizer = create_optimizer(recipe, self.network.parameters(), head)
        self.milestones = parse_milestones(recipe.milestones)
        self.ddp_model = dist.wrap_ddp(self.network)
        self.forward = compile_network(self.ddp_model, recipe.compile_mode, self.device)
        self.loader = Loader(
            data.train,
            data.mean,
            data.std,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            augmentation=Augmentation(
                recipe.flip, recipe.crop_padding, recipe.cutout_size, recipe.mixup_alpha, recipe.randaugment
            ),
            device=self.device,
            rank=dist.rank,
            size=dist.size,
            balanced=recipe.balance == "sample",
        )
        self.class_weights = (
            torch.from_numpy(class_weights(data.train.labels, data.num_classes)).to(self.device)
            if recipe.balance == "weight"
            else None
        )
        self.test_loader = Loader(data.test, data.mean, data.std, batch_size=256, device=self.device)
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.steps = recipe.epochs * self.steps_per_epoch
        self.epoch = 0  # finished epochs, with metrics
        self.step_in_epoch = 0  # finished steps of the current epoch
        self.seconds = 0.0  # of the current epoch
        # Loss and errors per step of this epoch and process. They stay on the device, since reading them would
        # synchronise. Checkpoints have the sums over all processes.
        self.loss_per_step = torch.zeros(self.steps_per_epoch, device=self.device)
        self.errors_per_step = torch.zeros(self.steps_per_epoch, device=self.device)

    @property
    def step(self) -> int:
        """Finished steps of the whole run."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    @property
    def eval_model(self) -> nn.Module:
        """The network to evaluate: the EMA of the weights if enabled."""
        return self.ema.network if self.ema is not None else self.network

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        recipe = self.recipe
        return learning_rate(
            step,
            self.steps,
            recipe.lr,
            schedule=recipe.schedule,
            milestones=self.milestones,
            gamma=recipe.gamma,
            warmup_steps=round(recipe.warmup_epochs * self.steps_per_epoch),
            first_steps=self.steps_per_epoch,
            first_lr=recipe.first_epoch_lr,
        )

    def train_step(self, batch: Batch) -> None:
        """Run one optimiser step with the gradient of the mean loss over a batch."""
        # Each process draws different coefficients, and rank 0 the same as a single process.
        rank = (self.dist.rank,) if self.dist.rank else ()
        seed_generators(_seed(self.recipe.seed, "shake", self.step, *rank), self.device)
        if self.network.training == self.recipe.freeze:
            self.ddp_model.train(not self.recipe.freeze)
        mark_step(self.recipe.compile_mode)
        loss_sum, errors = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        microbatches = batch.microbatches(self.microbatch_size)
        for number, microbatch in enumerate(microbatches, start=1):
            with self.dist.grad_sync(self.ddp_model, now=number == len(microbatches)):
                with autocast(self.precision, self.device):
                    logits = self.forward(microbatch.images)
                loss = self._loss(logits.float(), microbatch) * (len(microbatch.labels) / microbatch.total)
                (loss * self.dist.size).backward()  # DDP averages over the processes; the sum is needed
            loss_sum += loss.detach()
            errors += (logits.detach().argmax(dim=1) != microbatch.labels).sum()
        if self.recipe.grad_clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip_norm)
        self.optimizer.step(self.lr_at(self.step))
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()
        self.loss_per_step[self.step_in_epoch], self.errors_per_step[self.step_in_epoch] = loss_sum, errors
        self.step_in_epoch += 1

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        loss = self._cross_entropy(logits, batch.labels)
        if batch.labels_b is None or batch.lam is None:
            return loss
        return torch.lerp(self._cross_entropy(logits, batch.labels_b), loss, batch.lam)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        # The mean over images, not over weights, does not depend on the size of microbatches.
        per_image = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (per_image * self.class_weights[labels]).mean()

    def check_finite(self, losses: Tensor | None = None) -> None:
        """Raise RunError if a loss of this epoch is not finite. Waits for the device.

        Args:
            losses: Loss per step; by default those of this process.
        """
        losses = self.loss_per_step if losses is None else losses
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            index = int(bad[0])
            self._not_finite(f"step {index + 1} of {self.steps_per_epoch}", f"the loss is {losses[index]:g}")

    def check_weights(self) -> None:
        """Raise RunError if a weight or running statistic is not finite."""
        for name, value in self.network.state_dict().items():
            if not torch.isfinite(value).all():
                self._not_finite(f"after step {self.step_in_epoch} of {self.steps_per_epoch}", f"{name} is not finite")

    def _not_finite(self, where: str, what: str) -> NoReturn:
        raise RunError(
            f"epoch {self.epoch + 1}, {where}: {what}; try a lower --lr (now {self.recipe.lr:g}), "
            "--warmup-epochs 5, --grad-clip-norm 1 or --precision fp32"
        )

    def finish_epoch(self, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Evaluate the network if due, and return the metrics of the epoch.

        Args:
            tick: Called after every evaluated batch. If it raises, ``finish_epoch`` can be called again.

        Returns:
            Fields of ``EpochMetrics`` except the timing; errors are in %, those of training on augmented images.
        """
        losses, errors = self.dist.all_reduce_sum(self.loss_per_step, self.errors_per_step)
        self.check_finite(losses)
        epoch, n = self.epoch + 1, len(self.data.train.labels)
        sizes = torch.full_like(self.loss_per_step, float(self.recipe.batch_size))
        sizes[-1] = n - self.recipe.batch_size * (self.steps_per_epoch - 1)
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.lr_at(self.step - 1),
            "train_loss": float((losses * sizes).sum()) / n,
            "train_error": 100.0 * float(errors.sum()) / n,
            "test_loss": None,
            "test_error": None,
            "test_balanced_error": None,
        }
        if epoch % self.recipe.eval_every == 0 or epoch == self.recipe.epochs:
            test = evaluate_network(self.eval_model, self.test_loader, self.precision, self.device, tick, self.dist)
            if not math.isfinite(test["loss"]):
                self._not_finite("test", f"the loss is {test['loss']:g}")
            row |= {f"test_{name}": value for name, value in test.items()}
        return row

    def start_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.step_in_epoch, self.seconds = self.epoch + 1, 0, 0.0
        self.loss_per_step.zero_()
        self.errors_per_step.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume from. Batch-norm statistics are those of rank 0, as in the paper's code."""
        losses, errors = self.dist.all_reduce_sum(self.loss_per_step, self.errors_per_step)
        return {
            "epoch": self.epoch,
            "index": self.step_in_epoch,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "losses": losses,
            "wrong": errors,
            "precision": self.precision,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.epoch, self.step_in_epoch, self.seconds = state["epoch"], state["index"], state["seconds"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.dist.is_main:  # they are sums over all processes, so the others start at zero
            self.loss_per_step.copy_(state["losses"])
            self.errors_per_step.copy_(state["wrong"])
        self.precision = state["precision"]
