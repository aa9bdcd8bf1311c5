"""The study of shaking without augmentation matches its plan."""

import json

import pytest

from helpers import shakeshake_output
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rows", "S-S-X"), "rows: augmentation has no 'S-S-X', expected some of E-E-B, S-S-I"),
        (("--scale", "huge"), "'huge' is not one of 'smoke', 'small', 'paper'"),
        (("--train-size", "300"), "train_size: with 300 for all, "),
        (("--seeds", "0"), "seeds: got 0, expected 1 or more"),
        (("--rows", "S-S-I", "--data-dir", "EMPTY"), "cifar10: EMPTY has no copy and the download failed"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, sentence, tmp_path, monkeypatch):
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    monkeypatch.setenv("SHAKESHAKE_CIFAR_URL", "https://127.0.0.1:1/")
    arguments = [str(empty) if text == "EMPTY" else text for text in arguments]
    said = shakeshake_output("reproduce", "augmentation", "--out", out, *arguments, code=2)
    assert sentence.replace("EMPTY", str(empty)) in said
    assert "Traceback" not in said
    if not sentence.startswith("'"):  # click prints the usage first
        assert len(said.strip().splitlines()) == 1
    assert not out.exists()


def test_one_seed_has_no_interval_and_a_folder_of_other_settings_is_kept(tmp_path):
    command = ("reproduce", "augmentation", "--scale", "smoke", "--jobs", 2, "--out", tmp_path / "out")
    said = shakeshake_output(*command)
    lines = [line for line in said.splitlines() if line.startswith("S-S-I against E-E-B (digits)")]
    assert len(lines) == 1
    assert lines[0].endswith("points, no interval: fewer than two pairs of equal seeds. Not meaningful.")
    assert said.count("   not meaningful") == 12
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<small>not meaningful</small>") == 3 * 12
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(json.loads((tmp_path / "out" / "augmentation.json").read_text())["cells"]) == 12
    refused = shakeshake_output(*command, "--epochs", 2, code=2)
    assert refused.strip().count("\n") == 0
    assert "was made with no overrides, this is epochs=2" in refused
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


def test_the_plan_of_a_study_of_fixed_size_does_not_describe_the_scale(tmp_path):
    said = shakeshake_output("reproduce", "length", "--dry-run", "--out", tmp_path / "out")
    assert said.splitlines()[0] == "Length of training, the same at the scales small and paper"


def test_help_separates_names_of_tables_from_descriptions():
    said = shakeshake_output("reproduce", "--help")
    assert "  rules_without_augmentation  The nine rules" in said
