"""Class imbalance: balanced order and class weights, the same however a step is split."""

import numpy as np
import pytest
import torch

from shakeshake.data.dataset import Split, from_arrays
from shakeshake.data.loader import Augmentation, Loader
from shakeshake.data.sampler import balanced_order, class_weights
from shakeshake.train.evaluate import evaluate_network
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

LABELS = np.repeat(np.arange(4), (60, 25, 4, 1))


def split(labels: np.ndarray = LABELS) -> Split:
    images = np.random.default_rng(1).integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8)
    return Split(images, labels)


def test_balanced_order_draws_classes_and_their_images_equally_often():
    shown = np.zeros(len(LABELS), int)
    for epoch in range(400):
        order = balanced_order(LABELS, (3, epoch))
        assert len(order) == len(LABELS)
        assert set(np.bincount(LABELS[order])) <= {22, 23}
        times = np.bincount(order, minlength=len(LABELS))
        for label in range(4):
            assert np.ptp(times[label == LABELS]) <= 1, "all images of a class before any of them again"
        shown += times
    for label in range(4):
        mean = 400 * 22.5 / (label == LABELS).sum()
        assert abs(shown[label == LABELS] - mean).max() < 5 * np.sqrt(mean), "no image is left out for good"
    assert (balanced_order(LABELS, (3, 1)) != balanced_order(LABELS, (3, 2))).any()
    assert (balanced_order(LABELS, (3, 1)) == balanced_order(LABELS, (3, 1))).all()


def test_balanced_epoch_can_start_at_any_step_and_is_sharded():
    def batches(first: int = 0, **more) -> list:
        how = Augmentation(flip=True, crop_padding=1, mixup_alpha=0.5)
        return list(
            Loader(split(), (1.0,), (1.0,), batch_size=32, augmentation=how, balanced=True, **more).epoch(5, first)
        )

    whole = batches()
    for batch, again in zip(whole[1:], batches(1), strict=True):
        assert torch.equal(batch.images, again.images)
    pieces = zip(batches(rank=0, size=2), batches(rank=1, size=2), strict=True)
    for batch, (one, other) in zip(whole, pieces, strict=True):
        assert torch.equal(batch.images, torch.cat([one.images, other.images]))
        assert torch.equal(batch.labels, torch.cat([one.labels, other.labels]))
    assert set(np.bincount(torch.cat([batch.labels for batch in whole]))) == {22, 23}


def test_class_weights_match_their_definition():
    weights = class_weights(LABELS, 5)
    assert weights[4] == 0, "a class that is not there"
    for label, count in enumerate((60, 25, 4, 1)):
        assert weights[label] == pytest.approx(90 / (4 * count))
    assert weights[LABELS].mean() == pytest.approx(1)


def recipe(**changes) -> Recipe:
    small = {
        "model": "shake_resnet8_2x4d",
        "rule": "E-E-B",
        "batch_size": 30,
        "flip": False,
        "crop_padding": 0,
        "epochs": 2,
    }
    return Recipe(data="digits", device="cpu", precision="fp32", lr=0.05, **(small | changes))


def data(labels: np.ndarray = LABELS):
    train, test = split(labels), split(np.repeat(np.arange(4), (40, 6, 3, 1)))
    return from_arrays(train.images, train.labels, test.images, test.labels)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_weighted_loss_is_the_weighted_mean_however_the_batch_is_split(mixup):
    """Whether the batch goes through whole or in parts, as ghost batches and processes cut it."""
    trainer = Trainer(recipe(balance="weight", mixup_alpha=mixup, label_smoothing=0.1), data())
    batch = next(iter(trainer.loader.epoch(0)))
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    weights = class_weights(LABELS, 4)

    def slow(labels: torch.Tensor) -> float:
        total = 0.0
        for row, label in zip(logits.double().log_softmax(1), labels, strict=True):
            target = torch.full((4,), 0.1 / 4, dtype=torch.float64)
            target[label] += 0.9
            total -= float(weights[label]) * float(row @ target)
        return total / 30

    expected = slow(batch.labels)
    if mixup:
        expected = float(batch.lam) * expected + (1 - float(batch.lam)) * slow(batch.labels_b)
    assert float(trainer._loss(logits, batch)) == pytest.approx(expected, rel=1e-5)
    parts = batch.microbatches(7)
    at = np.cumsum([0, *(len(part.labels) for part in parts)])
    halves = [
        float(trainer._loss(logits[a:b], part)) * len(part.labels) / 30
        for a, b, part in zip(at, at[1:], parts, strict=False)
    ]
    assert sum(halves) == pytest.approx(expected, rel=1e-5)


def test_balanced_error_is_the_mean_over_classes():
    trainer = Trainer(recipe(), data())
    found = evaluate_network(trainer.network, trainer.test_loader, "fp32", trainer.device)
    trainer.network.eval()
    with torch.no_grad():
        (batch,) = trainer.test_loader.eval_batches()
        wrong = (trainer.network(batch.images).argmax(1) != batch.labels).numpy()
    labels = trainer.data.test.labels
    assert found["error"] == pytest.approx(100 * wrong.mean())
    assert found["balanced_error"] == pytest.approx(100 * np.mean([wrong[labels == k].mean() for k in range(4)]))


def test_balancing_leaves_augmentation_unchanged():
    """The order has a separate random stream."""
    plain, even = (Trainer(recipe(balance=how, crop_padding=2, flip=True), data()).loader for how in ("none", "sample"))
    one, other = next(iter(plain.epoch(0))), next(iter(even.epoch(0)))
    assert not torch.equal(one.labels, other.labels)
    labels = np.arange(90) % 3
    random = np.random.default_rng((0, 0))
    assert torch.equal(
        next(iter(Loader(split(labels), (1.0,), (1.0,), batch_size=30).epoch(0))).labels,
        torch.from_numpy(labels[random.permutation(90)][:30]),
    )
