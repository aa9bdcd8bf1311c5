"""The declared experiments against the paper's errors and recipes, and the effect of a scale on them."""

import csv
from dataclasses import replace

import pytest

from helpers import shakeshake_output
from shakeshake.errors import InputError
from shakeshake.experiments import tables
from shakeshake.experiments.compare import comparison
from shakeshake.experiments.format import format_table
from shakeshake.experiments.paper import EXPERIMENTS, FIGURE3, WORKSHOP
from shakeshake.experiments.plan import plan_reproduction
from shakeshake.experiments.scales import SCALES, get_experiment
from shakeshake.experiments.schema import Correlation
from shakeshake.layers.rules import ShakeRule
from shakeshake.train.presets import paper_cifar10, paper_cifar100
from shakeshake.train.recipe import Recipe

TABLE_1 = """
E-E-B 4.27 3.76 3.58 -
E-S-B 4.44 -    -    -
S-K-B 4.11 -    -    -
S-E-B 3.47 3.30 -    -
S-S-B 3.67 3.07 -    -
E-S-I 4.11 -    -    -
S-K-I 4.09 -    -    -
S-E-I 3.47 3.20 -    -
S-S-I 3.55 2.98 2.86 2.82
"""


def test_table1_has_the_published_errors_and_recipes():
    made = get_experiment("table1", "paper")
    lines = [line.split() for line in TABLE_1.split("\n") if line]
    expected = {
        (rule, width): float(error)
        for rule, *errors in lines
        for width, error in zip((32, 64, 96, 112), errors, strict=True)
        if error != "-"
    }
    assert list(made.rows) == [line[0] for line in lines], "in the paper's order"
    assert len(made.cells) == len(expected)
    for cell in made.cells:
        width = int(cell.column.split("x")[1].rstrip("d"))
        assert cell.published == expected[cell.row, width]
        assert cell.recipe == paper_cifar10().replace(rule=cell.row, model=f"shake_resnet26_2x{width}d")


def test_a_published_error_is_printed_with_its_source(tmp_path):
    found = tables.collect(get_experiment("table1", "paper"), tmp_path, 1, "paper")
    rows = {row["published"]: row["source"] for row in csv.DictReader(tables.to_csv(found).splitlines())}
    assert (rows["2.82"], rows["2.86"]) == ("measured by the authors of AutoAugment", "Table 1")
    (line,) = (line for line in format_table(found) if "AutoAugment" in line)
    assert "2.82" in line


def test_the_csv_has_the_seed_and_fold_of_missing_runs(tmp_path):
    folded = comparison(Recipe(), ["S-S-I"], seeds=2, folds=3)
    rows = list(csv.DictReader(tables.to_csv(tables.collect(folded, tmp_path, 2, "own")).splitlines()))
    assert [(int(row["seed"]), int(row["fold"])) for row in rows[:6]] == folded.runs_of(folded.cells[0], 2)


def test_table2_has_the_published_errors_and_numbers_of_runs():
    cells = get_experiment("table2", "paper").cells
    published = {cell.row: (cell.published, cell.published_runs) for cell in cells}
    assert published == {"E-E-B": (16.34, 2), "S-E-I": (15.85, 3), "S-S-I": (15.97, 1)}
    assert {cell.column for cell in cells} == {"29 2x4x64d"}
    assert next(cell for cell in cells if cell.row == "S-E-I").recipe == paper_cifar100()


def test_table3_has_the_published_errors():
    cells = get_experiment("table3", "paper").cells
    assert {(cell.row, cell.column): cell.published for cell in cells} == {
        ("wrn28_10", "cifar10"): 3.8,
        ("wrn28_10", "cifar100"): 18.3,
        ("resnext29_16x64d", "cifar10"): 3.58,
        ("resnext29_16x64d", "cifar100"): 17.31,
        ("densenet_bc190_40", "cifar10"): 3.46,
        ("densenet_bc190_40", "cifar100"): 17.18,
        ("shake_resnet26_2x96d", "cifar10"): 2.86,
        ("shake_resnext29_2x4x64d", "cifar100"): 15.85,
    }


