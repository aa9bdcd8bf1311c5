"""The data argument of fit(): arrays and datasets of torch and Hugging Face, which are saved in the run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

import shakeshake as ss
from helpers import TINY, shakeshake
from shakeshake.train.fit import resume
from shakeshake.train.open_run import evaluate, open_run

RECIPE = ss.Recipe(model="shake_resnet8_2x8d", epochs=2, flip=False, crop_padding=1, device="cpu", precision="fp32")


def digits():
    data = ss.load_data("digits", train_size=200)
    return data.train.images, data.train.labels, data.test.images[:100], data.test.labels[:100]


def test_arrays_are_trained_on_and_saved_in_the_run(tmp_path):
    x, y, x_test, y_test = digits()
    data = ss.from_arrays(x[50:], y[50:], x_test, y_test, list("abcdefghij"), x_val=x[:50], y_val=y[:50], name="mine")
    data = dataclasses.replace(data, mean=(100.0,), std=(1 / 3,))  # not what would be computed
    result = ss.fit(RECIPE, tmp_path / "run", data=data, quiet=True)
    assert result.train_images == 150
    assert result.test_images == 100
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["data"] == "mine"
    opened = open_run(tmp_path / "run").data
    assert opened.fingerprint == data.fingerprint
    assert (opened.name, opened.classes, opened.mean, opened.std) == (data.name, data.classes, data.mean, data.std)
    assert evaluate(tmp_path / "run", device="cpu").error == pytest.approx(result.last_error)
    assert evaluate(tmp_path / "run", split="val", device="cpu").images == 50
    # The same images by a path are the same run.
    again = ss.fit(RECIPE.replace(data=str(tmp_path / "run" / "images.npz")), tmp_path / "again", quiet=True)
    assert again.data_fingerprint == result.data_fingerprint


def test_training_is_in_float32_for_any_default_dtype(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        found = ss.fit(TINY.replace(epochs=1), tmp_path / "run", quiet=True)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    other = ss.fit(TINY.replace(epochs=1), tmp_path / "other", quiet=True)
    assert found == dataclasses.replace(other, seconds=found.seconds)


def test_stopped_run_on_arrays_resumes_with_its_saved_images(tmp_path):
    data = ss.from_arrays(*digits())
    recipe = RECIPE.replace(train_size=120, folds=2, batch_size=32)
    whole = ss.fit(recipe, tmp_path / "whole", data=data, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        ss.fit(recipe, tmp_path / "run", data=data, minutes=1e-9, quiet=True)
    shutil.move(tmp_path / "run", tmp_path / "there")
    result = resume(tmp_path / "there", quiet=True)
    assert dataclasses.replace(whole, seconds=0.0) == dataclasses.replace(result, seconds=0.0)
    assert whole.train_images == 60
    shutil.copytree(tmp_path / "whole", tmp_path / "moved")
    assert evaluate(tmp_path / "moved", device="cpu").images == 60
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "there")]
    assert weights[0] == weights[1]


def test_resume_without_saved_images_is_a_usage_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ss.fit(RECIPE, tmp_path / "run", data=ss.from_arrays(*digits()), minutes=1e-9, quiet=True)
    (tmp_path / "run" / "images.npz").unlink()
    _, err = shakeshake("resume", tmp_path / "run", code=2, env={"COLUMNS": "80"})
    assert "does not exist" in err
    assert "images.npz" in err


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8)), "digits", None])
def test_invalid_data_arguments_are_refused(tmp_path, wrong):
    if wrong is None:
        x, y, x_test, y_test = digits()
        with pytest.raises(ss.InputError, match="one of x_val and y_val"):
            ss.from_arrays(x, y, x_test, y_test, x_val=x)
        return
    with pytest.raises(ss.InputError, match=r"data: got \w+, expected what from_arrays"):
        ss.fit(RECIPE, tmp_path / "run", data=wrong, quiet=True)
    assert not (tmp_path / "run").exists()


class Photos(Dataset):
    """Like torchvision's ImageFolder: PIL images of several sizes, and a list of classes."""

    classes = ("dark", "light")
    features = torch.zeros(3)  # not those of Hugging Face

    def __init__(self, n, mode="RGB"):
        self.n, self.mode = n, mode

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index >= self.n:
            raise RuntimeError("index out of range")
        image = Image.new("L", (20 + index, 30), 40 + 150 * (index % 2)).convert(self.mode)
        return image, index % 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(np.full((9, 9, 3), k, np.uint8), torch.tensor(k % 2)) for k in range(6)])


