"""Predictions for files, PIL images and arrays, in Python and on the command line."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import shakeshake as ss
from helpers import shakeshake
from shakeshake.cli.inference import predict
from shakeshake.data.image_folder.decode import UnreadableImage
from shakeshake.data.image_folder.scan import scan
from shakeshake.errors import InputError
from shakeshake.inference.image_files import find_images
from shakeshake.inference.predict import Prediction, iter_predictions, to_grey
from shakeshake.utils.console import EXIT_FAILURE, EXIT_USAGE


def command(arguments: list[str]) -> int:
    """`shakeshake predict` in this process; errors propagate."""
    return predict.main(arguments, "shakeshake predict", standalone_mode=False)


def test_probabilities_match_the_trained_network(run, photos, capsys):
    """By the command, with batches that do not divide the number of images."""
    out, err = shakeshake("predict", run, photos, "--json", "--top", 10, "--device", "cpu")
    found = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [one["file"] for one in found] == [str(photos / f"{i:02}.png") for i in range(20)]
    model = ss.load(run)
    images = torch.from_numpy(ss.load_data("digits").test.images[:20])
    with torch.no_grad():
        expected = (model(images) / model.config["temperature"]).softmax(dim=1)
    assert model.config["temperature"] != 1.0
    for one, row in zip(found, expected, strict=True):
        told = {p["class"]: p["probability"] for p in one["predictions"]}
        assert [told[name] for name in model.classes] == pytest.approx(row.tolist(), abs=2e-6)
        assert [p["probability"] for p in one["predictions"]] == sorted(told.values(), reverse=True)
    few = [p for p in iter_predictions(model, photos.iterdir(), batch_size=7) if isinstance(p, Prediction)]
    whole = {one["file"]: one["predictions"][0]["class"] for one in found}
    assert {str(p.source): p.label for p in few} == whole
    command([str(run), str(photos / "03.png"), "--top", "1"])
    out = capsys.readouterr().out
    first = found[3]["predictions"][0]
    assert out == f"{photos / '03.png'}: {first['class']} {100 * first['probability']:.1f} %\n"


def test_hflip_tta_is_the_mean_over_image_and_mirror_image(run, photos):
    model = ss.load(run)
    (path, *_) = sorted(photos.iterdir())
    image = torch.from_numpy(np.array(Image.open(path)))[None, None]
    expected = (model.predict(image) + model.predict(image.flip(3))) / 2
    (found,) = iter_predictions(model, path, hflip_tta=True)
    assert dict(found.top(10)) == pytest.approx(dict(zip(model.classes, expected[0].tolist(), strict=True)), abs=1e-6)
    assert not torch.allclose(expected, model.predict(image), atol=1e-3)


def test_unreadable_files_are_skipped_and_reported(run, photos, tmp_path, capsys):
    whole = (photos / "00.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b\n<b>.png").write_bytes(whole[:50])
    (tmp_path / "c.jpg").write_text("no image")
    (tmp_path / "d.PNG").write_bytes(whole)
    (tmp_path / "notes.txt").write_text("ignored in a folder")
    (tmp_path / "loop").symlink_to(tmp_path)
    out, err = shakeshake("predict", run, tmp_path, code=1)
    assert [line.partition(": ")[0] for line in out.splitlines()] == [str(tmp_path / "a.png"), str(tmp_path / "d.PNG")]
    assert [line.split("tmp")[0] for line in err.splitlines()] == ["shakeshake: image: /"] * 3
    assert f"image: {tmp_path / 'loop'} leads to a folder that was read already" in err
    assert r"b\n<b>.png is damaged or cut off" in err
    assert "c.jpg is not an image, expected a JPEG" in err
    assert command([str(run), str(tmp_path), "--json"]) == EXIT_FAILURE
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in one for one in told] == [False, True, True, False, True]
    assert told[1]["file"] == str(tmp_path / "b\n<b>.png")


def test_names_are_read_from_stdin(run, photos, tmp_path, capsys, monkeypatch):
    def listed(content: bytes) -> tuple[int, list[str]]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return command([str(run), "-", "--top", "1"]), capsys.readouterr().out.splitlines()

    names = [str(photos / "01.png"), str(photos / "02.png")]
    code, lines = listed("\r\n".join([*names, ""]).encode())
    assert code == 0
    assert [line.rpartition(": ")[0] for line in lines] == names
    assert listed("\r\n".join(names).encode("utf-8-sig")) == (0, lines)
    odd = tmp_path / "new\nline \udcff.png"
    odd.write_bytes((photos / "01.png").read_bytes())
    code, found = listed(b"\0".join([os.fsencode(odd), os.fsencode(names[1])]))
    assert code == 0
    assert found[1] == lines[1]
    assert found[0].startswith(str(tmp_path / r"new\nline \udcff.png: "))
    with pytest.raises(InputError, match="image: got an empty list"):
        listed(b"\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "{photos}", "--top", "0"], "top: got 0, expected 1 or more"),
        (["{empty}", "{photos}"], "holds no config.json, expected the folder of a finished run"),
        (["{run}/checkpoint.pt", "{photos}"], "may be a pickle"),
        (["nowhere", "{photos}"], "run: nowhere does not exist"),
    ],
)
def test_usage_errors_are_one_line(arguments, said, run, photos, tmp_path):
    here = {"run": run, "photos": photos, "empty": tmp_path}
    with pytest.raises(InputError, match=re.escape(said)) as told:
        command([a.format(**here) for a in arguments])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("{run}/recipe.json", "recipe.json is not an image, expected a JPEG"),
        ("nowhere.png", "image: nowhere.png does not exist"),
        ("{empty}", "is a folder without images"),
    ],
)
def test_exit_status_is_2_if_no_file_is_readable(image, said, run, tmp_path, capsys):
    assert command([str(run), image.format(run=run, empty=tmp_path)]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert len(err.splitlines()) == 1


def test_missing_temperature_is_reported(run, photos, tmp_path, capsys):
    for name in ("model.safetensors", "config.json"):
        shutil.copy(run / name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "temperature"}))
    assert command([str(tmp_path), str(photos / "00.png")]) == 0
    assert "has no temperature, so its probabilities are not calibrated" in capsys.readouterr().err


def test_to_grey_equals_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert (to_grey(pixels)[0, :, :, 0] == np.array(Image.fromarray(pixels[0]).convert("L"))).all()


def test_directories_are_searched_in_order_and_named_files_always_count(tmp_path):
    for name in ("b/2.jpg", "b/10.webp", "a.gif", "a.gif.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = list(find_images([str(tmp_path), "any.thing"]))
    assert [str(p.relative_to(tmp_path)) for p in found[:-1]] == ["a.gif", "b/10.webp", "b/2.jpg"]
    assert str(found[-1]) == "any.thing"


def test_directory_yields_the_files_that_training_reads(tmp_path, monkeypatch):
    folder = tmp_path / "p"
    for name in (
        "cat/.thumbnails/1.jpg",
        "cat/__MACOSX/1.jpg",
        "cat/1.jpg",
        "cat/closed/1.jpg",
        "cat/notes",
        "dog/a.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    Image.new("RGB", (8, 8)).save(folder / "dog" / "no suffix", "PNG")
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "deep" / "2.jpg").write_text("")
    (folder / "dog" / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "circle").symlink_to(folder / "dog")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(find_images([str(folder)]))
    images = [str(one.relative_to(folder)) for one in found if not isinstance(one, UnreadableImage)]
    assert images == ["cat/1.jpg", "dog/a.jpg", "dog/no suffix", "dog/linked/deep/2.jpg"]
    files = [file.path for file in scan(folder).files if file.path != "cat/notes"]
    assert sorted(images) == files, "what is named like no image is looked at by both"
    assert [f"{one}".removeprefix(f"image: {folder}/") for one in found if isinstance(one, UnreadableImage)] == [
        "cat/closed cannot be entered: Permission denied",
        "dog/linked/circle leads to a folder that was read already",
    ]
    (only,) = find_images([str(folder / "cat" / "closed")], io.BytesIO())
    assert str(only).endswith("closed cannot be entered: Permission denied")


@pytest.fixture(scope="module")
def arrays(photos):
    return np.stack([np.array(Image.open(path)) for path in sorted(photos.iterdir())])


def test_paths_pil_images_and_arrays_give_the_same_predictions(run, photos, arrays):
    paths = sorted(photos.iterdir())
    model = ss.load(run)
    expected = ss.predict(run, paths, device="cpu")
    assert expected.sources == tuple(paths)
    assert expected.classes == tuple(model.classes)
    assert expected.probabilities.shape == (20, 10)
    assert expected.probabilities.dtype == np.float32
    assert expected.labels == tuple(model.classes[k] for k in expected.probabilities.argmax(axis=1))
    assert expected.errors == {}
    assert len(expected) == 20
    for images in (
        photos,
        str(photos),
        [Image.open(path) for path in paths],
        arrays,
        arrays[..., None],
        np.repeat(arrays[..., None], 3, axis=3),
        list(arrays),
        iter(arrays),
    ):
        found = ss.predict(model, images, batch_size=7)
        assert found.labels == expected.labels
        assert np.array_equal(found.probabilities, expected.probabilities)
    mixed = ss.predict(model, [paths[0], Image.open(paths[1]), arrays[2]])
    assert mixed.sources == (paths[0], 1, 2)
    assert np.allclose(mixed.probabilities, expected.probabilities[:3], atol=1e-6)


def test_one_image_is_one_row(run, photos, arrays):
    model, path = ss.load(run), photos / "03.png"
    for image in (path, str(path), Image.open(path), arrays[3], arrays[3][..., None]):
        assert len(ss.predict(model, image)) == 1
    assert len(ss.predict(model, [])) == 0
    assert ss.predict(model, []).probabilities.shape == (0, 10)


def test_unreadable_images_have_no_label_and_an_error(run, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes((photos / "00.png").read_bytes()[:60])
    with Image.open(tmp_path / "bad.png") as torn:
        found = ss.predict(ss.load(run), [photos / "00.png", tmp_path / "bad.png", torn, photos / "01.png"])
    assert [label is None for label in found.labels] == [False, True, True, False]
    assert np.isnan(found.probabilities).all(axis=1).tolist() == [False, True, True, False]
    assert sorted(found.errors) == [1, 2]
    assert f"image: {tmp_path / 'bad.png'} is damaged or cut off" in found.errors[1]
    assert found.errors[2].startswith("image: number 2 is damaged")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8), np.float32), "images: got an array of float32, expected uint8, 0 to 255"),
        (np.zeros((3, 8, 8), np.uint8), "images: got an array of shape (3, 8, 8), expected (H, W)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "images: got an array of shape (2, 3, 8, 8), expected (H, W)"),
        (np.zeros(8, np.uint8), "images: got an array of shape (8,), expected (H, W)"),
        ([3], "images: got int, expected paths, PIL images or uint8 arrays"),
        (3, "images: got int, expected paths, PIL images or uint8 arrays"),
    ],
)
def test_unsupported_images_raise(run, images, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ss.predict(ss.load(run), images)
    with pytest.raises(InputError, match="batch_size: got 0, expected 1 or more"):
        ss.predict(ss.load(run), images, batch_size=0)


def test_a_path_without_a_run_raises(tmp_path):
    with pytest.raises(InputError, match="holds no"):
        ss.predict(tmp_path, [])


def test_large_images_are_cropped_and_resized_as_files_are(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    of_file, of_array = (ss.predict(run, image, device="cpu") for image in (tmp_path / "large.png", pixels))
    assert np.array_equal(of_file.probabilities, of_array.probabilities)
