"""Evaluation of a network: errors and figures by class against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

import shakeshake as ss
from shakeshake.data.loader import Loader
from shakeshake.train.evaluate import count_predictions
from shakeshake.train.open_run import _evaluation
from shakeshake.train.recipe import Recipe


class FirstPixels(torch.nn.Module):
    """Logits are the first pixels of the image."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x.flatten(1)[:, : self.classes]


@pytest.mark.parametrize(("classes", "tested"), [(4, 4), (25, 25), (25, 21)])
def test_figures_by_class_agree_with_scikit_learn(classes, tested):
    rng = np.random.default_rng(classes + tested)
    images = rng.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    images[:, 0, 0, 1] = 0  # never predicted
    labels = rng.choice([label for label in range(tested) if label != 2], 300)  # class 2 is not tested
    data = ss.from_arrays(images, np.arange(300) % classes, images, labels)
    loader = Loader(data.test, (0.0,), (1.0,), batch_size=64)
    counts = count_predictions(FirstPixels(classes), loader, "fp32", torch.device("cpu"))
    found = _evaluation(counts, data.classes)

    scores = images.reshape(300, -1)[:, :classes].astype(float)
    predicted = scores.argmax(axis=1)
    present = sorted(set(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=present, zero_division=0.0
    )
    assert [int(one.name) for one in found.classes] == present
    assert [one.support for one in found.classes] == support.tolist()
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [getattr(one, name) or 0.0 for one in found.classes] == pytest.approx(100 * expected)
    assert found.classes[1].precision is None
    assert found.error == pytest.approx(100 * (predicted != labels).mean())
    assert found.balanced_error == pytest.approx(100 * (1 - recall.mean()))
    assert found.majority_error == pytest.approx(100 * (1 - support.max() / 300))
    if classes < 20:
        assert found.top5_error is None
    else:
        hits = top_k_accuracy_score(labels, scores, k=5, labels=range(classes))
        assert found.top5_error == pytest.approx(100 * (1 - hits), abs=0.7)  # ties of equal pixels


def test_evaluation_of_a_run_names_its_classes(tmp_path):
    recipe = Recipe(data="digits", model="shake_resnet8_2x4d", train_size=64, epochs=1, device="cpu", precision="fp32")
    result = ss.fit(recipe, tmp_path / "run", quiet=True)
    found = ss.evaluate(result, device="cpu")
    assert found.error == pytest.approx(result.last_error)
    assert [one.name for one in found.classes] == list("0123456789")
    assert sum(one.support for one in found.classes) == found.images == result.test_images
