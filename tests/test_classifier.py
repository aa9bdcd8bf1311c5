"""ShakeShakeClassifier passes scikit-learn's checks and trains like fit()."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import shakeshake as ss
from shakeshake.train.open_run import open_run

SMALL = {"fields": {"mixup_alpha": 0.0, "precision": "fp32"}, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    """(n, 8, 8) uint8 images and labels of scikit-learn's own kind: 5, 6, 7, ... as strings."""
    data = ss.load_data("digits")
    return data.train.images[:400, 0], np.array([f"no. {label}" for label in data.train.labels[:400]])


FLOAT32 = "its probabilities are float32, whose seventh digit depends on how many images are predicted at once"


@parametrize_with_checks(
    [ss.ShakeShakeClassifier("shake_resnet8_2x4d", "E-E-B", epochs=6, batch_size=32, lr=0.1, **SMALL)],
    expected_failed_checks=lambda estimator: {"check_methods_subset_invariance": FLOAT32},
)
def test_passes_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


def test_cross_validation_and_grid_search_work_on_images(digits):
    x, y = digits
    estimator = ss.ShakeShakeClassifier("shake_resnet8_2x8d", "S-E-I", epochs=15, **SMALL)
    scores = cross_val_score(estimator, x, y, cv=2)
    assert scores.min() > 0.5, scores  # a guess is 0.1
    search = GridSearchCV(estimator.set_params(epochs=2), {"rule": ["E-E-B", "S-S-I"], "lr": [0.05]}, cv=2).fit(x, y)
    assert search.best_params_["lr"] == 0.05
    assert search.best_estimator_.recipe_.rule == search.best_params_["rule"]


def test_estimator_trains_like_fit(digits, tmp_path):
    """Its run is an ordinary run with the images passed to fit, and model_ is its model."""
    x, y = digits
    x, y, x_test, y_test = x[:200], y[:200], x[200:], y[200:]
    before = torch.get_rng_state()
    estimator = ss.ShakeShakeClassifier("shake_resnet8_2x8d", epochs=3, batch_size=1000, out=tmp_path / "runs", **SMALL)
    estimator.fit(x, y, eval_set=(x_test, y_test))
    assert torch.equal(before, torch.get_rng_state())
    opened = open_run(estimator.run_)
    assert opened.recipe.batch_size == 200
    assert opened.data.classes == tuple(estimator.classes_) == tuple(f"no. {k}" for k in range(10))
    assert np.array_equal(opened.data.train.images[:, 0], x)
    assert np.array_equal(opened.data.test.images[:, 0], x_test)
    assert 100 * (1 - estimator.score(x_test, y_test)) == pytest.approx(estimator.result_.last_error)
    p = estimator.predict_proba(x_test)
    expected = ss.load(estimator.run_).predict(torch.from_numpy(x_test[:, None].copy())).numpy()
    assert np.allclose(p, expected, atol=1e-6)
    # A second fit gets a new folder and, with the same seed, the same weights; without eval_set it uses all images.
    again = clone(estimator).fit(x, y)
    assert again.run_ != estimator.run_
    assert estimator.model_.temperature != 1
    assert again.model_.temperature == 1
    weights = [fitted.model_.network.fc.weight for fitted in (estimator, again)]
    assert torch.equal(*weights)
    assert "themselves" in json.loads((again.run_ / "recipe.json").read_text())["data"]


def test_concurrent_fits_in_threads_match_a_single_fit(digits):
    x, y = digits
    estimator = ss.ShakeShakeClassifier("shake_resnet8_2x4d", "S-S-I", epochs=4, batch_size=10, **SMALL)
    alone = clone(estimator).fit(x[:100], y[:100]).predict_proba(x[100:120])
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: clone(estimator).fit(x[:100], y[:100]).predict_proba(x[100:120]), range(2)))
    assert np.array_equal(both[0], alone)
    assert np.array_equal(both[1], alone)


def test_arrays_are_scaled_and_padded_to_square_uint8_images():
    """Grey and colour images, rows of features, any value range and aspect ratio."""
    from shakeshake.classifier import _scale, _to_squares

    def shown(x, like=None):
        return _to_squares(x, _scale(x if like is None else like))

    photo = np.arange(2 * 10 * 8 * 3, dtype=np.uint8).reshape(2, 10, 8, 3)
    assert np.array_equal(shown(photo)[:, :, :, 1:9], photo.transpose(0, 3, 1, 2))
    assert shown(photo).shape == (2, 3, 10, 10)
    assert not shown(photo)[:, :, :, [0, 9]].any()
    assert np.array_equal(shown(photo / 255.0), shown(photo))
    digit = np.linspace(0, 16, 128).reshape(2, 8, 8)  # scikit-learn's digits go from 0 to 16
    assert np.array_equal(shown(digit), np.rint(digit * 255 / 16).astype(np.uint8)[:, None])
    assert shown(np.full((1, 8, 8), 99.0), like=digit).min() == 255
    assert np.array_equal(shown(digit.reshape(2, 64)), shown(digit))
    row = np.array([[-1.0, 0.0, 1.0, 0.0, 1.0], [1.0] * 5])
    middle = shown(row)[0, 0, 2:5, 2:5]
    assert middle.tolist() == [[0, 128, 255], [128, 255, 0], [0, 0, 0]]
    assert not shown(np.zeros((2, 8, 8))).any()


def test_invalid_arguments_raise_input_errors(digits, tmp_path):
    x, y = digits
    (tmp_path / "file").write_text("")
    ours = ss.ShakeShakeClassifier
    for estimator, message in [
        (ours(model="resnet"), "model"),
        (ours(epochs=0), "epochs: got 0"),
        (ours(device="abacus"), "device"),
        (ours(fields={"colour": 1}), "colour: not a field of a recipe"),
        (ours(fields=[1]), "fields: got a list, expected a dict"),
        (ours(fields={"train_size": 4}), "fields: got train_size, expected no fields about data"),
        (ours(out=tmp_path / "file"), "out: .*file cannot be written"),
        (ours(out=tmp_path / "file" / "runs"), "out: .*runs"),
    ]:
        with pytest.raises(ss.InputError, match=message):
            estimator.fit(x, y)
    with pytest.raises(ss.InputError, match="got one class"):
        ours().fit(x, ["a"] * len(x))
    with pytest.raises(ss.InputError, match=r"got the shape \(4, 8, 8, 2\), expected images"):
        ours().fit(np.zeros((4, 8, 8, 2)), [0, 1, 0, 1])
    with pytest.raises(ss.InputError, match="at most 224 x 224"):
        ours().fit(np.zeros((4, 225, 8)), [0, 1, 0, 1])
    trained = ours("shake_resnet8_2x4d", epochs=1, **SMALL).fit(x, y)
    with pytest.raises(ss.InputError, match=r"got float64, expected uint8 as in fit"):
        trained.predict(x / 255)
    with pytest.raises(ss.InputError, match=r"samples of shape \(8, 9\), expected \(8, 8\)"):
        trained.predict(np.zeros((2, 8, 9), np.uint8))
    with pytest.raises(ss.InputError, match=r"eval_set: got a ndarray, expected a pair \(X, y\)"):
        trained.fit(x, y, eval_set=x)
    with pytest.raises(ss.InputError, match="eval_set: got the label 'x'"):
        trained.fit(x, y, eval_set=(x[:2], ["x", y[0]]))