def test_from_datasets_reads_torch_datasets():
    x, y, x_test, y_test = (torch.from_numpy(a) for a in digits())
    expected = ss.from_arrays(*digits())
    tensors = ss.from_datasets(TensorDataset(x.float() / 255, y), TensorDataset(x_test, y_test))
    assert tensors.fingerprint == expected.fingerprint

    photos = ss.from_datasets(Subset(Photos(12), range(8)), Photos(4))
    assert photos.classes == ("dark", "light")
    assert photos.train.images.shape == (8, 3, 23, 23)  # the median of the shorter sides, 20 to 27
    assert [int(image.mean()) for image in photos.train.images[:3]] == [40, 190, 40]
    grey = ss.from_datasets(Photos(6, "L"), Photos(4, "L"), image_size=16)
    assert grey.train.images.shape == (6, 1, 16, 16)

    stream = ss.from_datasets(Stream(), Stream(), val=Stream())
    assert stream.train.images.shape == (6, 3, 9, 9)
    assert stream.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert stream.val is not None


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "train data set is empty"),
        ([(np.zeros((8, 8)), 0), (np.zeros((9, 9)), 1)], "item 1 of the train data set is 9 x 9 pixels and 1 channel"),
        ([(torch.full((3, 8, 8), -1.5), 0)], "item 0 of the train data set has the value -1.5, expected floats from 0"),
        ([(np.zeros((8, 8)), 0.5)], "the label in item 0 of the train data set is 0.5"),
        ([(np.zeros(64), 0)], r"item 0 of the train data set is ndarray of shape \(64,\)"),
        ([np.zeros((8, 8))], r"item 0 of the train data set is ndarray, expected \(image, label\)"),
        ([(np.zeros((8, 8)), "a"), (np.zeros((8, 8)), "b")], "the test data set has the label 'c'"),
        (7, "got int, expected a data set"),
    ],
)
def test_invalid_dataset_items_are_reported_with_their_index(items, said):
    with pytest.raises(ss.InputError, match=said):
        ss.from_datasets(items, [(np.zeros((8, 8)), "c")])


class Named(Photos):
    def __init__(self, n, classes):
        super().__init__(n)
        self.classes = classes


def test_labels_of_all_splits_are_mapped_by_name():
    data = ss.from_datasets(Photos(8), Named(4, ("light", "dark")), val=Named(3, ("dark", "light")), image_size=16)
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert data.test.labels.tolist() == [1, 0, 1, 0]
    assert data.val.labels.tolist() == [0, 1, 0]
    with pytest.raises(ss.InputError, match="the test data set has the label 'grey', expected one of dark, light"):
        ss.from_datasets(Photos(4), Named(4, ("grey", "light")))
    joined = ConcatDataset([Photos(4), Named(4, ("light", "dark"))])
    with pytest.raises(ss.InputError, match="train data set joins data sets with different classes"):
        ss.from_datasets(joined, Photos(4))
    assert ss.from_datasets(ConcatDataset([Photos(4), Photos(4)]), Photos(4)).classes == ("dark", "light")


def test_classes_that_a_filtered_dataset_names_but_lacks_are_left_out():
    data = ss.from_datasets(Named(6, ("cat", "dog", "eel")), Named(4, ("cat", "dog", "eel")))
    assert data.classes == ("cat", "dog")