def test_300_epochs_have_the_errors_of_shakedrops_table_b1():
    made = get_experiment("epochs300", "paper")
    assert {(cell.row, cell.column): cell.published for cell in made.cells} == {
        ("E-E-B", "26 2x96d"): 4.02,
        ("shaken", "26 2x96d"): 3.36,
        ("E-E-B", "29 2x4x64d"): 16.95,
        ("shaken", "29 2x4x64d"): 16.46,
    }
    rules = {(cell.column, cell.recipe.rule, cell.recipe.epochs) for cell in made.cells if cell.row == "shaken"}
    assert rules == {("26 2x96d", "S-S-I", 300), ("29 2x4x64d", "S-E-I", 300)}
    assert [cell.recipe.epochs for cell in get_experiment("epochs300", "small").cells] == [17, 17, 10, 10]


def test_ranges_of_alpha_widen_until_all_of_it():
    made = get_experiment("divergence", "paper")
    rules = [ShakeRule.parse(cell.recipe.rule) for cell in made.cells]
    assert rules[0].forward == "Even"
    widths = [rule.high - rule.low for rule in rules[1:]]
    assert widths == sorted(widths)
    assert widths[-1] == 1.0
    assert all(rule.low + rule.high == 1.0 for rule in rules)
    assert {cell.recipe.model for cell in made.cells} == {"shake_resnet14_2x32d_c"}


def test_rows_with_a_range_can_be_selected():
    said = shakeshake_output(
        "reproduce", "divergence", "--scale", "smoke", "--rows", "E-E-B,S-E-I[0.4,0.6]", "--dry-run"
    )
    assert "2 cells, " in said


def test_a_diverged_run_is_a_result_of_the_divergence_table_only(tmp_path):
    reason = "epoch 3, step 2 of 32: the loss is nan; try a lower --lr"
    for name, rule, other in (("divergence", "S-E-I", "out of memory"), ("architectures", "S-E-I[0.4,0.6]", reason)):
        made = get_experiment(name, "small")
        cell = next(cell for cell in made.cells if cell.recipe.rule == rule)
        found = tables.collect(made, tmp_path, 2, "small", {cell.run_name(1): reason})
        assert found.failed == (name != "divergence")
        assert any(line.startswith("diverged: ") and "seed 1" in line for line in format_table(found))
        assert tables.collect(made, tmp_path, 2, "small", {cell.run_name(1): other}).failed
        line = next(line for line in format_table(found) if line.startswith(made.rows[cell.row]) and "–" in line)
        assert ("1 of 1" in line) == (name == "divergence")


def test_correlation_files_hold_correlations(tmp_path):
    ours = (Correlation("S-S-I", 0.5, block="stages.0.blocks.0", seeds=(0.4, 0.6)),)
    found = replace(tables.collect(get_experiment("correlation", "paper"), tmp_path, 1, "paper"), correlations=ours)
    rows = {(row["row"], row["block"]): row for row in csv.DictReader(tables.to_csv(found).splitlines())}
    assert len(rows) == 24
    first = rows["S-S-I", "stages.0.blocks.0"]
    assert (first["correlation"], first["seeds"], first["published"]) == ("0.5", "0.4000 0.6000", "0.33")
    assert (rows["E-E-B", "stages.2.blocks.3"]["correlation"], rows["E-E-B", "stages.2.blocks.3"]["published"]) == (
        "",
        "0.92",
    )
    layers = (Correlation("S-S-I", 0.25, layers="L1R2", over=6),)
    found = replace(tables.collect(get_experiment("layerwise", "paper"), tmp_path, 1, "paper"), correlations=layers)
    (row,) = csv.DictReader(tables.to_csv(found).splitlines())
    assert (row["layers"], row["correlation"], row["over"]) == ("L1R2", "0.25", "6")


def test_figures_that_are_not_verified_are_left_out():
    assert all(cell.published is None for cell in get_experiment("architectures", "paper").cells)
    assert get_experiment("layerwise", "paper").published_correlations is None


