"""Training steps against explicit reimplementations, and the effect of recipe options."""

import copy
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers import TINY
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError, RunError
from shakeshake.layers.rules import ShakeRule
from shakeshake.train import trainer as trainer_module
from shakeshake.train.device import choose_precision
from shakeshake.train.evaluate import evaluate_network
from shakeshake.train.fit import fit
from shakeshake.train.trainer import Trainer

SMALL = TINY.replace(rule="E-E-B", train_size=100, batch_size=40, ghost_batch_size=None, lr=0.1, weight_decay=0.01)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", train_size=100)


@pytest.mark.parametrize("nesterov", [True, False])
def test_step_matches_sgd_with_weight_decay_on_every_parameter(digits, nesterov):
    trainer = Trainer(SMALL.replace(nesterov=nesterov), digits)
    slow = copy.deepcopy(trainer.network)
    velocity = [torch.zeros_like(p) for p in slow.parameters()]
    for batch in trainer.loader.epoch(0):
        lr = trainer.lr_at(trainer.step)
        trainer.train_step(batch)
        loss = F.cross_entropy(slow.train()(batch.images), batch.labels)
        gradients = torch.autograd.grad(loss, list(slow.parameters()))
        with torch.no_grad():
            for p, g, v in zip(slow.parameters(), gradients, velocity, strict=True):
                g = g + 0.01 * p
                v.mul_(0.9).add_(g)
                p.sub_(lr * (g + 0.9 * v if nesterov else v))
    for (name, ours), theirs in zip(trainer.network.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5), name


