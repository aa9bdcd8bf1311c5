"""The study of shaking without augmentation matches its plan."""

import pytest

from shakeshake.experiments.paper import EXPERIMENTS
from shakeshake.experiments.scales import get_experiment

STUDY = ("augmentation", "alternatives", "rules_without_augmentation", "length")


def test_primary_comparison_matches_the_registered_plan():
    experiment = get_experiment("augmentation")
    cells = [cell for cell in experiment.cells if cell.column == "1000"]
    assert [cell.row for cell in cells] == ["E-E-B", "S-S-I"]
    for cell in cells:
        recipe = cell.recipe
        assert (recipe.model, recipe.train_size, recipe.epochs) == ("shake_resnet14_2x16d", 1000, 100)
        assert (recipe.batch_size, recipe.lr, recipe.weight_decay) == (64, 0.1, 1e-4)
        assert (recipe.flip, recipe.crop_padding, recipe.cutout_size, recipe.mixup_alpha) == (False, 0, 0, 0)
        assert experiment.seeds_of(cell) == range(2, 10)
    assert experiment.paired


def test_cells_of_one_name_have_one_recipe_in_all_tables():
    recipes = {}
    for name in STUDY:
        for cell in get_experiment(name).cells:
            assert recipes.setdefault(cell.folder_name, cell.recipe) == cell.recipe, cell.folder_name


@pytest.mark.parametrize("name", STUDY)
def test_scales_other_than_smoke_use_the_same_recipes(name):
    assert get_experiment(name, "paper") == get_experiment(name, "small") == EXPERIMENTS[name]()
    smoke = get_experiment(name, "smoke")
    assert {cell.recipe.data for cell in smoke.cells} == {"digits"}
    assert len(smoke.cells) == len(EXPERIMENTS[name]().cells)
