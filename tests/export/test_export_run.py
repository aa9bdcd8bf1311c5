"""Exports give the same probabilities in other programs, and nothing else is written."""

import errno
import io
import json
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

import shakeshake as ss
from helpers import shakeshake
from shakeshake.errors import InputError, RunError
from shakeshake.export import model_card as card
from shakeshake.export import onnx as onnx_format
from shakeshake.export.export_run import export_run
from shakeshake.export.registry import FORMATS, max_abs_diff
from shakeshake.models import registry
from shakeshake.utils import files


@pytest.fixture(scope="module")
def digits():
    """Test images (450, 8, 8, 1), their labels, and the probabilities of the original network."""
    test = ss.load_data("digits").test
    return test.images.transpose(0, 2, 3, 1), test.labels


def expected(run) -> np.ndarray:
    return ss.load(run).predict(torch.from_numpy(ss.load_data("digits").test.images)).numpy()


def test_onnx_gives_the_same_probabilities_with_any_batch_size(run, digits, tmp_path):
    out, log = shakeshake("export", run, "--format", "onnx", "--out", tmp_path / "m.onnx", "--licence", "mit")
    assert out == f"{tmp_path / 'm.onnx'}\n"
    difference = float(re.search(r"over 450 test images: onnxruntime differs by at most (\S+) in", log)[1])
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == list("0123456789")
    assert about["licence"] == "mit"
    content = (tmp_path / "m.onnx").read_bytes()
    assert b"pkg.torch" not in content, "paths of this machine"
    session = onnxruntime.InferenceSession(content)
    (given,), (told,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [8, 8, 1])
    assert told.name == "probabilities"
    images, _ = digits
    whole = session.run(None, {"images": images})[0]
    assert np.abs(whole - expected(run)).max() <= max(difference * 1.06, 1e-6)  # as it was printed, rounded
    for n in (1, 7):
        assert np.allclose(session.run(None, {"images": images[:n]})[0], whole[:n], atol=1e-6)


def test_int8_logs_its_error_and_that_of_fp32(run, digits, tmp_path, caplog):
    caplog.set_level("INFO")
    path = export_run(run, "onnx", tmp_path / "m.onnx", int8=True)
    errors = [float(e) for e in re.findall(r"([\d.]+) %", caplog.messages[-1])]
    images, labels = digits
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {"images": images})[0].argmax(axis=1)
    assert errors[1] == pytest.approx(100 * (found != labels).mean(), abs=0.005)
    assert errors[0] == pytest.approx(100 * (expected(run).argmax(axis=1) != labels).mean(), abs=0.005)
    assert abs(errors[1] - errors[0]) < 10
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "QuantizeLinear" in kinds


def test_torch_export_runs_without_this_package(run, digits):
    shakeshake("export", run, "--format", "torch")
    extra = {"shakeshake.json": ""}
    network = torch.export.load(io.BytesIO((run / "model.pt2").read_bytes()), extra_files=extra).module()
    assert json.loads(extra["shakeshake.json"])["model"] == "shake_resnet8_2x4d"
    images = torch.from_numpy(digits[0])
    with torch.no_grad():
        assert np.allclose(network(images).numpy(), expected(run), atol=1e-5)
        assert np.allclose(network(images[:3]).numpy(), expected(run)[:3], atol=1e-5)


