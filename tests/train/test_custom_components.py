"""Users' networks, callbacks and optimisers in fit() and resume()."""

import json
import logging
import signal
import sys
from types import ModuleType

import pytest
import rich.console
import torch
from torch import nn

import shakeshake as ss
from shakeshake.train import progress
from shakeshake.train.recipe import Recipe

RECIPE = Recipe(
    data="digits", train_size=60, epochs=2, batch_size=20, flip=False, crop_padding=1, device="cpu", precision="fp32"
)


class Net(nn.Module):
    """A network with a frozen parameter, an unused one and shaken branches."""

    def __init__(self, num_classes, in_channels=1, rule="S-S-I"):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.shake = ss.ShakeShake(rule)
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.shake(*(branch(x) for branch in self.branches))
        return self.fc(x.mean((2, 3)) * self.frozen)


class Interrupt(ss.Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, context):
        if context.step == self.step:
            raise RuntimeError("the callback failed")


def weights(path):
    return (path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "RMSprop", "NAdam", "Adagrad"])
def test_user_network_resumes_bit_identically_after_a_failing_callback(tmp_path, optimizer):
    recipe = RECIPE.replace(optimizer=optimizer, lr=0.01, ema_decay=0.9)
    whole = ss.fit(recipe, tmp_path / "whole", model=Net, quiet=True)
    with pytest.raises(RuntimeError, match="the callback failed") as raised:
        ss.fit(recipe, tmp_path / "run", model=Net, callbacks=[Interrupt(4)], quiet=True)
    assert any("Interrupt.on_step_end" in note for note in raised.value.__notes__)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["trainer"]["index"] == 1
    result = ss.resume(tmp_path / "run", model=Net, quiet=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert result.last_error == whole.last_error


def test_user_network_is_evaluated_analysed_and_loaded(tmp_path):
    result = ss.fit(RECIPE, tmp_path / "run", model=Net, quiet=True)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["model"].endswith(":Net")
    measured = ss.evaluate(result, device="cpu")
    assert measured.error == pytest.approx(result.last_error)
    assert measured.images == result.test_images
    model = ss.load(tmp_path / "run")
    assert model(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 10)
    found = ss.branch_correlation(model.network, [torch.rand(16, 1, 8, 8)])
    assert len(found) == 1


def test_module_is_copied_with_its_weights(tmp_path):
    network = Net(10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = ss.fit(RECIPE.replace(lr=1e-9, weight_decay=0.0), tmp_path / "run", model=network, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    trained = ss.load(result.path, model=network).network
    assert torch.allclose(trained.stem.weight, before["stem.weight"], atol=1e-6)


def test_callbacks_see_every_step_epoch_and_the_result(tmp_path):
    class Record(ss.Callback):
        def __init__(self):
            self.calls = []

        def on_fit_begin(self, context):
            self.calls.append(("begin", context.path, context.step, context.steps, context.recipe.epochs))

        def on_step_end(self, context):
            self.calls.append(("step", context.step))

        def on_epoch_end(self, metrics):
            self.calls.append(("epoch", metrics))

        def on_fit_end(self, result):
            self.calls.append(("end", result))

        def close(self):
            self.calls.append(("close",))

    record = Record()
    result = ss.fit(RECIPE, tmp_path / "run", model=Net, callbacks=[record], quiet=True)
    kinds = [kind for kind, *_ in record.calls]
    assert kinds == ["begin", *["step"] * 3, "epoch", *["step"] * 3, "epoch", "end", "close"]
    assert record.calls[0] == ("begin", tmp_path / "run", 0, 6, 2)
    assert record.calls[-2] == ("end", result)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [call[1].to_dict() for call in record.calls if call[0] == "epoch"] == list(map(json.loads, lines))


def test_os_error_of_a_callback_is_raised_unchanged(tmp_path):
    class Upload(ss.Callback):
        def on_epoch_end(self, metrics):
            raise ConnectionError("no network")

    with pytest.raises(ConnectionError, match="no network"):
        ss.fit(RECIPE, tmp_path / "run", model=Net, callbacks=[Upload()], quiet=True)
    assert ss.resume(tmp_path / "run", quiet=True).epochs == 2
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "adamv",
            "optimizer: got 'adamv', expected sgd, adamw or the name of a class of torch.optim; did you mean",
        ),
        ("LBFGS", "optimizer: LBFGS is not supported because it evaluates the loss several times"),
        ("sparseadam", "optimizer: sparseadam is not supported because it needs sparse gradients"),
    ],
)
def test_unusable_optimizers_are_refused_before_the_run_starts(tmp_path, name, message):
    with pytest.raises(ss.InputError, match=message):
        ss.fit(RECIPE.replace(optimizer=name), tmp_path / "run", model=Net, quiet=True)
    assert not (tmp_path / "run").exists()


