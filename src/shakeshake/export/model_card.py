"""The model card: README.md for the Hugging Face hub, with its metadata as YAML and all names escaped."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..layers.rules import NO_RULE
from ..models.origin import Origin
from ..train.open_run import TrainedRun
from ..train.recipe import Recipe
from ..utils.console import escape, escape_line_breaks

CARD = "README.md"
HUB_DATA = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
_SHOWN_CLASSES = 100
_HOUSEKEEPING = ("data_dir", "checkpoint_interval_s", "device", "eval_every")


@dataclass(frozen=True)
class Measured:
    """Measured over the test images.

    Attributes:
        error: Test error in %.
        images: Number of test images.
        ece, ece_calibrated: Expected calibration error without and with the temperature, from 0 to 1.
    """

    error: float
    images: int
    ece: float
    ece_calibrated: float


def check_licence(licence: str) -> None:
    """Raise InputError unless this is an identifier such as mit, apache-2.0, cc-by-4.0 or other."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", licence):
        raise InputError(
            f"licence: got {licence!r}, expected an identifier such as mit, apache-2.0, cc-by-4.0 or other"
        )


def model_card(run: TrainedRun, config: dict[str, Any], measured: Measured, licence: str) -> str:
    """Write the card of a finished run: data, errors, calibration, recipe, licence, citation."""
    recipe, data = run.recipe, run.data
    name = _data_name(recipe)
    result = run.run.result()
    title = f"{config['model']} on {name}"
    origin = Origin.from_dict(config["origin"]) if "origin" in config else None
    return f"""---
{_metadata(recipe, name, title, measured, licence, origin)}
---

# {_escape_markdown(title)}

An image classifier with {len(data.classes)} classes, trained with the package `shakeshake`
{_method(recipe)}.{_origin(origin)}

```python
import shakeshake as ss

model = ss.load("path/to/this/folder")  # or ss.from_pretrained("user/name")
probabilities = model.predict(images)  # uint8, (N, {data.channels}, {data.image_size}, {data.image_size})
```

`shakeshake predict path/to/this/folder photo.jpg` reads image files. It rotates them upright as their EXIF data says,
crops the central square and resizes it to {data.image_size} x {data.image_size} pixels.

## Classes

{_classes(data.classes)}

## Data

{_escape_markdown(name)}: {len(data.train.labels):,} training images, {measured.images:,} test images, \
{data.image_size} x {data.image_size} pixels, {"colour" if data.channels == 3 else "grey"}. Fingerprint \
`{html.escape(data.fingerprint)}`.

## Errors

| | |
|---|---|
| test error | {measured.error:.2f} % of {measured.images:,} images |
| training error, measured during training | {result.last_train_error:.2f} % |
| epochs | {result.epochs:,} |
| parameters | {result.parameters:,} |

The errors are those of the last epoch. The model was not tested on images from other sources (other cameras or
framing), and it predicts one of its classes for every image, including images of none of them.

## Calibration

{_calibration(config, measured)}

## Recipe

| | |
|---|---|
{_recipe(recipe, config)}

## Licence

{_licence(licence, origin)}

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


def minimal_card(config: dict[str, Any]) -> str:
    """Write the card of a model without a run, from its config."""
    classes = _classes(tuple(config["classes"]))
    head = "library_name: shakeshake\npipeline_tag: image-classification\ntags:\n- shakeshake\n- shake-shake"
    return f"---\n{head}\n---\n\n# {_escape_markdown(config['model'])}\n\nAn image classifier. Classes: {classes}.\n"


def _method(recipe: Recipe) -> str:
    if recipe.rule == NO_RULE:
        return "without Shake-Shake regularization"
    paper = "[X. Gastaldi, 2017](https://arxiv.org/abs/1705.07485)"
    return f"and Shake-Shake regularization ({paper}), rule {_escape_markdown(recipe.rule)}"


def _origin(origin: Origin | None) -> str:
    """Where the network comes from, in a sentence."""
    if origin is None:
        return ""
    name, commit = _escape_markdown(origin.name), f", commit {origin.revision}" if origin.revision else ""
    if not origin.pretrained:
        return f"\nThe architecture is that of {name} ({origin.library}{commit})."
    return f"\nTraining started from the weights of {name} ({origin.library}{commit}), with a new last layer."


def _data_name(recipe: Recipe) -> str:
    """The name of the data set; of a path the base name only, to avoid leaking paths."""
    return escape(Path(recipe.data).stem or "images")


def _metadata(recipe: Recipe, name: str, title: str, measured: Measured, licence: str, origin: Origin | None) -> str:
    """The YAML between the dashes. Strings are written as JSON, which is valid YAML."""
    in_hub = origin is not None and origin.pretrained and (origin.revision or origin.library == "timm")
    base = f"base_model: {_yaml(origin.name.removeprefix('hf/'))}\n" if origin is not None and in_hub else ""
    known = HUB_DATA.get(recipe.data)
    datasets = f"datasets:\n- {known}\n" if known else ""
    return f"""library_name: shakeshake