def test_safetensors_has_a_model_card_that_the_hub_can_read(run):
    out, _ = shakeshake("export", run, "--format", "safetensors", "--licence", "cc-by-4.0")
    folder = run / "huggingface"
    assert out.splitlines()[-1] == str(folder)
    assert {entry.name for entry in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    images = torch.from_numpy(ss.load_data("digits").test.images)
    assert torch.equal(ss.load(folder).predict(images), ss.load(run).predict(images))
    written = ModelCard.load(folder / "README.md")
    assert written.data.license == "cc-by-4.0"
    assert written.data.library_name == "shakeshake"
    accuracy, calibration = written.data.eval_results
    result = json.loads((run / "result.json").read_text())
    assert 100 * (1 - accuracy.metric_value) == pytest.approx(result["last_error"], abs=0.3)
    assert 0 <= calibration.metric_value < 1
    for told in (f"{result['last_train_error']:.2f} %", "cross-fitted", "@article{gastaldi2017shake", "| epochs | 2 |"):
        assert told in written.text


def test_the_model_card_escapes_markdown_and_html_once():
    assert card._escape_markdown("it's <b> a_b") == r"it's &lt;b&gt; a\_b"


def test_float16_halves_the_size_and_keeps_the_probabilities(run, tmp_path):
    folder = export_run(run, "safetensors", tmp_path / "half", half=True)
    sizes = [(at / "model.safetensors").stat().st_size for at in (folder, run)]
    assert sizes[0] < 0.65 * sizes[1]
    images = torch.from_numpy(ss.load_data("digits").test.images)
    assert torch.allclose(ss.load(folder).predict(images), ss.load(run).predict(images), atol=5e-3)


def test_an_export_that_differs_is_not_written(run, tmp_path, monkeypatch):
    plain = onnx_format.run_onnx
    monkeypatch.setattr(onnx_format, "run_onnx", lambda model, images: plain(model, images[:, :, ::-1]))
    with pytest.raises(RunError, match=r"^export: onnxruntime differs from PyTorch by 0\.\d+ in .*nothing was written"):
        export_run(run, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    images = ss.load_data("digits").test.images[:50]
    assert max_abs_diff(ss.load(run), images, lambda x: np.full((50, 10), np.nan))[0] == float("inf")


@pytest.mark.parametrize(
    ("form", "more", "said"),
    [
        ("pickle", {}, r"format: got 'pickle', expected one of onnx, safetensors, torch"),
        ("torch", {"int8": True}, r"int8: got it with the format torch, expected --format onnx"),
        ("onnx", {"half": True}, r"half: got it with the format onnx, expected --format safetensors"),
        ("onnx", {"licence": "My own!"}, r"licence: got 'My own!'"),
        ("onnx", {"out": "no/such/folder/m.onnx"}, r"out: no/such/folder/m.onnx cannot be written"),
        ("onnx", {"out": "{here}"}, r"out: .* cannot be written, expected the name of a file"),
        ("safetensors", {"out": "{run}"}, r"out: .* cannot be written, expected a new folder"),
    ],
)
def test_invalid_arguments_are_refused_before_the_export(form, more, said, run, tmp_path):
    more = {k: v.format(here=tmp_path, run=run) if isinstance(v, str) else v for k, v in more.items()}
    with pytest.raises(InputError, match=said):
        export_run(run, form, **more)
    assert list(tmp_path.iterdir()) == []


class Plain(nn.Module):
    """A user's network, which is not registered."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.mark.parametrize("form", ["onnx", "torch", "safetensors"])
def test_a_run_with_the_users_own_network_is_exported(form, tmp_path):
    """Also by a process that has not registered the network: its module is passed."""
    recipe = ss.Recipe(data="digits", train_size=100, epochs=1, batch_size=50, device="cpu", precision="fp32")
    ss.fit(recipe, tmp_path / "run", model=Plain(10, 1), quiet=True)
    name = ss.load(tmp_path / "run").config["model"]
    del registry._registered[name]
    with pytest.raises(InputError, match="is not registered here"):
        export_run(tmp_path / "run", form)
    written = export_run(tmp_path / "run", form, model=Plain)  # compared with PyTorch before it is written
    assert written.exists()
    del registry._registered[name]


def test_an_unfinished_run_is_refused(run, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    for name in ("recipe.json", "metrics.jsonl", "checkpoint.pt"):
        shutil.copy(run / name, part)
    _, err = shakeshake("export", part, "--format", "onnx", code=2)
    assert "part is not finished and holds no config.json" in err
    assert f"shakeshake resume {part}" in err
    with pytest.raises(InputError, match="is not finished"):
        ss.load(part)
    (tmp_path / "copy").mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(run / name, tmp_path / "copy")
    with pytest.raises(InputError, match=r"copy holds no recipe.json"):
        export_run(tmp_path / "copy", "torch")


def test_an_earlier_export_is_replaced_as_a_whole_or_not_at_all(run, tmp_path, monkeypatch):
    folder = export_run(run, "safetensors", tmp_path / "hf")
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    write = files.atomic_write

    def full(path, content):
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(files, "atomic_write", full)
    with pytest.raises(InputError, match="hf cannot be written: No space left"):
        export_run(run, "safetensors", folder, half=True)
    monkeypatch.undo()
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    (folder / ".model.safetensors.abc.part").write_bytes(b"half")
    export_run(run, "safetensors", folder, half=True)
    assert {entry.name for entry in folder.iterdir()} == set(before)
    assert (folder / "config.json").read_bytes() != before["config.json"]


@pytest.fixture
def registered():
    """Restores the registered formats."""
    before = dict(FORMATS)
    yield
    FORMATS.clear()
    FORMATS.update(before)


def test_a_users_format_is_one_function(run, registered, caplog):
    caplog.set_level("INFO")

    @ss.register_format("npz", "weights.npz")
    def to_npz(source, *, label="none"):
        buffer = io.BytesIO()
        np.savez(buffer, **{name: w.numpy() for name, w in source.model.network.state_dict().items()})
        source.check(lambda images: source.pipeline.run(torch.from_numpy(images)).numpy(), f"npz {label}")
        return buffer.getvalue()

    path = ss.export_run(run, "npz", label="mine")
    assert path == run / "weights.npz"
    assert "npz mine differs by at most" in caplog.messages[-1]
    weights = ss.load(run).network.state_dict()
    assert all(np.array_equal(array, weights[name]) for name, array in np.load(path).items())
    with pytest.raises(InputError, match=r"int8: got it with the format npz, expected --format onnx"):
        ss.export_run(run, "npz", int8=True)


def test_a_users_format_may_be_a_folder(run, registered, tmp_path):
    @ss.register_format("labels", files=("labels.txt",))
    def to_labels(source):
        return {"labels.txt": "\n".join(source.model.classes).encode()}

    folder = ss.export_run(run, "labels", tmp_path / "out")
    assert (folder / "labels.txt").read_text().split() == list("0123456789")
    assert ss.export_run(run, "labels", tmp_path / "out") == folder, "its files replace those of an earlier export"