def test_callbacks_of_another_type_are_refused(tmp_path):
    with pytest.raises(ss.InputError, match="callbacks: got function, expected objects derived from Callback"):
        ss.fit(RECIPE, tmp_path / "run", model=Net, callbacks=[lambda: None], quiet=True)


def test_progress_prints_a_line_per_epoch_without_a_terminal(tmp_path, capsys):
    ss.fit(RECIPE, tmp_path / "run", model=Net)
    err = capsys.readouterr().err
    assert "60 images of digits, 2 epochs of 3 steps, cpu, fp32" in err
    assert "epoch 2/2  lr" in err


@pytest.mark.parametrize("widgets", [True, False])
def test_progress_draws_a_bar_in_jupyter(monkeypatch, widgets):
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    find = progress.importlib.util.find_spec
    monkeypatch.setattr(
        progress.importlib.util,
        "find_spec",
        lambda name: (object() if widgets else None) if name == "ipywidgets" else find(name),
    )
    console = progress._console()
    assert (console is not None and console.is_jupyter) == widgets


def test_the_bar_is_drawn_as_a_notebook_widget(tmp_path, monkeypatch):
    shown = []

    class Output:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def clear_output(self, wait=False):
            shown.append("cleared")

    fakes = {name: ModuleType(name) for name in ("ipywidgets", "IPython", "IPython.display")}
    fakes["ipywidgets"].Output = Output
    fakes["ipywidgets"].__spec__ = object()
    fakes["IPython.display"].display = lambda *what, **_: shown.append(what)
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    ss.fit(RECIPE, tmp_path / "run", model=Net)
    assert any(isinstance(what, tuple) for what in shown)


def test_warnings_are_logged_under_the_name_of_the_package(tmp_path, caplog):
    with pytest.raises(ss.Stopped):
        ss.fit(RECIPE, tmp_path / "run", model=Net, minutes=1e-9, quiet=True)
    (tmp_path / "run" / "environment.json").write_text("{")
    with caplog.at_level(logging.WARNING, "shakeshake"):
        ss.resume(tmp_path / "run", quiet=True)
    assert any(r.name.startswith("shakeshake.train") and "earlier environments" in r.message for r in caplog.records)


def fail() -> None:
    raise RuntimeError("failed before the checkpoint of the epoch")


@pytest.mark.parametrize("stop", [fail, lambda: signal.raise_signal(signal.SIGTERM)], ids=["within", "after"])
def test_tensorboard_has_every_epoch_once_after_a_stop_at_its_end(tmp_path, stop):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Stop(ss.Callback):
        def on_epoch_end(self, metrics):
            stop()

    with pytest.raises((RuntimeError, ss.Stopped)):
        ss.fit(RECIPE, tmp_path / "run", model=Net, callbacks=[Stop()], quiet=True)
    ss.resume(tmp_path / "run", model=Net, quiet=True)
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert tags
    for tag in tags:
        assert [event.step for event in events.Scalars(tag)] == [3, 6], tag