@pytest.mark.parametrize(
    ("avx512", "amx", "chosen"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_precision_uses_cpu_features_reported_by_older_torch(monkeypatch, avx512, amx, chosen):
    older = SimpleNamespace(_is_avx512_bf16_supported=lambda: avx512, _is_amx_tile_supported=lambda: amx)
    monkeypatch.setattr(torch, "cpu", older)
    assert choose_precision("auto", torch.device("cpu")) == chosen


def test_microbatches_have_separate_statistics_and_coefficients(digits, monkeypatch):
    """As on several devices without synchronised BN, with gradients averaged over the images."""
    drawn = []
    draw = ShakeRule.draw
    monkeypatch.setattr(ShakeRule, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    recipe = SMALL.replace(rule="S-S-I", ghost_batch_size=20, weight_decay=0.0, momentum=0.0)
    trainer = Trainer(recipe, digits)
    slow = copy.deepcopy(trainer.network)
    batch = next(trainer.loader.epoch(0))
    trainer.train_step(batch)
    assert [len(alpha) for alpha, _ in drawn] == [20] * 6, "3 blocks, 2 parts"
    assert len({float(alpha[0, 0]) for alpha, _ in drawn}) == 6, "fresh for every block and part"

    ours = iter(list(drawn))
    monkeypatch.setattr(ShakeRule, "draw", lambda *a, **k: next(ours))
    total = [torch.zeros_like(p) for p in slow.parameters()]
    for part in (slice(0, 20), slice(20, 40)):
        loss = F.cross_entropy(slow.train()(batch.images[part]), batch.labels[part])
        for t, g in zip(total, torch.autograd.grad(loss, list(slow.parameters())), strict=True):
            t += g / 2
    for p, q, g in zip(trainer.network.parameters(), slow.parameters(), total, strict=True):
        assert torch.allclose(p, q - recipe.lr * g, atol=1e-6)


def test_epoch_metrics_weight_batches_by_their_images(digits):
    trainer = Trainer(SMALL, digits)
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
    trainer.loss_per_step.copy_(torch.tensor([1.0, 2.0, 6.0]))
    trainer.errors_per_step.copy_(torch.tensor([4.0, 8.0, 3.0]))
    row = trainer.finish_epoch()
    assert row["train_loss"] == pytest.approx((40 * 1 + 40 * 2 + 20 * 6) / 100)
    assert row["train_error"] == pytest.approx(15.0)


def test_ema_weights_are_evaluated(digits):
    trainer = Trainer(SMALL.replace(ema_decay=0.5), digits)
    expected = {}
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
        now = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        expected = {k: 0.5 * expected[k] + 0.5 * v for k, v in now.items()} if expected else now
    for name, value in trainer.eval_model.state_dict().items():
        counter = name.endswith("num_batches_tracked")
        assert torch.allclose(value, now[name] if counter else expected[name], atol=1e-6), name
    tested = evaluate_network(trainer.eval_model, trainer.test_loader, "fp32", trainer.device)
    plain = evaluate_network(trainer.network, trainer.test_loader, "fp32", trainer.device)
    assert tested["loss"] != plain["loss"]
    row = trainer.finish_epoch()
    assert (row["test_loss"], row["test_error"]) == (tested["loss"], tested["error"])


@pytest.mark.parametrize("model", ["shake_resnet8_2x16d", "wrn10_1", "densenet_bc16_12"])
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_evaluation_matches_eval_mode_and_leaves_the_training_network_unchanged(digits, model, precision, within):
    """A fused copy is evaluated."""
    trainer = Trainer(SMALL.replace(model=model, rule="S-S-I", precision=precision), digits)
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    found = evaluate_network(trainer.network, trainer.test_loader, precision, trainer.device)
    assert trainer.network.training
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())
    trainer.network.eval()
    images, labels = (
        torch.cat(parts)
        for parts in zip(*((b.images, b.labels) for b in trainer.test_loader.eval_batches()), strict=True)
    )
    with torch.no_grad():
        logits = trainer.network(images)
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=within)
    error = 100 * float((logits.argmax(1) != labels).float().mean())
    assert found["error"] == pytest.approx(error, abs=0.3 if precision == "fp32" else 3.0)


def test_label_smoothing_and_mixup_match_their_definitions(digits):
    trainer = Trainer(SMALL.replace(label_smoothing=0.1), digits)
    batch = next(trainer.loader.epoch(0))
    logits = torch.randn(len(batch.labels), 10)
    target = torch.full_like(logits, 0.1 / 10).scatter_(1, batch.labels[:, None], 0.9 + 0.1 / 10)
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    assert trainer._loss(logits, batch) == pytest.approx(float(by_hand), rel=1e-5)

    mixing = Trainer(SMALL.replace(mixup_alpha=0.4), digits)
    batch = next(mixing.loader.epoch(0))
    by_hand = batch.lam * F.cross_entropy(logits, batch.labels) + (1 - batch.lam) * F.cross_entropy(
        logits, batch.labels_b
    )
    assert mixing._loss(logits, batch) == pytest.approx(float(by_hand), rel=1e-5)


def test_grad_clip_norm_limits_the_update(digits):
    trainer = Trainer(SMALL.replace(grad_clip_norm=1e-3, momentum=0.0, weight_decay=0.0, lr=1.0), digits)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.train_step(next(trainer.loader.epoch(0)))
    moved = torch.cat([(p - q).flatten() for p, q in zip(trainer.network.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


def test_nonfinite_loss_is_reported_with_epoch_and_step(digits):
    trainer = Trainer(SMALL, digits)
    batches = trainer.loader.epoch(0)
    trainer.train_step(next(batches))
    trainer.check_finite()
    with torch.no_grad():
        trainer.network.fc.weight.fill_(np.inf)
    trainer.train_step(next(batches))
    with pytest.raises(RunError, match=r"epoch 1, step 2 of 3: the loss is nan.*lr.*clip"):
        trainer.check_finite()


def test_images_per_second_excludes_evaluation(digits, monkeypatch, tmp_path):
    """With few training images, most of an epoch is spent in evaluation."""

    def slow(*arguments):
        time.sleep(0.5)
        return evaluate_network(*arguments)

    monkeypatch.setattr(trainer_module, "evaluate_network", slow)
    fit(SMALL.replace(epochs=2), tmp_path / "run", data=digits, quiet=True)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["seconds"] - len(digits.train.labels) / row["images_per_second"] > 0.4


def test_batch_larger_than_the_dataset_is_refused(digits):
    with pytest.raises(InputError, match="batch_size: got 101"):
        Trainer(SMALL.replace(batch_size=101), digits)


def test_bf16_loss_curve_matches_fp32(digits):
    """Loss curves of the two precisions agree within noise."""
    curves = {}
    for precision in ("fp32", "bf16"):
        trainer = Trainer(SMALL.replace(precision=precision, epochs=4, rule="S-E-I"), digits)
        for epoch in range(4):
            for batch in trainer.loader.epoch(epoch):
                trainer.train_step(batch)
            curves.setdefault(precision, []).append(trainer.finish_epoch()["train_loss"])
            trainer.start_epoch()
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.1)


def test_loss_curve_equals_the_recorded_one(digits):
    """Detects any numerical change in data, network, loss and optimizer over three epochs."""
    recipe = SMALL.replace(model="shake_resnet8_2x8d", rule="S-S-I", flip=True, ghost_batch_size=20, epochs=3)
    trainer, curve = Trainer(recipe.replace(lr=0.05, weight_decay=1e-4), digits), []
    for epoch in range(3):
        for batch in trainer.loader.epoch(epoch):
            trainer.train_step(batch)
        row = trainer.finish_epoch()
        curve.append((row["train_loss"], row["test_loss"]))
        trainer.start_epoch()
    golden = [(2.36035, 2.30381), (2.32791, 2.30131), (2.33251, 2.30031)]
    assert np.allclose(curve, golden, rtol=1e-3)
