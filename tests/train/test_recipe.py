"""Recipes, presets and learning rate schedules against the papers, and errors for invalid values."""

import copy
import dataclasses
import itertools
import json
import math
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shakeshake.errors import InputError
from shakeshake.layers.rules import ShakeRule
from shakeshake.train.presets import PRESETS, paper_architecture_c, paper_cifar10, paper_cifar100, preset
from shakeshake.train.recipe import RENAMED_FIELDS, Recipe
from shakeshake.train.recipe_fields import FieldGroup
from shakeshake.train.schedule import cosine, learning_rate, parse_milestones, step_decay
from shakeshake.train.trainer import Trainer

OFF = {
    "warmup_epochs": 0,
    "grad_clip_norm": 0,
    "label_smoothing": 0,
    "ema_decay": 0,
    "cutout_size": 0,
    "mixup_alpha": 0,
}


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        (
            paper_cifar10(),
            {"model": "shake_resnet26_2x32d", "rule": "S-S-I", "batch_size": 128, "ghost_batch_size": 64, "lr": 0.2}
            | {"weight_decay": 1e-4},
        ),
        (
            paper_cifar100(),
            {"model": "shake_resnext29_2x4x64d", "rule": "S-E-I", "batch_size": 32, "ghost_batch_size": 16, "lr": 0.025}
            | {"weight_decay": 5e-4},
        ),
        (
            paper_architecture_c(),
            {"model": "shake_resnet14_2x32d_c", "rule": "S-E-I[0.4,0.6]", "batch_size": 128, "ghost_batch_size": 64}
            | {"lr": 0.05, "first_epoch_lr": 0.025, "weight_decay": 1e-4},
        ),
    ],
)
def test_shake_shake_presets_have_the_published_settings(recipe, published):
    both = {"epochs": 1800, "momentum": 0.9, "flip": True, "crop_padding": 4, "train_size": None}
    both |= {"schedule": "cosine", "nesterov": True, "precision": "fp32"}
    values = recipe.to_dict()
    assert {name: values[name] for name in published | both | OFF} == published | both | OFF


def test_presets_of_300_epochs_differ_in_nothing_else():
    for name in ("paper_cifar10", "paper_cifar100"):
        assert preset(f"{name}_300") == preset(name).replace(epochs=300)


def test_recipe_round_trips_through_json():
    for name in PRESETS:
        recipe = preset(name)
        assert Recipe.from_dict(json.loads(recipe.to_json())) == recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", -1),
        ("lr", -0.1),
        ("lr", math.nan),
        ("lr", math.inf),
        ("weight_decay", math.nan),
        ("momentum", 1.0),
        ("label_smoothing", 1.0),
        ("ema_decay", -0.5),
        ("warmup_epochs", 31),
        ("ghost_batch_size", 0),
        ("train_size", 0),
        ("seed", -1),
        ("flip", "yes"),
        ("precision", "fp16"),
        ("rule", "S-K"),
        ("model", "shake_resnet27_2x32d"),
        ("schedule", "linear"),
        ("milestones", "half"),
        ("milestones", "0.75,0.5"),
        ("milestones", "0.5,1"),
        ("gamma", 0),
        ("gamma", 1.5),
        ("first_epoch_lr", math.inf),
        ("colour", "blue"),
    ],
)
def test_invalid_value_is_reported_with_its_field(field, value):
    with pytest.raises(InputError) as raised:
        Recipe().replace(**{field: value})
    message = str(raised.value)
    assert message.startswith(field)
    assert "\n" not in message


def test_every_field_has_help_a_group_and_its_literal_as_choices():
    hints = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        assert field.metadata["help"]
        assert field.metadata["group"] in typing.get_args(FieldGroup)
        literal = typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is typing.Literal else None
        assert field.metadata["choices"] == literal


def test_rich_types_become_plain_values():
    recipe = Recipe(
        data=Path("a/b"),
        rule=ShakeRule.parse("S-E-B"),
        epochs=np.int64(3),
        lr=np.float64(0.5),
        flip=np.bool_(False),
        milestones=(0.3, 0.6),
        device=torch.device("cuda", 1),
        data_dir=Path("c"),
    )
    plain = Recipe(
        data="a/b", rule="S-E-B", epochs=3, lr=0.5, flip=False, milestones="0.3,0.6", device="cuda:1", data_dir="c"
    )
    assert recipe == plain
    assert Recipe.from_dict(json.loads(recipe.to_json())) == plain
    assert type(recipe.lr) is float


def test_repr_shows_only_changed_fields():
    assert repr(Recipe()) == "Recipe()"
    assert repr(Recipe(lr=0.5, data="digits")) == "Recipe(data='digits', lr=0.5)"
    assert eval(repr(paper_cifar100())) == paper_cifar100()