def test_grey_among_colours_one_element_labels_and_damaged_items():
    mixed = [(np.full(shape, 7, np.uint8), np.array([k % 2])) for k, shape in enumerate([(8, 8), (8, 8, 3)] * 2)]
    data = ss.from_datasets(mixed, [(np.zeros((8, 8)), 0)])
    assert data.train.images.shape == (4, 3, 8, 8)
    assert data.test.images.shape == (1, 3, 8, 8)
    assert data.train.labels.tolist() == [0, 1, 0, 1]

    class Damaged(Photos):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("image file is truncated\nat byte 7")
            return super().__getitem__(index)

    with pytest.raises(ss.InputError, match=r"item 3 of the train data set cannot be read: image file is truncated$"):
        ss.from_datasets(Damaged(6), Photos(4))


def test_image_size_of_a_stream_follows_its_images():
    class Pictures(IterableDataset):
        def __iter__(self):
            return (Photos(80)[index] for index in range(80))

    data = ss.from_datasets(Pictures(), Photos(4))
    assert data.train.images.shape == (80, 3, 30, 30)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ([np.zeros((8, 8)), np.zeros((9, 9))], [0, 1], r"x_train .* item 1 has the shape \(9, 9\), item 0 \(8, 8\)"),
        (np.zeros((2, 8, 8)), [[0], [1, 2]], r"y_train .* item 1 has the shape \(2,\), item 0 \(1,\)"),
        (np.zeros((2, 8, 8)), [0, "a"], "item 1 of y_train in the arrays is 'a', expected integers from 0"),
        (np.zeros((2, 8, 8)), [0, None], "item 1 of y_train in the arrays is None"),
    ],
)
def test_ragged_arrays_and_mixed_labels_name_the_item(images, labels, said):
    with pytest.raises(ss.InputError, match=said):
        ss.from_arrays(images, labels, np.zeros((2, 8, 8)), [0, 1])


def test_tensors_in_bfloat16_are_images_too():
    x = torch.rand(4, 8, 8).bfloat16()
    data = ss.from_arrays(x, torch.tensor([0, 1, 0, 1]), x, [0, 1, 0, 1])
    assert np.array_equal(data.train.images[:, 0], np.rint(x.float().numpy() * 255))


def test_labels_of_several_types_are_refused():
    with pytest.raises(ss.InputError, match="the label 0 in item 0 and 'a' in item 1, expected only integers or only"):
        ss.from_datasets([(np.zeros((8, 8)), 0), (np.zeros((8, 8)), "a")], [(np.zeros((8, 8)), 0)])


def test_string_labels_become_sorted_classes():
    items = [(np.full((8, 8), k, np.uint8), "ba"[k % 2]) for k in range(4)]
    data = ss.from_datasets(items, items[:1])
    assert data.classes == ("a", "b")
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert ss.from_datasets(items, items[:1], classes=["b", "a"]).train.labels.tolist() == [0, 1, 0, 1]


def test_missing_test_dataset_is_refused():
    with pytest.raises(ss.InputError, match="got no test data set, expected train and test"):
        ss.from_datasets(Photos(4))


def test_from_datasets_reads_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra is not installed")
    x, y, x_test, y_test = digits()
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=list("abcdefghij")),
        }
    )

    def made(x, y):
        images = [Image.fromarray(image[0]) for image in x]
        return datasets.Dataset.from_dict({"id": range(len(y)), "picture": images, "kind": y.tolist()}, features)

    both = datasets.DatasetDict({"train": made(x, y), "validation": made(x_test, y_test)})
    data = ss.from_datasets(both)
    assert data.fingerprint == ss.from_arrays(x, y, x_test, y_test, list("abcdefghij")).fingerprint
    with pytest.raises(ss.InputError, match=r"columns id \(Value\), kind \(ClassLabel\), expected one Image"):
        ss.from_datasets(both["train"].select_columns(["id", "kind"]), both["train"])
    assert ss.fit(RECIPE, tmp_path / "run", data=data, quiet=True).epochs == 2
