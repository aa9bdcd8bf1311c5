"""Built-in and registered data, arrays, subsets, fingerprints and their errors."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shakeshake as ss
from shakeshake.data import registry
from shakeshake.data.dataset import from_arrays
from shakeshake.data.registry import (
    fetch_data,
    find_data,
    list_data,
    load_data,
    register_data,
    verify_data,
)
from shakeshake.data.subset import stratified_subset
from shakeshake.errors import InputError


def arrays(**changes):
    """Good arrays: 12 training and 6 test images of 3 classes, 8 x 8 grey; None takes one away."""
    random = np.random.default_rng(0)
    good = {
        "x_train": random.integers(0, 256, (12, 8, 8), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": random.integers(0, 256, (6, 8, 8), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def saved(path, **changes):
    np.savez(path, **arrays(**changes))
    return str(path)


def fails(data, *words, **options):
    with pytest.raises(InputError) as error:
        load_data(data, **options)
    message = str(error.value)
    assert "expected" in message
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_digits_have_the_documented_shape_and_classes():
    data = load_data("digits")
    assert (data.name, data.num_classes, data.channels, data.image_size) == ("digits", 10, 1, 8)
    assert data.train.images.shape == (1347, 1, 8, 8)
    assert data.test.images.shape == (450, 1, 8, 8)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    whole = np.bincount(np.concatenate([data.train.labels, data.test.labels]))
    assert (abs(np.bincount(data.test.labels) - whole * 450 / 1797) < 1).all()
    np.testing.assert_allclose(data.mean, data.train.images.mean())
    np.testing.assert_allclose(data.std, data.train.images.std())
    # Results are compared across machines and years: the split and the pixels must not drift.
    assert data.fingerprint == "sha256:ee0d404f6d0b6835b4fe7cec5d482b4758ebafe4c86b3f801d16f1b29bc84cd0"
    assert data.fingerprint == load_data("digits", seed=5).fingerprint


def test_list_data_names_what_can_be_loaded():
    assert [name for name, _ in list_data()] == ["digits", "cifar10", "cifar100"]


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (8, 8, 3), (3, 8, 8), (224, 224, 3)])
def test_npz_layouts_and_float_dtypes(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    y = np.array([2, 0, 1], np.uint8)
    images = {"x_train": pixels, "y_train": y, "x_test": pixels[:1], "y_test": y[:1, None]}
    data = load_data(saved(tmp_path / "mine.npz", **images, classes=np.array(["a", "b", "c"])))
    expected = pixels[:, None] if len(shape) == 2 else np.moveaxis(pixels, -1, 1) if shape[-1] < 8 else pixels
    np.testing.assert_array_equal(data.train.images, expected)
    assert data.train.images.flags.c_contiguous
    np.testing.assert_array_equal(data.train.labels, [2, 0, 1])
    assert (data.name, data.classes, data.image_size) == ("mine", ("a", "b", "c"), shape[1])
    for kind in (np.float16, np.float32, ">f8"):
        images["x_train"] = (pixels / 255).astype(kind)
        assert (load_data(saved(tmp_path / "f.npz", **images)).train.images == expected).all()


def test_constant_channel_has_deviation_one(tmp_path):
    data = load_data(saved(tmp_path / "flat.npz", x_train=np.full((12, 8, 8), 7, np.uint8)))
    assert (data.mean, data.std) == ((7.0,), (1.0,))


OBJECTS = np.array([{}] * 12, dtype=object)
MISTAKES = {
    "no key": ({"y_test": None, "x_test": None}, "no x_test, y_test", "x_train, y_train"),
    "object labels": ({"y_train": OBJECTS}, "y_train", "not a plain array"),
    "object images": ({"x_train": OBJECTS}, "x_train", "not a plain array"),
    "flat images": ({"x_train": np.zeros((12, 64), np.uint8)}, "x_train", "(12, 64)", "(N, H, W)"),
    "two channels": ({"x_train": np.zeros((12, 8, 8, 2), np.uint8)}, "x_train", "(12, 8, 8, 2)", "1 or 3 channels"),
    "not square": ({"x_train": np.zeros((12, 8, 9), np.uint8)}, "x_train", "8 x 9", "squares"),
    "too small": ({"x_train": np.zeros((12, 7, 7), np.uint8)}, "x_train", "7 x 7", "8 to 224"),
    "too large": ({"x_train": np.zeros((12, 225, 225), np.uint8)}, "x_train", "225 x 225", "8 to 224"),
    "no images": ({"x_test": np.zeros((0, 8, 8), np.uint8), "y_test": np.zeros(0, int)}, "x_test", "no images"),
    "wide integers": ({"x_train": np.zeros((12, 8, 8), np.int64)}, "x_train", "int64", "uint8"),
    "truth values": ({"x_train": np.zeros((12, 8, 8), bool)}, "x_train", "bool", "uint8"),
    "complex": ({"x_train": np.zeros((12, 8, 8), complex)}, "x_train", "complex128", "uint8"),
    "nan": ({"x_train": np.full((12, 8, 8), np.nan)}, "x_train", "value nan"),
    "floats to 255": ({"x_test": np.full((6, 8, 8), 255.0)}, "x_test", "255", "from 0 to 1"),
    "negative floats": ({"x_test": np.full((6, 8, 8), -0.5)}, "x_test", "-0.5", "from 0 to 1"),
    "float labels": ({"y_train": np.arange(12) % 3 / 1.0}, "y_train", "float64", "integers"),
    "one-hot labels": ({"y_train": np.eye(12, 3, dtype=int)}, "y_train", "(12, 3)", "(N,)"),
    "label -1": ({"y_train": np.arange(12) % 3 - 1}, "y_train", "-1", "from 0"),
    "label missing": ({"y_train": np.arange(12) % 3 * 2}, "y_train", "class 1", "0 to 4"),
    "huge label": ({"y_train": np.arange(12) % 3 * (1 << 29)}, "y_train", "no image of class"),
    "label beyond all": ({"y_train": np.full(12, 1 << 63, np.uint64)}, "y_train", "9223372036854775808"),
    "one class": ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "y_train", "at least two"),
    "test label": ({"y_test": np.arange(6)}, "y_test", "label 5", "0 to 2"),
    "few labels": ({"y_train": np.arange(11) % 3}, "y_train", "11 labels", "12 images"),
    "other test size": ({"x_test": np.zeros((6, 16, 16), np.uint8)}, "x_test", "16 x 16", "8 x 8"),
    "other test channels": ({"x_test": np.zeros((6, 3, 8, 8), np.uint8)}, "x_test", "3 channels", "1 channel"),
    "number classes": ({"classes": np.arange(3)}, "classes", "int64", "strings"),
    "classes that are no text": ({"classes": np.array(["a", "b", "\ud800"])}, "classes", "empty or repeated"),
    "repeated classes": ({"classes": np.array(["a", "b", "a"])}, "classes", "repeated"),
    "few classes": ({"classes": np.array(["a", "b"])}, "y_train", "label 2", "2 classes"),
    "many classes": ({"classes": np.array(["a", "b", "c", "d"])}, "y_train", "class 3", "0 to 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_invalid_npz_arrays(tmp_path, mistake):
    changes, *words = MISTAKES[mistake]
    fails(saved(tmp_path / "mine.npz", **changes), str(tmp_path / "mine.npz"), *words)


def test_damaged_npz_files(tmp_path):
    path = tmp_path / "mine.npz"
    saved(path)
    good = path.read_bytes()
    for broken in (b"", b"PK", b"hello", good[:-30], good[: len(good) // 2]):
        path.write_bytes(broken)
        fails(str(path), str(path), "is damaged or not a plain array")
    at = good.index(arrays()["x_train"].tobytes()[:64])
    path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    fails(str(path), str(path), "CRC")
    np.savez_compressed(
        path, **arrays(x_train=np.random.default_rng(0).integers(0, 256, (12, 64, 64)).astype(np.uint8))
    )
    packed = bytearray(path.read_bytes())
    packed[200:300] = b"\xff" * 100  # inside the deflated images
    path.write_bytes(packed)
    fails(str(path), str(path))
    fails(str(tmp_path / "absent.npz"), "absent.npz", "does not exist")
    (tmp_path / "folder.npz").mkdir()
    fails(str(tmp_path / "folder.npz"), "folder.npz")


def test_npz_decompression_bombs_are_rejected(tmp_path):
    """A member that grows a thousandfold, and a header that claims a terabyte."""
    path = tmp_path / "bomb.npz"
    saved(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in ("y_train.npy", "x_test.npy", "y_test.npy")}

    def npy(shape):
        header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
        header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x_train.npy", "w") as stream:
            stream.write(npy((5000, 250, 250)))
            for _ in range(300):
                stream.write(bytes(1 << 20))
        for name, content in members.items():
            archive.writestr(name, content)
    fails(str(path), "bomb.npz", "grow", "hundredfold")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", npy((1 << 40, 64, 64)) + bytes(100))
        for name, content in members.items():
            archive.writestr(name, content)
    fails(str(path), "bomb.npz", "x_train")


@pytest.mark.usefixtures("isolated")
def test_unknown_names_suggest_close_ones(tmp_path):
    assert "did you mean cifar10" in fails("cifr10", "'cifr10'", "digits, cifar10, cifar100")
    assert "did you mean digits" in fails("Digit")
    assert "did you mean" not in fails("/no/such/thing")
    fails(str(tmp_path), "no images in class folders", "photos/cat/1.jpg")
    (tmp_path / "photos.zip").touch()
    fails(str(tmp_path / "photos.zip"), "photos.zip")
    fails(None, "None")
    for function in (fetch_data, verify_data, find_data):
        with pytest.raises(InputError, match="name: got 'digits', expected cifar10 or cifar100"):
            function("digits")


@pytest.mark.parametrize("train_size", [9, 1348, 0, -5, 10.0, True, "10"])
def test_invalid_train_size(train_size):
    fails("digits", "train_size", repr(train_size), "10 (one image per class) to 1,347", train_size=train_size)


def test_train_size_draws_a_reproducible_subset_of_the_training_images():
    whole, part = load_data("digits"), load_data("digits", train_size=200, seed=3)
    assert part.train.images.shape == (200, 1, 8, 8)
    np.testing.assert_array_equal(part.test.images, whole.test.images)
    assert part.mean == (part.train.images.mean(dtype=np.float64),)
    again, other = load_data("digits", train_size=200, seed=3), load_data("digits", train_size=200, seed=4)
    assert part.fingerprint == again.fingerprint
    assert len({whole.fingerprint, part.fingerprint, other.fingerprint}) == 3
    fails("digits", "seed", "-1", train_size=200, seed=-1)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_stratified_subset_has_exact_size_and_class_shares_within_one_image(draw):
    counts = draw.draw(st.lists(st.integers(1, 60), min_size=2, max_size=12))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    size = draw.draw(st.integers(len(counts), len(labels)))
    seed = draw.draw(st.integers(0, 2**70))
    kept = stratified_subset(labels, size, seed)
    assert len(kept) == size
    assert (np.diff(kept) > 0).all()
    got = np.bincount(labels[kept], minlength=len(counts))
    share = np.array(counts) * size / len(labels)
    assert got.min() >= 1
    assert (got <= counts).all()
    if share.min() >= 1:
        assert (abs(got - share) < 1).all()
    np.testing.assert_array_equal(kept, stratified_subset(labels, size, seed))


def test_fingerprint_depends_on_pixels_labels_and_classes():
    base = from_arrays(**arrays())
    pixel, label = arrays(), arrays()
    pixel["x_test"][-1, -1, -1] ^= 1
    label["y_test"][0] = 1
    named = from_arrays(**arrays(), classes=("a", "b", "c"), name="other")
    split = arrays()  # the same bytes, cut elsewhere
    split["x_train"], split["x_test"] = np.split(np.concatenate([split["x_train"], split["x_test"]]), [11])
    split["y_train"], split["y_test"] = np.split(np.concatenate([split["y_train"], split["y_test"]]), [11])
    prints = {
        data.fingerprint for data in (base, from_arrays(**pixel), from_arrays(**label), named, from_arrays(**split))
    }
    assert len(prints) == 5
    assert all(text.startswith("sha256:") and len(text) == 71 for text in prints)
    assert base.fingerprint == from_arrays(**arrays(), name="other").fingerprint


@pytest.fixture
def registered(monkeypatch):
    """A registry that is restored after the test."""
    monkeypatch.setattr(registry, "_sources", dict(registry._sources))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("kind", ["tuple", "mapping", "ImageData"])
def test_registered_source_is_loaded_by_name(kind, tmp_path):
    @register_data("blobs")
    def blobs(data_dir=None):
        """Twelve random images."""
        assert data_dir == tmp_path
        images = arrays()
        return tuple(images.values()) if kind == "tuple" else images if kind == "mapping" else from_arrays(**images)

    data = load_data("blobs", data_dir=tmp_path)
    assert data.fingerprint == from_arrays(**arrays()).fingerprint
    assert data.name == ("arrays" if kind == "ImageData" else "blobs")
    assert len(load_data("blobs", data_dir=tmp_path, train_size=6).train) == 6
    assert ("blobs", "Twelve random images.") in list_data()
    assert "digits, cifar10, cifar100, blobs" in fails("blob", "did you mean blobs?")


@pytest.mark.usefixtures("registered")
def test_invalid_registrations():
    for name in ("", "a/b", "my.npz", "a b", 7):
        with pytest.raises(InputError, match="data: got the name"):
            register_data(name)
    with pytest.raises(InputError, match="'digits' is built in, expected another name"):
        register_data("digits")
    for _ in range(2):  # a notebook cell that runs again

        @register_data("mine")
        def mine():
            return 7

    fails("mine", "mine returned int, expected an ImageData")
    with pytest.raises(InputError, match=r"'mine' is registered by .*mine, expected another name"):
        register_data("mine")(lambda: None)
    with pytest.raises(InputError, match=r"requires path, expected only data, data_dir"):
        register_data("other")(lambda path: None)
    register_data("wrong")(lambda: {"x": 1})
    fails("wrong", "wrong returned wrong arguments of from_arrays")


@pytest.mark.usefixtures("registered")
def test_run_on_registered_data_trains_resumes_and_names_what_is_missing(tmp_path):
    @register_data("blobs")
    def blobs():
        return tuple(arrays().values())

    recipe = ss.Recipe(data="blobs", model="shake_resnet8_2x4d", batch_size=6, epochs=1, crop_padding=1, device="cpu")
    ss.fit(recipe, tmp_path / "run", quiet=True)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data_fingerprint"] == load_data("blobs").fingerprint
    (tmp_path / "run" / "result.json").unlink()  # as if it was killed after its last checkpoint
    from shakeshake.train.fit import resume

    resume(tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    (tmp_path / "run" / "result.json").unlink()
    del registry._sources["blobs"]
    with pytest.raises(InputError, match=r"'blobs' is neither registered .* import the module that registers it"):
        resume(tmp_path / "run", quiet=True)


def test_repr_is_short():
    data = load_data("digits")
    assert repr(data) == "ImageData(digits, 1,347 train, 450 test, 10 classes, 8x8x1)"
    assert repr(data.train) == "Split(1,347 images, 8x8x1)"