pipeline_tag: image-classification
license: {_yaml(licence)}
{base}tags:
- shakeshake
- shake-shake
- image-classification
{datasets}metrics:
- accuracy
model-index:
- name: {_yaml(title)}
  results:
  - task:
      type: image-classification
    dataset:
      name: {_yaml(name)}
      type: {_yaml(known or "image-folder")}
      split: test
    metrics:
    - type: accuracy
      value: {round(1 - measured.error / 100, 6)}
    - type: expected_calibration_error
      value: {round(measured.ece_calibrated, 6)}"""


def _yaml(text: str) -> str:
    """ASCII only: YAML reads JSON's escapes, but not its surrogate pairs."""
    return json.dumps(text.encode("ascii", "replace").decode())


def _escape_markdown(text: str) -> str:
    """Escape Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", html.escape(escape_line_breaks(text), quote=False))


def _classes(classes: tuple[str, ...]) -> str:
    listed = ", ".join(_escape_markdown(name) for name in classes[:_SHOWN_CLASSES])
    more = len(classes) - _SHOWN_CLASSES
    return f"{listed} and {more} more (config.json)" if more > 0 else listed


def _calibration(config: dict[str, Any], measured: Measured) -> str:
    fitted = config.get("calibration")
    before = f"Expected calibration error over the test images: {100 * measured.ece:.1f} percentage points"
    if not fitted:
        return f"{before}. No temperature was fitted."
    split, how = "validation", "The test images were not used to fit it."
    if fitted["split"] != "val":
        split, how = (
            "test",
            "The latter is cross-fitted: each image is judged with a temperature fitted to other images.",
        )
    return (
        f"Logits are divided by a temperature of {config['temperature']:.3f}, fitted to {fitted['images']:,} {split} "
        f"images. {before} without it, {100 * measured.ece_calibrated:.1f} with it. {how}"
    )


def _recipe(recipe: Recipe, config: dict[str, Any]) -> str:
    fields = {k: v for k, v in recipe.to_dict().items() if k not in _HOUSEKEEPING}
    fields |= {"data": _data_name(recipe), "model": config["model"]}
    if fields.get("init"):
        fields["init"] = escape(Path(fields["init"]).name)
    return "\n".join(f"| {key} | {_escape_markdown(str(value))} |" for key, value in fields.items())


def _licence(licence: str, origin: Origin | None) -> str:
    started = ""
    if origin is not None and origin.pretrained:
        started = f" The weights that training started from: {_escape_markdown(origin.licence)}, as their source says."
    if licence == "unknown":
        text = "Not stated. Ask the author before you use the model. (`shakeshake export --licence` states one.)"
        return text + started
    stated = "as stated by the person who exported the model"
    return f"{_escape_markdown(licence)}, {stated}. The training images may have other terms.{started}"
