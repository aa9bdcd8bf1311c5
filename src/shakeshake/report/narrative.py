"""A summary of the runs in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from .format import percent, points, value, value_or_absent
from .runs import HOUSEKEEPING, RunRecord

ONE_SEED = "Each result comes from a single seed: differences within the variation between seeds are not significant."


def sentences(runs: Sequence[RunRecord]) -> list[str]:
    """Describe what the runs show, and no more than that."""
    if len(runs) == 1:
        return _one_run(runs[0])
    finished = sorted(
        (run for run in runs if run.finished and run.last_error is not None), key=lambda run: run.last_error or 0
    )
    if len(finished) < 2:
        return ["Fewer than two runs are finished, so there is nothing to compare yet. The charts show their progress."]
    differing = _differing_fields(finished)
    if len(finished) == len(runs) == 2 and differing == ["rule"]:
        return _two_rules(*finished)
    low, high = finished[0], finished[-1]
    found = [
        f"All {len(finished)} finished runs have the same test error in the last epoch, {percent(low.last_error)}."
        if low.last_error == high.last_error
        else f"Of {len(finished)} finished runs, {low.short} has the lowest test error in the last epoch, "
        f"{percent(low.last_error)}, and {high.short} the highest, {percent(high.last_error)}."
    ]
    gaps = sorted((run for run in finished if run.gap is not None), key=lambda run: run.gap or 0)
    if len(gaps) > 1:
        found.append(
            f"The gap between test and train error is between {points(gaps[0].gap)} ({gaps[0].short}) and "
            f"{points(gaps[-1].gap)} ({gaps[-1].short})."
        )
    if len(finished) < len(runs):
        found.append("Unfinished runs are left out of this comparison.")
    if not all(run.recipe for run in finished):
        return [*found, "Some recipes could not be read, so it is unknown in what these runs differ."]
    if "seed" in differing and set(differing) <= {"rule", "seed"}:
        return [*found, _by_rule(finished), "Differences within the variation between seeds are not significant."]
    if len(differing) == 1:
        found.append(f"The runs differ only in {differing[0]}.")
    elif differing:
        found.append(f"The runs differ in {_listed(differing)}, so no difference can be attributed to one of them.")
    return [*found, ONE_SEED]


def _one_run(run: RunRecord) -> list[str]:
    if run.last_error is None:
        return ["This run has no test error yet."]
    when = "in its last epoch" if run.finished else f"so far, after {run.last_tested} epochs"
    over = f", on {run.result.test_images:,} test images" if run.result else ""
    found = [f"{run.short} has a test error of {percent(run.last_error)} {when}{over}."]
    if run.balanced_error is not None:
        found.append(
            f"The balanced error, in which every class counts the same however few its images, is "
            f"{percent(run.balanced_error)}."
        )
    if run.gap is not None:
        shaken = " and shaken branches" if run.rule.startswith("S-") else ""
        how = "without augmentation" if run.recipe.get("mixup_alpha") else f"with augmentation{shaken}"
        found.append(
            f"The error on the training images, {how}, is {percent(run.train_error)}: a gap of {points(run.gap)}."
        )
    return [*found, "This is a single seed; another one would end slightly higher or lower."]


def _two_rules(low: RunRecord, high: RunRecord) -> list[str]:
    """Two finished runs that differ only in the rule; ``low`` has the lower test error."""
    difference = (high.last_error or 0) - (low.last_error or 0)
    opening = "The two runs differ only in the rule."
    if difference == 0:
        found = [f"{opening} Both have a test error of {percent(low.last_error)} in the last epoch."]
    else:
        counted = ""
        if low.result:
            images = round(difference * low.result.test_images / 100)
            counted = f", {images:,} of {low.result.test_images:,} test images"
        found = [
            f"{opening} In the last epoch, the test error is {points(difference)} lower with {low.rule} than with "
            f"{high.rule} ({percent(low.last_error)} against {percent(high.last_error)}{counted})."
        ]
    if low.gap is not None and high.gap is not None:
        found.append(
            f"The gap between test and train error is {points(low.gap)} with {low.rule} and {points(high.gap)} with "
            f"{high.rule}."
        )
    return [*found, f"{ONE_SEED} Repeat both with other seeds."]


def _by_rule(runs: Sequence[RunRecord]) -> str:
    """Mean and range over the seeds of each rule."""
    errors: dict[str, list[float]] = {}
    for run in runs:
        errors.setdefault(value_or_absent(run.recipe.get("rule")), []).append(run.last_error or 0)
    means = [
        f"{rule} {percent(fmean(found))} on average over {len(found)} seeds ({min(found):.2f} to {max(found):.2f} %)"
        if len(found) > 1
        else f"{rule} {percent(found[0])} with one seed"
        for rule, found in errors.items()
    ]
    return f"The runs differ only in rule and seed: {'; '.join(means)}."


def _differing_fields(runs: Sequence[RunRecord]) -> list[str]:
    """Recipe fields with different values; also "data" if the same name stood for different images."""
    fields = dict.fromkeys(name for run in runs for name in run.recipe if name not in HOUSEKEEPING)
    differing = [name for name in fields if len({value(run.recipe.get(name)) for run in runs}) > 1]
    for name, meaning in (("data_fingerprint", "data"), ("precision", "precision")):
        if len({value(run.fields[name]) for run in runs if name in run.fields}) > 1 and meaning not in differing:
            differing.append(meaning)
    return differing


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:5], *(["more"] if len(words) > 5 else [])]
    return ", ".join(shown[:-1]) + " and " + shown[-1]
