"""Declaring experiments: named cells, seeds per cell, experiments of a fixed size."""

from dataclasses import replace

import numpy as np
import pytest

from shakeshake.errors import InputError
from shakeshake.experiments import scales, tables
from shakeshake.experiments.format import format_table
from shakeshake.experiments.paper import EXPERIMENTS
from shakeshake.experiments.plan import Plan, plan_reproduction
from shakeshake.experiments.schema import Table, TableCell, TableColumn, TableRow, TableRun
from shakeshake.experiments.spec import Cell, Experiment
from shakeshake.experiments.statistics import difference
from shakeshake.train.recipe import Recipe

PLAIN = Recipe(data="digits", model="shake_resnet8_2x4d", flip=False, crop_padding=0, epochs=3)
COLUMNS = {"plain": {}, "decay": {"weight_decay": 1e-3}, "few": {"train_size": 100}}


def declare(**changes) -> Experiment:
    cells = [
        Cell(rule, column, PLAIN.replace(rule=rule, **fields), name=f"study-{column}-{rule}")
        for column, fields in COLUMNS.items()
        for rule in ("E-E-B", "S-S-I")
    ]
    experiment = Experiment(
        name="study",
        title="A study",
        kind="table",
        rows={"E-E-B": "Even-Even", "S-S-I": "Shake-Shake-Image"},
        columns={column: column for column in COLUMNS},
        cells=tuple(cells),
        baseline="E-E-B",
        fixed_size=True,
    )
    return replace(experiment, **changes)


def test_cells_with_other_recipes_in_one_folder_are_refused():
    cells = tuple(replace(cell, name=None) for cell in declare().cells)
    with pytest.raises(
        InputError, match=r"E-E-B \(plain\) and E-E-B \(decay\) of study have different recipes and the"
    ):
        declare(cells=cells)
    with pytest.raises(InputError, match=r"name: got 'a/b'"):
        Cell("E-E-B", "plain", PLAIN, name="a/b")


def test_a_cell_may_have_its_own_number_of_seeds_or_its_own_seeds(tmp_path):
    first, second, *others = declare().cells
    experiment = declare(cells=(replace(first, seeds=1), replace(second, seeds=range(20, 22)), *others), seeds=1)
    names = [path.name for path in Plan(experiment, tmp_path, "small").runs()]
    assert names[:2] == ["study-plain-E-E-B-seed0", "study-plain-S-S-I-seed20"]
    assert names[-1] == "study-plain-S-S-I-seed21", "one run of every cell after the other"
    assert len(names) == 7
    assert list(experiment.seeds_of(experiment.cells[1], 3)) == [20, 21, 22]
    found = tables.collect(experiment, tmp_path, None, "small")
    assert found.seeds == (0, 20, 21)
    assert found.cells[1].missing == (20, 21)


def test_scales_do_not_change_recipes_of_a_fixed_size(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "study", declare)
    assert scales.get_experiment("study", "small") == scales.get_experiment("study", "paper") == declare()
    smoke = scales.get_experiment("study", "smoke")
    assert {cell.recipe.epochs for cell in smoke.cells} == {1}
    assert {(cell.row, cell.column) for cell in smoke.cells} == {(cell.row, cell.column) for cell in declare().cells}
    assert len({cell.folder_name for cell in smoke.cells}) == len(smoke.cells)
    assert smoke.cells[2].recipe.weight_decay == 1e-3


def test_a_field_in_which_cells_differ_cannot_be_the_same_for_all(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "study", declare)
    with pytest.raises(InputError, match=r"weight_decay: with 0.001 for all, E-E-B \(plain\) and E-E-B \(decay\)"):
        plan_reproduction("study", overrides={"weight_decay": 1e-3})
    assert plan_reproduction("study", overrides={"epochs": 5}).experiment.cells[0].recipe.epochs == 5


def test_a_paired_experiment_is_read_by_its_pairs():
    rates = np.linspace(0.2, 0.4, 8)
    row = {i: np.arange(1000) < 1000 * (rate + 0.002 * (i % 2)) for i, rate in enumerate(rates)}
    baseline = {i: np.arange(1000) < 1000 * (rate + 0.02) for i, rate in enumerate(rates)}
    found = replace(difference(row, baseline), row="S-S-I", baseline="E-E-B", column="plain")
    independent = tables.describe_difference(declare(), found)
    assert "over seeds and test images: no significant difference (of " in independent
    assert f"About {found.seeds_needed} seeds of each would show a difference of one point." in independent
    paired = tables.describe_difference(declare(paired=True), found)
    assert paired.startswith("S-S-I against E-E-B (plain): -1.9")
    assert paired.endswith("over 8 pairs of equal seeds: a lower error.")


def test_every_line_of_a_table_at_the_smoke_scale_says_not_meaningful():
    runs = (TableRun(seed=0, last_error=80.0),)
    table = Table(
        "table1",
        (TableCell("E-E-B", "8 2x4d", published=4.27, runs=runs, n=1, mean=80.0),),
        scale="smoke",
        rows=(TableRow("E-E-B", "Even-Even"),),
        columns=(TableColumn("8 2x4d", "8 2x4d"),),
    )
    marked = {meaningful: list(format_table(replace(table, meaningful=meaningful))) for meaningful in (True, False)}
    assert [line.count("not meaningful") for line in marked[False] if "80.00" in line] == [1]
    assert not any("not meaningful" in line for line in marked[True])
