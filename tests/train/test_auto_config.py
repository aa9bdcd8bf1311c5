"""Suggested recipes as a pure function of dataset stats, simulated speeds, a budget and the user's fields."""

import dataclasses
import json
import re
from pathlib import Path

import click
import numpy as np
import pytest

import shakeshake as ss
from shakeshake.cli.options import command, explicit_fields, recipe_options
from shakeshake.errors import InputError
from shakeshake.train.auto_config import (
    BUDGET_FRACTION,
    MAX_EPOCHS_FACTOR,
    MAX_EVALUATIONS,
    NETWORKS,
    DatasetStats,
    parse_duration,
    suggest_recipe,
)
from shakeshake.train.auto_recipe import recipe_for
from shakeshake.train.distributed import DistContext
from shakeshake.train.recipe import Recipe

SMALL = DatasetStats(
    train_images=200,
    test_images=100,
    num_classes=10,
    channels=3,
    image_size=32,
    smallest_class=20,
    largest_class=20,
)


@dataclasses.dataclass
class Machine:
    """A simulated machine on which each network takes twice as long as the one before; records what was measured."""

    step: float = 0.01
    test: float = 0.0001
    asked: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, recipe: Recipe):
        self.asked.append(recipe.model)
        step = self.step * 2 ** NETWORKS.index(recipe.model)

        class Speed:
            def seconds(self, steps: int, tested: int) -> float:
                return 5.0 + steps * step + tested * self.test

            test = self.test

        return Speed()


def pick(stats: DatasetStats = SMALL, budget: float | None = 600.0, machine: Machine | None = None, **typed):
    return suggest_recipe("mine.npz", stats, typed, budget, machine or Machine())


