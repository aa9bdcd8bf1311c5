import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import shakeshake as ss
from helpers import TINY
from shakeshake.data.registry import load_data
from shakeshake.train.evaluate import evaluate_network
from shakeshake.train.linear_probe import fit_probe
from shakeshake.train.optimizers import create_optimizer
from shakeshake.train.trainer import Trainer


@pytest.mark.parametrize("classes", [2, 3])
def test_probe_predicts_what_scikit_learn_predicts(classes):
    random = np.random.default_rng(0)
    labels = np.arange(240) % classes
    features = random.normal(size=(240, 6)) * [1, 10, 100, 1, 1, 0] + labels[:, None] * [1, 5, 0, 0, 2, 0] + 7
    probe = fit_probe(features, labels, None, None, classes)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=probe.strength, max_iter=300)).fit(features, labels)
    logits = features @ probe.weight.T + probe.bias
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    assert probabilities == pytest.approx(expected.predict_proba(features), abs=1e-6)
    assert 0 <= probe.error < 40


def test_regularisation_is_chosen_on_validation_images():
    """The training labels are noise in all but one feature, so that weak regularisation overfits."""
    random = np.random.default_rng(0)
    labels, val_labels = random.integers(0, 2, 60), random.integers(0, 2, 2000)
    features, val = random.normal(size=(60, 50)), random.normal(size=(2000, 50))
    features[:, 0] += labels
    val[:, 0] += val_labels
    assert fit_probe(features, labels, val, val_labels, 2).strength <= 0.1


def test_training_starts_from_the_probe():
    data = load_data("digits", train_size=300)
    start, probed = (Trainer(TINY.replace(probe=probe), data) for probe in (False, True))
    body = [name for name in start.network.state_dict() if not name.startswith("fc.")]
    ours, theirs = probed.network.state_dict(), start.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in body)
    errors = [
        evaluate_network(trainer.network, trainer.test_loader, "fp32", trainer.device)["error"]
        for trainer in (start, probed)
    ]
    assert errors[1] < 55 < 80 < errors[0]


def run_steps(trainer, steps=3):
    for _, batch in zip(range(steps), trainer.loader.epoch(0), strict=False):
        trainer.train_step(batch)
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def test_freeze_trains_the_last_layer_only():
    data = load_data("digits", train_size=60)
    trainer = Trainer(TINY.replace(freeze=True), data)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    changed = {name for name, value in run_steps(trainer).items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_head_lr_is_the_rate_of_the_last_layer():
    data = load_data("digits", train_size=60)
    plain = run_steps(Trainer(TINY.replace(lr=0.01), data))
    same = run_steps(Trainer(TINY.replace(lr=0.01, head_lr=0.01), data))
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    fields = {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.01}
    one, ten = (Trainer(TINY.replace(head_lr=rate, **fields), data) for rate in (None, 0.1))
    start = {name: value.clone() for name, value in one.network.state_dict().items()}
    one, ten = run_steps(one, 1), run_steps(ten, 1)
    step = one["fc.weight"] - start["fc.weight"]
    torch.testing.assert_close(ten["fc.weight"] - start["fc.weight"], 10 * step, rtol=1e-4, atol=1e-7)
    assert torch.equal(one["stem.conv.weight"], ten["stem.conv.weight"])


def test_head_lr_works_with_optimisers_of_torch():
    head, body = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    recipe = ss.Recipe(optimizer="adamw", lr=1e-3, head_lr=1e-1, weight_decay=0.0)
    optimizer = create_optimizer(recipe, [*body.parameters(), *head.parameters()], head.parameters())
    before = [layer.weight.clone() for layer in (body, head)]
    head(body(torch.ones(1, 2))).square().sum().backward()
    optimizer.step(1e-3)
    moved = [float((layer.weight - old).detach().abs().max()) for layer, old in zip((body, head), before, strict=True)]
    assert moved == pytest.approx([1e-3, 1e-1], rel=1e-3)


class StopAfter(ss.Callback):
    def on_step_end(self, context):
        if context.trainer.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("fields", [{"probe": True, "head_lr": 0.2}, {"probe": True, "freeze": True, "head_lr": 0.1}])
def test_resume_is_bit_identical(fields, tmp_path):
    recipe = TINY.replace(**fields)
    ss.fit(recipe, tmp_path / "whole", quiet=True)
    with pytest.raises(ss.Stopped):
        ss.fit(recipe, tmp_path / "stopped", callbacks=[StopAfter()], quiet=True)
    ss.resume(tmp_path / "stopped", quiet=True)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_has_no_probe_is_refused():
    with pytest.raises(ss.InputError, match="a class has one training image"):
        fit_probe(np.ones((3, 2)), np.array([0, 0, 1]), None, None, 2)
    with pytest.raises(ss.InputError, match="head_lr"):
        ss.Recipe(head_lr=0.0)