def test_the_end_points_of_figure5_are_marked_as_read_off_the_curves(tmp_path):
    cells = {cell.row: cell for cell in get_experiment("strength", "paper").cells}
    end_points = {row: (c.published_train, c.published) for row, c in cells.items() if c.source == "Figure 5"}
    assert end_points == {
        "S-M1-I": (38.0, 25.5),
        "S-M2-I": (0.0, 4.0),
        "S-M3-I": (0.0, 4.0),
        "S-M4-I": (15.0, 9.0),
        "S-M5-I": (49.0, None),
    }
    assert all(cell.approximate == (cell.source == "Figure 5") for cell in cells.values())
    assert [cells[row].published for row in ("S-K-I", "S-E-I", "S-S-I")] == [4.09, 3.47, 3.55]
    lines = list(format_table(tables.collect(get_experiment("strength", "paper"), tmp_path, 1, "paper")))
    m1 = next(line for line in lines if line.startswith("Shake-M1"))
    assert "~25.5" in m1
    assert "(published: training error ~38, Figure 5)" in m1


def test_the_workshop_errors_are_a_second_column(tmp_path):
    cells = get_experiment("table1", "paper").cells
    best = {(cell.row, cell.column): cell.published_best for cell in cells if cell.published_best is not None}
    assert len(best) == sum(error is not None for row in WORKSHOP.values() for error in row) == 8
    assert best["S-S-I", "26 2x96d"] == 2.72
    assert best["E-E-B", "26 2x32d"] == 4.13
    lines = list(format_table(tables.collect(get_experiment("table1", "paper"), tmp_path, 1, "paper")))
    assert any(line.split()[:3] == ["Shake-Shake-Image", "2.86", "2.72"] for line in lines)


def test_figure3_is_printed_beside_our_correlations():
    experiment = get_experiment("correlation", "small")
    assert {row: sum(1 for key in experiment.published_correlations if key[0] == row) for row in FIGURE3} == {
        "E-E-B": 12,
        "S-S-I": 12,
    }
    lower = [shaken < plain for plain, shaken in zip(*FIGURE3.values(), strict=True)]
    assert lower == [False] + [True] * 11, "block 1 rises, the others fall"


def test_architecture_c_has_the_papers_learning_rates_and_range_of_alpha():
    cells = {(c.row, c.column): c.recipe for c in get_experiment("architectures", "paper").cells}
    for row in ("S-E-I", "S-S-I"):
        assert cells[row, "C"].rule == f"{row}[0.4,0.6]"
        assert cells[row, "A"].rule == cells[row, "B"].rule == row
    c = cells["S-E-I", "C"]
    assert (c.model, c.first_epoch_lr, c.lr) == ("shake_resnet14_2x32d_c", 0.025, 0.05)


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_is_valid_and_a_folder_has_one_recipe(scale):
    """Tables of one scale share their cells' folders."""
    recipes = {}
    for name in EXPERIMENTS:
        made = get_experiment(name, scale)
        assert made.cells
        for cell in made.cells:
            assert recipes.setdefault(cell.folder_name, cell.recipe) == cell.recipe, cell.folder_name
            assert cell.row in made.rows
            assert cell.column in made.columns
            if scale != "smoke":
                assert cell.folder_name.startswith(f"{cell.recipe.data}-")


def test_the_small_scale_is_the_authors_one_device_recipe_with_fewer_images_and_epochs():
    (paper,) = (c.recipe for c in get_experiment("correlation", "paper").cells if c.row == "S-S-I")
    (small,) = (c.recipe for c in get_experiment("correlation", "small").cells if c.row == "S-S-I")
    one_device = paper.replace(batch_size=64, lr=0.1)  # the author's variant
    assert small == one_device.replace(
        model="shake_resnet14_2x16d",
        train_size=2000,
        epochs=100,
        eval_every=10,
        checkpoint_interval_s=120.0,
        precision="auto",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "table4"}, "table: 'table4' is not known \\(did you mean table3"),
        ({"name": "table1", "scale": "tiny"}, "scale: 'tiny' is not known"),
        ({"name": "table1", "rows": ("S-S-X",)}, "rows: table1 has no 'S-S-X'"),
        ({"name": "table1", "overrides": {"rule": "S-S-I"}}, "rule: with 'S-S-I' for all, E-E-B"),
        ({"name": "table1", "overrides": {"seed": 3}}, "seed: a table has several"),
        ({"name": "table1", "overrides": {"epochs": 0}}, "epochs: got 0"),
        ({"name": "table1", "seeds": 0}, "seeds: got 0"),
        ({"name": "table1", "engine": "slurm"}, "engine: got 'slurm'"),
        ({"name": "table1", "address": "somewhere:1"}, "address: got 'somewhere:1' with --engine local"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(options, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        plan_reproduction(**options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
