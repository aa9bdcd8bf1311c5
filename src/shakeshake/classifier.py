"""ShakeShakeClassifier: training and prediction behind scikit-learn's estimator interface."""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .data.dataset import MAX_SIZE, MIN_SIZE, ImageData, from_arrays
from .errors import InputError
from .models.model import TrainedModel, load
from .train.auto_config import DatasetStats, suggest_recipe
from .train.device import choose_device
from .train.fit import fit
from .train.recipe import Recipe
from .utils.files import new_numbered_dir

_ONE_AT_A_TIME = threading.Lock()  # a run draws from torch's global generators, which all threads share
_OF_DATA = {"data", "data_dir", "train_size", "folds", "fold", "image_size", "split_seed"}
_OPEN = ("model", "rule", "epochs", "batch_size", "lr")  # parameters that are picked where they are None


class ShakeShakeClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of images, for ``cross_val_score``, ``GridSearchCV`` and whatever else takes an estimator.

    X: images (n, h, w) or (n, h, w, 3), or rows (n, d). uint8 is taken as it is; of other numbers the smallest to the
    largest of the training images become 0 to 255 (where all lie in [0, 1], these do), in whole steps, and what lies
    beyond in prediction is cut off. Images that are not square, or smaller than 8 x 8, get a black margin; at most
    224 x 224. A row is written line by line into the smallest square that holds it, black behind its end. Of rows it
    is not known whether they are images, so they are neither mirrored nor shifted in training: better give images.

    model, rule, epochs, batch_size, lr: as in Recipe; None picks what ``shakeshake train`` picks without a budget, from
        the number and the size of the images. A batch_size of more than all images means all of them.
    random_state: seed of all that is random in a run; with an integer two fits end with the same weights.
    device: auto, cpu, cuda, cuda:1 or mps.
    out: folder in which every fit leaves a run directory of its own, ``fit-1`` and so on. None: nothing is kept.
    fields: more fields of a Recipe, such as ``{"mixup_alpha": 0.2, "balance": "weight"}``.

    After fit() there are ``classes_``, the labels that were seen, in order; ``model_``, the TrainedModel;
    ``n_features_in_``, the length of the rows (of images their height, by scikit-learn's convention) and
    ``image_shape_``, the shape of one; ``recipe_``, ``result_`` and ``run_``: the Recipe, what the run came to, and its
    directory where there is one. Without an eval_set the run's test images are the training images.
    """

    def __init__(
        self,
        model: str | None = None,
        rule: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        out: str | Path | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.rule, self.epochs, self.batch_size, self.lr = model, rule, epochs, batch_size, lr
        self.random_state, self.device, self.out, self.fields = random_state, device, out, fields

    def fit(self, X: Any, y: Any, eval_set: tuple[Any, Any] | None = None) -> ShakeShakeClassifier:
        """Train on all of X (n, ...) and the labels y (n,).

        eval_set: (X, y) that the run is tested on as it goes and that its probabilities are calibrated to; without it
        they are not. Raises InputError (a ValueError) for what cannot be trained on. torch's global generators are
        left as they were.
        """
        X, y = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y: got one class, {self.classes_.tolist()[0]!r}, expected at least two")
        self.image_shape_ = _checked_shape(X)
        self.dtype_, self.scale_ = X.dtype, _scale(X)
        data = self._data(X, labels, eval_set)
        recipe = self._recipe(data, rows=X.ndim == 2, tested=eval_set is not None)
        devices = [choose_device(self.device)] if choose_device(self.device).type == "cuda" else []
        with _ONE_AT_A_TIME, torch.random.fork_rng(devices), _run_folder(self.out) as run:
            self.result_ = fit(recipe, run, data=data, quiet=True)
            self.model_: TrainedModel = load(run, choose_device(self.device))
        self.recipe_, self.run_ = recipe, None if self.out is None else run
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities, in the order of ``classes_``."""
        images = self._images(X)
        device = next(self.model_.parameters()).device
        batches = [torch.from_numpy(images[at : at + 256]).to(device) for at in range(0, len(images), 256)]
        return torch.cat([self.model_.predict(batch) for batch in batches]).double().cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the most probable of ``classes_``."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _data(self, X: np.ndarray, labels: np.ndarray, eval_set: tuple[Any, Any] | None) -> ImageData:
        images = _squares(X, self.scale_)
        names = [str(name) for name in self.classes_.tolist()]
        names = names if len(set(names)) == len(names) and all(map(str.strip, names)) else None  # type: ignore[assignment]
        if eval_set is None:
            return from_arrays(images, labels, images, labels, names, name="training images, tested on themselves")
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            raise InputError(f"eval_set: got a {type(eval_set).__name__}, expected a pair (X, y)")
        tested, y = eval_set
        known = {label: number for number, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in np.unique(y).tolist() if label not in known]
        if unknown:
            raise InputError(f"eval_set: got the label {unknown[0]!r}, expected those of y")
        test = self._images(tested, fitted=False)
        return from_arrays(images, labels, test, [known[k] for k in np.asarray(y).tolist()], names)  # type: ignore[arg-type]

    def _images(self, X: Any, fitted: bool = True) -> np.ndarray:
        if fitted:
            check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        if X.shape[1:] != self.image_shape_:
            raise InputError(f"X: got samples of shape {X.shape[1:]}, expected {self.image_shape_} as in fit()")
        if np.uint8 in (X.dtype, self.dtype_) and (X.dtype.kind == "f") != (self.dtype_.kind == "f"):
            raise InputError(f"X: got {X.dtype}, expected {self.dtype_} as in fit(): the same grey is another number")
        return _squares(X, self.scale_)

    def _recipe(self, data: ImageData, rows: bool, tested: bool) -> Recipe:
        """The given parameters, and for the others what `shakeshake train` would pick."""
        typed = {name: getattr(self, name) for name in _OPEN if getattr(self, name) is not None}
        typed |= {"device": self.device, "seed": int(check_random_state(self.random_state).randint(2**31 - 1))}
        if rows:
            typed |= {"flip": False, "crop_padding": 0}
        if not isinstance(self.fields, Mapping | None):
            raise InputError(f"fields: got a {type(self.fields).__name__}, expected a dict of a recipe's fields")
        for name in sorted(_OF_DATA & set(self.fields or {})):
            raise InputError(f"fields: got {name}, which says where images come from; they are X here")
        typed |= dict(self.fields or {})
        images = len(data.train)
        if isinstance(typed.get("batch_size"), int | np.integer):
            typed["batch_size"] = min(int(typed["batch_size"]), images)
        typed = {name: value.item() if isinstance(value, np.generic) else value for name, value in typed.items()}
        recipe, _ = suggest_recipe(data.name, DatasetStats.of(data), typed, None, None)
        return recipe if tested or "eval_every" in typed else recipe.replace(eval_every=recipe.epochs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@contextlib.contextmanager
def _run_folder(out: str | Path | None) -> Iterator[Path]:
    """A new folder in ``out``, whoever else is making one there; without ``out`` one that goes away."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="shakeshake-") as folder:
            yield Path(folder)
        return
    yield new_numbered_dir(Path(out), "fit")


def _checked_shape(X: np.ndarray) -> tuple[int, ...]:
    """The shape of one sample. Raises InputError for what is neither images nor rows."""
    shape = X.shape[1:]
    if not (X.ndim in (2, 3) or (X.ndim == 4 and shape[2] in (1, 3))):
        raise InputError(f"X: got the shape {X.shape}, expected images (n, h, w) or (n, h, w, 3), or rows (n, d)")
    if _side(shape) > MAX_SIZE:
        raise InputError(f"X: got samples of shape {shape}, expected at most {MAX_SIZE} x {MAX_SIZE} pixels")
    return shape


def _side(shape: tuple[int, ...]) -> int:
    """Pixels of a side of the square that a sample is put into."""
    return max(MIN_SIZE, math.isqrt(shape[0] - 1) + 1 if len(shape) == 1 else max(shape[:2]))


def _scale(X: np.ndarray) -> tuple[float, float] | None:
    """What becomes 0 and what becomes 255; None for bytes."""
    if X.dtype == np.uint8:
        return None
    low, high = float(X.min()), float(X.max())
    if X.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def _squares(X: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """Samples as (n, C, side, side) uint8."""
    low, high = scale or (0.0, 255.0)
    if X.dtype != np.uint8 or scale is not None:
        X = np.rint((X.astype(np.float64).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
    n, shape = len(X), X.shape[1:]
    side = _side(shape)
    if len(shape) == 1:
        width = math.isqrt(shape[0] - 1) + 1
        square = np.zeros((n, width * width), np.uint8)
        square[:, : shape[0]] = X
        X = square.reshape(n, width, width)
    X = X[..., None] if X.ndim == 3 else X
    top, left = (side - X.shape[1]) // 2, (side - X.shape[2]) // 2
    out = np.zeros((n, X.shape[3], side, side), np.uint8)
    out[:, :, top : top + X.shape[1], left : left + X.shape[2]] = X.transpose(0, 3, 1, 2)
    return out