@pytest.mark.parametrize("images", [20, 200, 1000, 4000, 50_000])
@pytest.mark.parametrize("budget", [10.0, 60.0, 600.0, 36_000.0])
def test_run_stays_within_the_budget_and_uses_it(images, budget):
    stats = dataclasses.replace(SMALL, train_images=images)
    machine = Machine()
    recipe, choice = pick(stats, budget, machine)
    steps = -(-images // recipe.batch_size) * recipe.epochs
    tested = -(-recipe.epochs // recipe.eval_every) * stats.test_images
    takes = machine(recipe).seconds(steps, tested)
    assert takes <= budget * BUDGET_FRACTION or recipe.epochs == 1
    assert takes > 0.7 * budget or recipe.epochs == MAX_EPOCHS_FACTOR * stats.min_epochs or recipe.epochs <= 3
    assert tested / stats.test_images <= MAX_EVALUATIONS
    slow = pick(stats, budget, Machine(test=0.01))[0]
    assert -(-slow.epochs // slow.eval_every) * stats.test_images * 0.01 <= max(budget / 10, stats.test_images * 0.01)
    assert {name for name, *_ in choice.reasons} >= {"model", "epochs", "batch_size", "lr", "rule"}
    assert all(reason for *_, reason in choice.reasons)


def test_larger_budget_gives_a_larger_network_and_small_networks_are_measured_first():
    models, hurried = [], Machine()
    for budget in (20.0, 100.0, 400.0, 3000.0, 100_000.0):
        models.append(pick(budget=budget)[0].model)
    places = [NETWORKS.index(model) for model in models]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == len(NETWORKS) - 1
    pick(budget=20.0, machine=hurried)
    assert hurried.asked == [NETWORKS[0]], "if the smallest network is too slow, no larger one is measured"


def test_user_fields_take_precedence_and_the_others_adapt():
    fast = Machine()
    recipe, choice = pick(machine=fast, model=NETWORKS[2], rule="S-S-I", flip=False, lr=0.02)
    assert (recipe.model, recipe.rule, recipe.flip, recipe.lr) == (NETWORKS[2], "S-S-I", False, 0.02)
    assert fast.asked == [NETWORKS[2]]
    assert not {"model", "rule", "flip", "lr"} & {name for name, *_ in choice.reasons}
    recipe, _ = pick(epochs=3000)
    other, _ = pick(epochs=30)
    assert (recipe.epochs, other.epochs) == (3000, 30)
    assert NETWORKS.index(recipe.model) < NETWORKS.index(other.model), "fewer epochs leave time for a larger network"
    none = Machine()
    pick(machine=none, model="cifar_resnet20", epochs=3)
    assert none.asked == []
    assert pick(model="cifar_resnet20", epochs=3)[0].rule == "none"
    assert pick(batch_size=128)[0].lr == pytest.approx(0.2)
    assert pick(budget=20.0)[0].mixup_alpha == 0.0, "a short run is too short for Mixup"
    assert pick(budget=6000.0)[0].mixup_alpha > 0
    assert pick(budget=6000.0, mixup_alpha=0.0)[0].mixup_alpha == 0.0
    assert pick(budget=6000.0, randaugment=9)[0].mixup_alpha == 0.0
    assert any("--randaugment 9" in why for _, _, why in pick(budget=6000.0)[1].reasons), "better, but needs a package"


def test_suggestions_depend_on_the_dataset():
    grey = dataclasses.replace(SMALL, channels=1, image_size=8)
    assert pick(grey)[0].flip is False
    assert pick(grey)[0].crop_padding == 1
    assert pick(dataclasses.replace(SMALL, image_size=64))[0].crop_padding == 8
    assert pick()[0].balance == "none"
    recipe, choice = pick(dataclasses.replace(SMALL, smallest_class=5, largest_class=60))
    assert recipe.balance == "weight"
    assert pick(dataclasses.replace(SMALL, smallest_class=1, largest_class=60))[0].balance == "sample", (
        "a weight of 20 is too much"
    )
    assert any("12.0 times" in reason for *_, reason in choice.reasons)
    assert pick(dataclasses.replace(SMALL, train_images=12, largest_class=2, smallest_class=1))[0].batch_size == 12
    assert pick(dataclasses.replace(SMALL, train_images=5000))[0].batch_size == 64


def test_shaking_takes_the_place_of_augmentation_that_is_switched_off():
    off = {"flip": False, "crop_padding": 0}
    recipe, choice = pick(budget=6000.0, **off)
    assert (recipe.rule, recipe.mixup_alpha) == ("S-S-I", 0.0)
    reason = next(why for name, _, why in choice.reasons if name == "rule")
    table = json.loads((Path(__file__).parents[2] / "results/augmentation/augmentation.json").read_text())
    means = {cell["row"]: cell["mean"] for cell in table["cells"] if cell["column"] == "1000"}
    assert f"{means['S-S-I']:.1f} instead of {means['E-E-B']:.1f} %" in reason
    assert pick(budget=6000.0, mixup_alpha=1.0, **off)[0].mixup_alpha == 1.0
    assert pick(budget=20.0, **off)[0].rule == "E-E-B", "too short"
    assert pick(budget=6000.0, flip=False)[0].rule != "S-S-I", "still cropped"


def test_images_shrink_where_the_budget_is_short_and_no_further():
    class Slow(Machine):
        def __call__(self, recipe):
            found = super().__call__(recipe)
            found.factor = ((recipe.image_size or 96) / 32) ** 2
            plain = found.seconds
            found.seconds = lambda steps, tested: plain(steps * found.factor, tested)
            return found

    photos = dataclasses.replace(SMALL, train_images=3000, image_size=96)
    assert photos.min_epochs == 67
    sizes = {}
    for budget in (60.0, 120.0, 600.0):
        recipe, _ = suggest_recipe("mine.npz", photos, {}, budget, Slow(), (48, 32))
        sizes[budget] = recipe.image_size
        assert recipe.crop_padding == (recipe.image_size or 96) // 8
    assert sizes == {60.0: 32, 120.0: 48, 600.0: None}
    assert suggest_recipe("mine.npz", photos, {}, 60.0, Slow())[0].image_size is None, "only where they can be resized"


def test_quick_check_of_one_epoch_does_not_take_the_largest_network():
    assert NETWORKS.index(pick(budget=600.0, epochs=1)[0].model) <= NETWORKS.index(pick(budget=600.0)[0].model)


def test_grey_photos_are_not_mirrored():
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8).repeat(3, axis=1)
    colours = grey.copy()
    colours[17, 0, 3, 3] ^= 64
    for images, flip in ((grey, False), (colours, True)):
        data = ss.from_arrays(images, np.arange(40) % 2, images, np.arange(40) % 2)
        assert pick(DatasetStats.of(data))[0].flip is flip


def test_a_pretrained_network_is_probed_and_frozen_unless_a_rule_is_set():
    stats = dataclasses.replace(SMALL, pretrained=True)
    recipe = pick(stats, budget=None, model="timm/resnet18")[0]
    assert (recipe.probe, recipe.freeze, recipe.rule, recipe.mixup_alpha) == (True, True, "E-E-B", 0.0)
    assert recipe.epochs == 2 * stats.min_epochs < SMALL.min_epochs
    assert not pick(stats, budget=None, model="timm/resnet18", rule="S-S-I")[0].freeze
    assert not pick(stats, budget=None, model="timm/resnet18", head_lr=0.1)[0].freeze
    assert not pick(budget=None)[0].probe


def test_nothing_is_measured_without_a_budget():
    machine = Machine()
    recipe, _ = pick(budget=None, machine=machine)
    assert machine.asked == []
    assert recipe.epochs == 2 * SMALL.min_epochs


def test_printed_options_reproduce_the_recipe():
    @command()
    @recipe_options()
    @click.pass_context
    def parse(ctx, **_):
        return explicit_fields(ctx)

    recipe, choice = pick(dataclasses.replace(SMALL, smallest_class=5, largest_class=60, channels=1))
    options = [line.split("  ")[1].strip() for line in choice.lines()]
    given = parse.main(" ".join(options).split(), standalone_mode=False)
    assert given == choice.fields
    assert suggest_recipe("mine.npz", SMALL, given, None, None)[0] == recipe


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("none", None), (" 2 m", 120)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0m", "-5m", "10d", "nanm", "1e3s", "m"])
def test_invalid_durations_are_rejected(text):
    with pytest.raises(InputError, match=re.escape(f"budget: got {text!r}, expected a time")):
        parse_duration(text)


def test_budget_changes_only_the_epochs_of_a_preset(monkeypatch):
    monkeypatch.setattr(
        "shakeshake.train.measure_speed.measure", lambda recipe, *_: Machine()(recipe.replace(model=NETWORKS[0]))
    )
    recipe, lines = recipe_for("digits", {"batch_size": 32}, name="paper_cifar10", budget="5m")
    assert (recipe.model, recipe.rule, recipe.batch_size) == ("shake_resnet26_2x32d", "S-S-I", 32)
    assert recipe.epochs < 1800
    assert [line.split()[0] for line in lines[1:]] == ["--epochs", "--eval-every"]
    assert recipe_for("digits", {}) == (Recipe(**{**recipe_for("digits", {}, name="quick")[0].to_dict()}), [])
    with pytest.raises(InputError, match=r"budget: 5m has no effect"):
        recipe_for("digits", {"epochs": 3}, name="paper_cifar10", budget="5m")


def test_recipe_for_an_npz_file_is_measured_on_this_machine(tmp_path):
    """Several processes get the same suggestions without measurements."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.repeat(np.arange(3), (40, 12, 8))
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = str(tmp_path / "mine.npz")
    recipe, lines = recipe_for(data, {"model": "shake_resnet8_2x4d"}, budget="20s")
    assert any("--epochs" in line for line in lines)
    assert (recipe.balance, recipe.batch_size, recipe.crop_padding) == ("weight", 32, 1)
    assert "60 images in 3 classes, 8 x 8 pixels" in lines[0]
    two = [recipe_for(data, {}, dist=DistContext(rank=rank, size=2))[0] for rank in (0, 1)]
    assert two[0] == two[1]
    with pytest.raises(InputError, match=r"budget: 5m with 2 processes"):
        recipe_for(data, {}, budget="5m", dist=DistContext(size=2))
    with pytest.raises(InputError, match=r"data: the file .* does not exist"):
        recipe_for(str(tmp_path / "gone.npz"), {})
