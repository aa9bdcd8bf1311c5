"""The declarations against the paper: every published figure and its recipe, and what a scale may change of it."""

import csv

import pytest

from shakeshake.errors import InputError
from shakeshake.experiments import tables as results
from shakeshake.experiments.compare import comparison as own_experiment
from shakeshake.experiments.paper import EXPERIMENTS
from shakeshake.experiments.run import Plan
from shakeshake.experiments.scales import SCALES, experiment
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


def test_table_1_is_the_papers():
    made = experiment("table1", "paper")
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


def test_a_published_figure_is_told_with_whose_it_is_and_a_run_with_its_fold(tmp_path):
    found = results.collect(experiment("table1", "paper"), tmp_path, 1, "paper")
    rows = {row["published"]: row["place"] for row in csv.DictReader(results.as_csv(found).splitlines())}
    assert (rows["2.82"], rows["2.86"]) == ("measured by the authors of AutoAugment", "Table 1")
    told = [line for line in results.as_lines(found) if "AutoAugment" in line]
    assert len(told) == 1
    assert "2.82" in told[0]
    folded = own_experiment(Recipe(), ["S-S-I"], seeds=2, folds=3)
    rows = list(csv.DictReader(results.as_csv(results.collect(folded, tmp_path, 2, "own")).splitlines()))
    assert [(int(row["seed"]), int(row["fold"])) for row in rows[:6]] == folded.runs(2)


def test_the_other_tables_print_only_what_is_verified():
    published = {
        name: {(c.row, c.column): c.published for c in experiment(name, "paper").cells if c.published is not None}
        for name in EXPERIMENTS
    }
    assert published["table2"] == {("E-E-B", "29 2x4x64d"): 16.34, ("S-E-I", "29 2x4x64d"): 15.85}
    assert published["table3"] == {
        ("resnext29_16x64d", "cifar10"): 3.58,
        ("densenet_bc190_40", "cifar10"): 3.46,
        ("shake_resnet26_2x96d", "cifar10"): 2.86,
        ("shake_resnext29_2x4x64d", "cifar100"): 15.85,
    }
    assert published["architectures"] == {}
    assert {row: error for (row, _), error in published["strength"].items()} == {
        "S-K-I": 4.09,
        "S-E-I": 3.47,
        "S-S-I": 3.55,
    }
    shaken = next(c for c in experiment("table2", "paper").cells if c.row == "S-E-I")
    assert shaken.recipe == paper_cifar100()


def test_architecture_c_is_trained_as_the_paper_says():
    cells = {(c.row, c.column): c.recipe for c in experiment("architectures", "paper").cells}
    for row in ("S-E-I", "S-S-I"):
        assert cells[row, "C"].rule == f"{row}[0.4,0.6]"
        assert cells[row, "A"].rule == cells[row, "B"].rule == row
    c = cells["S-E-I", "C"]
    assert (c.model, c.first_epoch_lr, c.lr) == ("shake_resnet14_2x32d_c", 0.025, 0.05)


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_is_valid_and_a_name_stands_for_one_recipe(scale):
    """Tables of one scale share their cells' folders."""
    recipes = {}
    for name in EXPERIMENTS:
        made = experiment(name, scale)
        assert made.cells
        for cell in made.cells:
            assert recipes.setdefault(cell.name, cell.recipe) == cell.recipe, cell.name
            assert cell.row in made.rows
            assert cell.column in made.columns
            if scale != "smoke":
                assert cell.name == cell.recipe.data + "-" + cell.name.split("-", 1)[1]


def test_the_small_scale_keeps_the_recipe_but_for_its_size():
    (paper,) = (c.recipe for c in experiment("correlation", "paper").cells if c.row == "S-S-I")
    (small,) = (c.recipe for c in experiment("correlation", "small").cells if c.row == "S-S-I")
    one_device = paper.replace(batch_size=64, lr=0.1)  # the author's variant
    assert small == one_device.replace(
        model="shake_resnet14_2x16d", train_size=2000, epochs=100, eval_every=10, checkpoint_interval_s=120.0
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
        ({"name": "table1", "address": "somewhere:1"}, "address: got 'somewhere:1' for the engine local"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(options, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        Plan(**options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