@pytest.mark.parametrize("name", RENAMED_FIELDS)
def test_recipes_with_old_field_names_load(name):
    new = RENAMED_FIELDS[name]
    value = {"compile_mode": "default"}.get(new, 0.5 if "float" in Recipe.__annotations__[new] else 7)
    assert getattr(Recipe.from_dict({name: value}), new) == value


def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0


@given(steps=st.integers(2, 10_000), lr=st.floats(1e-6, 10.0))
def test_cosine_starts_at_lr_and_ends_at_exactly_zero(steps, lr):
    assert cosine(0, steps, lr) == lr
    assert cosine(steps - 1, steps, lr) == 0.0
    middle = [cosine(s, steps, lr) for s in range(0, steps, max(1, steps // 50))]
    assert middle == sorted(middle, reverse=True)


def test_cosine_is_per_step_and_warms_up():
    rates = [cosine(s, 101, 0.2) for s in range(101)]
    assert rates[50] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates)), "the rate falls at every step, not every epoch"
    warm = [cosine(s, 110, 0.2, warmup_steps=10) for s in range(110)]
    assert warm[0] == pytest.approx(0.2 / 11)
    assert warm[10] == max(warm) == 0.2
    assert warm[-1] == 0.0
    with pytest.raises(InputError):
        cosine(101, 101, 0.2)


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rates"),
    [  # the learning rate from each epoch (counted from 0) on, as the papers tell it
        ("paper_resnet", 164, 128, {0: 0.1, 82: 0.01, 123: 0.001}),
        ("paper_wrn", 200, 128, {0: 0.1, 60: 0.02, 120: 0.004, 160: 0.0008}),
        ("paper_resnext", 300, 128, {0: 0.1, 150: 0.01, 225: 0.001}),
        ("paper_densenet", 300, 64, {0: 0.1, 150: 0.01, 225: 0.001}),
    ],
)
def test_baseline_presets_have_the_published_settings(name, epochs, batch, rates):
    recipe = preset(name)
    assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (epochs, batch, 0.9)
    assert recipe.nesterov == (name != "paper_resnet")
    assert recipe.rule == "none", "nothing is shaken, and no rule says otherwise"
    trainer = Trainer.__new__(Trainer)
    trainer.recipe, trainer.steps_per_epoch, trainer.steps = recipe, 7, 7 * epochs
    trainer.milestones = parse_milestones(recipe.milestones)
    expected = None
    for epoch in range(epochs):
        expected = rates.get(epoch, expected)
        for step in (7 * epoch, 7 * epoch + 6):
            assert trainer.lr_at(step) == pytest.approx(expected, rel=1e-12), f"epoch {epoch}"


def test_first_epoch_lr_applies_to_the_first_epoch_only():
    """0.025 for an epoch, then the cosine as if it had started at step 0."""
    rates = [learning_rate(s, 100, 0.05, first_steps=10, first_lr=0.025) for s in range(100)]
    assert rates[:10] == [0.025] * 10
    assert rates[10:] == [cosine(s, 100, 0.05) for s in range(10, 100)]
    with pytest.raises(InputError, match=r"^first_epoch_lr: .* one of the two"):
        Recipe(first_epoch_lr=0.01, warmup_epochs=1)


def test_step_schedule_warms_up_and_decays_at_milestones():
    rates = [step_decay(s, 20, 1.0, (0.5, 0.75), 0.5, warmup_steps=3) for s in range(20)]
    assert rates == [0.25, 0.5, 0.75] + [1.0] * 7 + [0.5] * 5 + [0.25] * 5
    with pytest.raises(InputError):
        step_decay(20, 20, 1.0, (0.5,), 0.1)


def test_rule_is_none_exactly_for_networks_without_branches():
    assert Recipe(model="wrn10_1", rule="S-S-I").rule == "none"
    assert Recipe(model="shake_resnet8_2x4d_c", rule="S-E-I[0.4,0.6]").rule == "S-E-I[0.4,0.6]"
    with pytest.raises(InputError, match=r"^rule: got 'none' for shake_resnet8_2x4d, which has branches"):
        Recipe(model="wrn10_1").replace(model="shake_resnet8_2x4d")


@pytest.mark.parametrize(("name", "similar"), [("learning_rate", "lr"), ("epoch", "epochs"), ("crop", "crop_padding")])
def test_an_unknown_field_names_the_one_that_was_meant(name, similar):
    for build in (Recipe, Recipe().replace):
        with pytest.raises(InputError, match=rf"^{name}: not a field of a recipe, did you mean {similar}\?$"):
            build(**{name: 1})


def test_recipes_can_be_copied():
    recipe = Recipe(lr=0.2)
    assert copy.deepcopy(recipe) == copy.copy(recipe) == recipe
