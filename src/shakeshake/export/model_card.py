"""The model card: README.md in the layout of the Hugging Face hub, with its metadata as YAML. Names are escaped."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..train.open_run import TrainedRun
from ..train.recipe import Recipe
from ..utils.console import escape, escape_line_breaks

CARD = "README.md"
HUB_DATA = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
_SHOWN_CLASSES = 100
_HOUSEKEEPING = ("data_dir", "checkpoint_interval_s", "device", "eval_every")


@dataclass(frozen=True)
class Measured:
    """Over the test images: error in %, expected calibration errors as fractions, without the temperature and with."""

    error: float
    images: int
    ece: float
    ece_calibrated: float


def check_licence(licence: str) -> str:
    """An identifier such as mit, apache-2.0, cc-by-4.0, other. Raises InputError for what can be none."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", licence):
        raise InputError(
            f"licence: got {licence!r}, expected an identifier such as mit, apache-2.0, cc-by-4.0 or other"
        )
    return licence


def model_card(opened: TrainedRun, config: dict[str, Any], measured: Measured, licence: str) -> str:
    """The card of a finished run: data, recipe, errors, calibration, licence, citation."""
    recipe, data = opened.recipe, opened.data
    name = _data_name(recipe)
    result = opened.run.result()
    title = f"{recipe.model} on {name}"
    return f"""---
{_metadata(recipe, name, title, measured, licence)}
---

# {_plain(title)}

An image classifier of {len(data.classes)} classes, trained with Shake-Shake regularization
([X. Gastaldi, 2017](https://arxiv.org/abs/1705.07485)), rule {_plain(recipe.rule)}, by the package `shakeshake`.

```python
import shakeshake as ss

model = ss.load("path/of/this/folder")  # or ss.from_pretrained("user/name")
probabilities = model.predict(images)  # uint8, (N, {data.channels}, {data.image_size}, {data.image_size})
```

`shakeshake predict path/of/this/folder photo.jpg` does the same for files: the square in the middle of the upright
image, resized to {data.image_size} x {data.image_size} pixels.

## Classes

{_classes(data.classes)}

## Data

{_plain(name)}: {len(data.train.labels):,} training images, {measured.images:,} test images, {data.image_size} x \
{data.image_size} pixels, {"colour" if data.channels == 3 else "grey"}. Fingerprint `{html.escape(data.fingerprint)}`.

## Errors

| | |
|---|---|
| test error | {measured.error:.2f} % of {measured.images:,} images |
| training error, as it was seen (augmented, shaken) | {result.last_train_error:.2f} % |
| epochs | {result.epochs:,} |
| parameters | {result.parameters:,} |

The error is that of the last epoch. Images that differ from those above in kind (other cameras, other framing, classes
that are not in the list) were not measured; the network names one of its classes for any image.

## Calibration

{_calibration(config, measured)}

## Recipe

| | |
|---|---|
{_recipe(recipe)}

## Licence

{_licence(licence)}

## Citation

```bibtex
@article{{gastaldi2017shake,
  title   = {{Shake-Shake regularization}},
  author  = {{Gastaldi, Xavier}},
  journal = {{arXiv preprint arXiv:1705.07485}},
  year    = {{2017}}
}}
```
"""


def plain_card(config: dict[str, Any]) -> str:
    """The card of a model of which no more is known than its config."""
    classes = _classes(tuple(config["classes"]))
    head = "library_name: shakeshake\npipeline_tag: image-classification\ntags:\n- shakeshake\n- shake-shake"
    return f"---\n{head}\n---\n\n# {_plain(config['model'])}\n\nAn image classifier. Classes: {classes}.\n"


def _data_name(recipe: Recipe) -> str:
    """The data set's name; of a path its last part, for the rest is nobody's business."""
    return escape(Path(recipe.data).stem or "images")


def _metadata(recipe: Recipe, name: str, title: str, measured: Measured, licence: str) -> str:
    """The YAML between the lines; strings as JSON, which YAML is a superset of."""
    known = HUB_DATA.get(recipe.data)
    lines = [
        "library_name: shakeshake",
        "pipeline_tag: image-classification",
        f"license: {_yaml(check_licence(licence))}",
        "tags:",
        "- shakeshake",
        "- shake-shake",
        "- image-classification",
        *(["datasets:", f"- {known}"] if known else []),
        "metrics:",
        "- accuracy",
        "model-index:",
        f"- name: {_yaml(title)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {_yaml(name)}",
        f"      type: {_yaml(known or 'image-folder')}",
        "      split: test",
        "    metrics:",
        "    - type: accuracy",
        f"      value: {round(1 - measured.error / 100, 6)}",
        "    - type: expected_calibration_error",
        f"      value: {round(measured.ece_calibrated, 6)}",
    ]
    return "\n".join(lines)


def _yaml(text: str) -> str:
    """ASCII alone: YAML reads JSON's escapes, but not its pairs of surrogates."""
    return json.dumps(text.encode("ascii", "replace").decode())


def _plain(text: str) -> str:
    """Text in which Markdown and HTML find nothing of theirs."""
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", html.escape(escape_line_breaks(text), quote=False))


def _classes(classes: tuple[str, ...]) -> str:
    listed = ", ".join(_plain(name) for name in classes[:_SHOWN_CLASSES])
    return listed + (
        f" and {len(classes) - _SHOWN_CLASSES} more (config.json)" if len(classes) > _SHOWN_CLASSES else ""
    )


def _calibration(config: dict[str, Any], measured: Measured) -> str:
    fitted = config.get("calibration")
    before = f"Expected calibration error over the test images: {100 * measured.ece:.1f} points"
    if not fitted:
        return f"{before}. No temperature was fitted."
    split = "validation" if fitted["split"] == "val" else "test"
    how = (
        "there was no validation split, so that with the temperature is cross-fitted, each image by the temperature "
        "of others"
        if split == "test"
        else "the test images had no part in it"
    )
    return (
        f"Logits are divided by a temperature of {config['temperature']:.3f}, fitted to {fitted['images']:,} {split} "
        f"images. {before} without it, {100 * measured.ece_calibrated:.1f} points with it; {how}."
    )


def _recipe(recipe: Recipe) -> str:
    fields = {k: v for k, v in recipe.to_dict().items() if k not in _HOUSEKEEPING}
    fields["data"] = _data_name(recipe)
    if fields.get("init"):
        fields["init"] = escape(Path(fields["init"]).name)
    return "\n".join(f"| {key} | {_plain(str(value))} |" for key, value in fields.items())


def _licence(licence: str) -> str:
    if licence == "unknown":
        return (
            "Not stated: who trained it has not said under which terms it may be used (`shakeshake export --licence`)."
        )
    return f"{_plain(licence)}, as stated by who exported it. The images have terms of their own."
