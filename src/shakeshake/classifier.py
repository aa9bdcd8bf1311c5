"""ShakeShakeClassifier, a scikit-learn estimator."""

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

_FIT_LOCK = threading.Lock()  # training uses torch's global generators, which all threads share
_DATA_FIELDS = {"data", "data_dir", "train_size", "folds", "fold", "image_size", "split_seed"}
_SUGGESTED = ("model", "rule", "epochs", "batch_size", "lr")  # parameters whose default depends on the data


class ShakeShakeClassifier(ClassifierMixin, BaseEstimator):
    """Image classifier for ``cross_val_score``, ``GridSearchCV`` and other scikit-learn tools.

    X is an array of images (n, h, w) or (n, h, w, 3), up to 224 x 224, or of rows (n, d). uint8 values are used
    unchanged. Other values are scaled to 0-255, from [0, 1] if float training values lie in it, else from their range,
    and clipped in prediction. Images are padded with black to squares of at least 8 x 8. Rows are filled into the
    smallest square, without flips and crops, so pass images as such if you can.

    Args:
        model, rule, epochs, batch_size, lr: As in ``Recipe``. None chooses a value from the number and size of the
            images, as ``shakeshake train --budget none`` does. ``batch_size`` is limited to the number of images.
        random_state: Seed. With an integer, repeated fits give identical weights.
        device: auto, cpu, cuda, cuda:N or mps.
        out: Folder for the run directories ``fit-1``, ``fit-2``, ... By default they are deleted.
        fields: More fields of the recipe, such as ``{"mixup_alpha": 0.2, "balance": "weight"}``.

    Attributes:
        classes_: Sorted labels.
        model_: The ``TrainedModel``.
        n_features_in_: Length of a row, or height of an image (scikit-learn's convention).
        image_shape_: Shape of one sample.
        recipe_: The ``Recipe``.
        result_: The ``FitResult``.
        run_: The run directory, or None.
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
        """Train a network. The state of torch's global generators is preserved.

        Args:
            X: Images (n, h, w) or (n, h, w, 3), or rows (n, d).
            y: Labels (n,).
            eval_set: (X, y) for evaluation during training and for calibration. By default the network is evaluated on
                the training images and not calibrated.

        Raises:
            InputError: An argument is invalid (a ValueError).
        """
        X, y = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y: got one class, {self.classes_.tolist()[0]!r}, expected at least two")
        self.image_shape_ = _check_shape(X)
        self.dtype_, self.scale_ = X.dtype, _scale(X)
        data = self._data(X, labels, eval_set)
        recipe = self._recipe(data, rows=X.ndim == 2, has_eval_set=eval_set is not None)
        devices = [choose_device(self.device)] if choose_device(self.device).type == "cuda" else []
        with _FIT_LOCK, torch.random.fork_rng(devices), _run_folder(self.out) as run:
            self.result_ = fit(recipe, run, data=data, quiet=True)
            self.model_: TrainedModel = load(run, choose_device(self.device))
        self.recipe_, self.run_ = recipe, None if self.out is None else run
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, classes), in the order of ``classes_``."""
        images = self._images(X)
        device = next(self.model_.parameters()).device
        batches = [torch.from_numpy(images[at : at + 256]).to(device) for at in range(0, len(images), 256)]
        return torch.cat([self.model_.predict(batch) for batch in batches]).double().cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each sample (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _data(self, X: np.ndarray, labels: np.ndarray, eval_set: tuple[Any, Any] | None) -> ImageData:
        images = _to_squares(X, self.scale_)
        names = [str(name) for name in self.classes_.tolist()]
        names = names if len(set(names)) == len(names) and all(map(str.strip, names)) else None  # type: ignore[assignment]
        if eval_set is None:
            return from_arrays(images, labels, images, labels, names, name="training images, tested on themselves")
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            raise InputError(f"eval_set: got a {type(eval_set).__name__}, expected a pair (X, y)")
        X_eval, y = eval_set
        known = {label: number for number, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in np.unique(y).tolist() if label not in known]
        if unknown:
            raise InputError(f"eval_set: got the label {unknown[0]!r}, expected labels that are in y")
        test = self._images(X_eval, fitted=False)
        return from_arrays(images, labels, test, [known[k] for k in np.asarray(y).tolist()], names)  # type: ignore[arg-type]

    def _images(self, X: Any, fitted: bool = True) -> np.ndarray:
        if fitted:
            check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        if X.shape[1:] != self.image_shape_:
            raise InputError(f"X: got samples of shape {X.shape[1:]}, expected {self.image_shape_} as in fit()")
        if np.uint8 in (X.dtype, self.dtype_) and (X.dtype.kind == "f") != (self.dtype_.kind == "f"):
            raise InputError(f"X: got {X.dtype}, expected {self.dtype_} as in fit(), since their value ranges differ")
        return _to_squares(X, self.scale_)

    def _recipe(self, data: ImageData, rows: bool, has_eval_set: bool) -> Recipe:
        """The user's parameters, completed as by ``shakeshake train``."""
        overrides = {name: getattr(self, name) for name in _SUGGESTED if getattr(self, name) is not None}
        overrides |= {"device": self.device, "seed": int(check_random_state(self.random_state).randint(2**31 - 1))}
        if rows:
            overrides |= {"flip": False, "crop_padding": 0}
        if not isinstance(self.fields, Mapping | None):
            raise InputError(f"fields: got a {type(self.fields).__name__}, expected a dict of recipe fields")
        for name in sorted(_DATA_FIELDS & set(self.fields or {})):
            raise InputError(f"fields: got {name}, expected no fields about data, which comes from X")
        overrides |= dict(self.fields or {})
        images = len(data.train)
        if isinstance(overrides.get("batch_size"), int | np.integer):
            overrides["batch_size"] = min(int(overrides["batch_size"]), images)
        overrides = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in overrides.items()
        }
        recipe, _ = suggest_recipe(data.name, DatasetStats.of(data), overrides, None, None)
        return recipe if has_eval_set or "eval_every" in overrides else recipe.replace(eval_every=recipe.epochs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@contextlib.contextmanager
def _run_folder(out: str | Path | None) -> Iterator[Path]:
    """A new folder in ``out``, or a temporary one."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="shakeshake-") as folder:
            yield Path(folder)
        return
    yield new_numbered_dir(Path(out), "fit")


def _check_shape(X: np.ndarray) -> tuple[int, ...]:
    """The shape of one sample; InputError unless X has images or rows."""
    shape = X.shape[1:]
    if not (X.ndim in (2, 3) or (X.ndim == 4 and shape[2] in (1, 3))):
        raise InputError(f"X: got the shape {X.shape}, expected images (n, h, w) or (n, h, w, 3), or rows (n, d)")
    if _square_size(shape) > MAX_SIZE:
        raise InputError(f"X: got samples of shape {shape}, expected at most {MAX_SIZE} x {MAX_SIZE} pixels")
    return shape


def _square_size(shape: tuple[int, ...]) -> int:
    """Side of the padded square in pixels."""
    return max(MIN_SIZE, math.isqrt(shape[0] - 1) + 1 if len(shape) == 1 else max(shape[:2]))


def _scale(X: np.ndarray) -> tuple[float, float] | None:
    """The values that are scaled to 0 and 255, or None for uint8."""
    if X.dtype == np.uint8:
        return None
    low, high = float(X.min()), float(X.max())
    if X.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def _to_squares(X: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """Convert samples to uint8 (n, C, size, size)."""
    low, high = scale or (0.0, 255.0)
    if X.dtype != np.uint8 or scale is not None:
        X = np.rint((X.astype(np.float64).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
    n, shape = len(X), X.shape[1:]
    size = _square_size(shape)
    if len(shape) == 1:
        width = math.isqrt(shape[0] - 1) + 1
        square = np.zeros((n, width * width), np.uint8)
        square[:, : shape[0]] = X
        X = square.reshape(n, width, width)
    X = X[..., None] if X.ndim == 3 else X
    top, left = (size - X.shape[1]) // 2, (size - X.shape[2]) // 2
    out = np.zeros((n, X.shape[3], size, size), np.uint8)
    out[:, :, top : top + X.shape[1], left : left + X.shape[2]] = X.transpose(0, 3, 1, 2)
    return out
