"""The command line as a process: results, exit statuses, signals, and one-line usage errors with status 2."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import TINY_OPTIONS, write_npz
from helpers import shakeshake_output as shakeshake
from shakeshake.cli.main import COMMANDS, main
from shakeshake.train.recipe import Recipe

TINY = [*TINY_OPTIONS, "--train-size", "60"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["--help"], ["--version"], ["train", "--help"], ["models"]], ids=" ".join)
def test_closed_pipe_is_not_an_error(command, unbuffered):
    """As in `shakeshake models | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "shakeshake", *command],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_continues_when_its_output_pipe_is_closed(tmp_path):
    """As in `shakeshake train ... 2>&1 | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "shakeshake", "train", "digits", *TINY, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, stdout=writing, stderr=writing, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("streams", "code", "message"),
    [(">&-", 0, ""), (">/dev/full", 1, "shakeshake: No space left on device\n")],
)
def test_closed_or_full_stdout_has_the_documented_exit_status(streams, code, message):
    command = f"{sys.executable} -m shakeshake models {streams}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, message)


ENDING = """
import atexit, os, signal, sys
from shakeshake.cli.main import main
from shakeshake.utils import console
from shakeshake.cli import tools
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
strike = lambda *_, **__: signal.raise_signal(signal.{name})
sys.argv = ["shakeshake", "models", "shake_resnet26*"]
{when}
raise SystemExit(main())
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("when", ["atexit.register(strike)", "tools.models.callback = console.log_stderr = strike"])
def test_signal_at_exit_prints_no_traceback(name, when):
    """During interpreter shutdown, and a second signal while the first one is reported."""
    program = ENDING.format(name=name, when=when)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode in (130, -getattr(signal, name))


def test_characters_that_the_stream_cannot_encode_are_escaped():
    program = "from shakeshake.utils.console import run_cli; raise SystemExit(run_cli(lambda: print('caf\\xe9') or 0))"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caf\\xe9\n", "")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    shakeshake("train", "digits", *TINY, "--out", run)
    return run


def test_run_directory_is_complete(finished):
    names = {entry.name.split(".out.")[0] for entry in finished.iterdir()}
    assert names >= {"recipe.json", "environment.json", "metrics.jsonl", "events", "checkpoint.pt"}
    assert names >= {"model.safetensors", "config.json", "result.json", "report.html"}
    recipe, environment = (json.loads((finished / f"{n}.json").read_text()) for n in ("recipe", "environment"))
    assert recipe["data"] == "digits"
    assert environment["precision"] == "fp32"
    assert environment["torch"]
    (row,) = (json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines())
    assert list(row) == [
        *("epoch", "step", "lr", "train_loss", "train_error", "test_loss", "test_error"),
        *("test_balanced_error", "seconds", "images_per_second", "peak_memory"),
    ]
    assert row["lr"] == 0.0, "the last step's rate"
    events = EventAccumulator(str(finished)).Reload()
    assert events.Scalars("error/test")[0].value == pytest.approx(row["test_error"])
    assert json.loads((finished / "result.json").read_text())["last_error"] == row["test_error"]


def test_eval_of_the_saved_model_equals_the_recorded_error(finished):
    row = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    output = shakeshake("eval", finished, "--device", "cpu")
    assert f"test error {row['test_error']:.2f} %" in output
    assert f"loss {row['test_loss']:.4f}  450 images" in output
    assert "60 images" in shakeshake("eval", finished, "--split", "train")


def test_resume_of_a_finished_run_prints_its_result_and_changes_nothing(finished):
    before = {entry: entry.stat().st_mtime_ns for entry in finished.iterdir() if entry.name != "report.html"}
    assert "at the last epoch" in shakeshake("resume", finished)
    assert before == {entry: entry.stat().st_mtime_ns for entry in before}


def test_result_is_printed_when_the_report_cannot_be_written(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "report.html").mkdir()
    output = shakeshake("resume", tmp_path / "run")
    assert "at the last epoch" in output
    assert "no report was written" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train", "digits", "--model", "shake_resnet27_2x32d"],
            r"model: .*shake_resnet26_2x32d or shake_resnet32_2x32d",
        ),
        (["train", "digits", "--rule", "S-K"], r"rule: 'S-K' is not a rule, expected"),
        (["train", "digits", "--rule", "X-S-I"], r"rule: 'X-S-I'"),
        (["train", "digit"], r"data: 'digit'.*digits"),
        (["train", "digits", "--epoch", "3"], r"option '--epoch'; did you mean '--epochs'"),
        (["train", "digits", "--epochs", "0"], r"epochs: got 0, expected at least 1"),
        (["train", "digits", "--epochs", "three"], r"--epochs.*three"),
        (
            ["train", "digits", "--batch-size", "5000"],
            r"batch_size: got 5000, expected at most \d+",
        ),
        (["train", "digits", "--lr", "-0.1"], r"lr: got -0.1"),
        (["train", "digits", "--lr", "nan"], r"lr: got nan"),
        (["train", "digits", "--recipe", "paper"], r"--recipe': 'paper'.*paper_cifar10"),
        (["train", "digits", "--train-size", "5"], r"train_size: "),
        (["train", "digits", "--device", "cuda:7"], r"device: 'cuda:7' is not available"),
        (["train", "digits", "--device", "gpu"], r"device: 'gpu'"),
        (
            ["train", "digits", "--crop-padding", "100000"],
            r"crop_padding: got 100000, expected at most 8 for images of 8 x 8 pixels",
        ),
        (["train", "digits", "--cutout-size", "9" * 20], r"cutout_size: got 9+, expected at most 16"),
        (
            ["train", "digits", "--model", "shake_resnet8_999999999x4d"],
            r"branches is 999999999, expected at most 10000",
        ),
        (["train", "digits", "--model", "shake_resnet8_2x\u0664d"], r"is not the name of a network"),
        (["train", "~nobody-of-this-name/x"], r"data: '~nobody-of-this-name/x' is neither"),
        (["eval", "a" * 400], r"a{400}: File name too long"),
        (["train"], r"DATA"),
        (["trian", "digits"], r"'trian'; did you mean 'train'"),
        (["data", "verfy", "cifar10"], r"'verfy'; did you mean 'verify'"),
        (["frobnicate"], r"'frobnicate'; expected one of train, resume"),
        (["train", "digits", "--precision", "bf17"], r"'auto', 'fp32', 'bf16'; did you mean 'bf16'"),
        (["export", "runs/x"], r"--format"),
        (["predict", "runs/x"], r"IMAGE"),
        (["train", "digits", "stray\n\x1b[31m"], r"unexpected extra argument.*\\x1b"),
        (["resume", "no/such/run"], r"run: no/such/run is not a folder"),
        (["models", "vgg*"], r"pattern: 'vgg\*'"),
        (["data", "get", "imagenet"], r"'imagenet'.*cifar10"),
        (["eval", "."], r"run: \. holds no recipe.json"),
    ],
)
def test_usage_error_is_one_line_and_writes_nothing(arguments, expected, tmp_path):
    if arguments[:1] == ["train"]:
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert re.search(expected, shakeshake(*arguments, code=2, cwd=tmp_path))
    assert not (tmp_path / "run").exists(), "nothing is written"


def test_out_of_another_run_or_a_nonempty_folder_is_refused(finished, tmp_path):
    before = (finished / "result.json").read_bytes()
    assert "holds a finished run" in shakeshake("train", "digits", *TINY, "--out", finished, code=2)
    assert (finished / "result.json").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "recipe.json").write_text("{}")
    assert "holds another run" in shakeshake("train", "digits", *TINY, "--out", other, code=2)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("work")
    assert "not empty" in shakeshake("train", "digits", *TINY, "--out", thesis, code=2)
    assert os.listdir(thesis) == ["chapter1.tex"]


def test_files_of_a_run_are_not_overwritten_by_exports_or_reports(finished, tmp_path):
    before = {entry.name: entry.read_bytes() for entry in finished.iterdir()}
    small_bench = ["--rounds", 1, "--model", "shake_resnet8_2x4d", "--batch-size", 2, "--test-batch-size", 2]
    for command in (
        ["export", finished, "--format", "torch", "--out", finished / "model.safetensors"],
        ["report", finished, "--out", finished / "recipe.json"],
        ["bench", *small_bench, "--out", finished / "result.json"],
    ):
        assert "would replace a file of" in shakeshake(*command, code=2)
    (tmp_path / "config.json").write_text("{}")  # somebody else's
    shakeshake("bench", *small_bench, "--out", tmp_path / "result.json")
    assert "holds no experiments" in shakeshake("compare", "digits", *TINY, "--out", finished, "--dry-run", code=2)
    assert {entry.name: entry.read_bytes() for entry in finished.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{}", "result.json is damaged: last_error: is missing"),
        ("result.json", "[]", "result.json holds a list, expected an object"),
        ("recipe.json", "[" * 100_000, "recipe.json cannot be read"),
    ],
)
def test_damaged_run_files_are_named(finished, tmp_path, name, content, message):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / name).write_text(content)
    for command in ("resume", "eval"):
        if name == "result.json" or command == "eval":
            assert message in shakeshake(command, run, code=2)


def test_unwritable_output_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in shakeshake("train", "digits", *TINY, "--out", tmp_path / "file" / "run", code=2)


@pytest.fixture
def unfinished(finished, tmp_path) -> Path:
    """A run that has a checkpoint and is not finished."""
    run = tmp_path / "unfinished"
    run.mkdir()
    for name in ("recipe.json", "environment.json", "metrics.jsonl", "checkpoint.pt"):
        (run / name).write_bytes((finished / name).read_bytes())
    return run


def edit(run: Path, **changes: object) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | changes))


def test_resume_refuses_an_edited_recipe(unfinished):
    edit(unfinished, epochs=7)
    before = (unfinished / "checkpoint.pt").read_bytes()
    assert "epochs: " in (output := shakeshake("resume", unfinished, code=2))
    assert "from 1 to 7" in output
    edit(unfinished, epochs=0)
    assert "epochs: got 0" in shakeshake("resume", unfinished, code=2)
    (unfinished / "recipe.json").write_text("{")
    assert "recipe.json cannot be read" in shakeshake("resume", unfinished, code=2)
    assert (unfinished / "checkpoint.pt").read_bytes() == before


def test_resume_detects_changed_or_missing_data(tmp_path):
    data, run = write_npz(tmp_path / "mine.npz"), tmp_path / "run"
    shakeshake("train", data, *TINY, "--out", run)
    (run / "result.json").unlink()
    write_npz(data, y_test=(np.arange(30) + 1) % 3)
    assert "has changed since" in shakeshake("resume", run, code=2)
    data.unlink()
    assert "mine.npz" in shakeshake("resume", run, code=2)
    write_npz(data)
    shakeshake("resume", run)


def test_invalid_npz_is_named(tmp_path):
    for changes, expected in (
        ({"x_test": None}, "x_test"),
        ({"x_train": np.full((60, 8, 8), np.nan)}, "has the value nan"),
        ({"y_train": np.arange(60) % 3 - 1}, "y_train"),
    ):
        output = shakeshake("train", write_npz(tmp_path / "bad.npz", **changes), "--out", tmp_path / "run", code=2)
        assert expected in output
        assert "bad.npz" in output


def test_truncated_cifar_file_is_named_and_kept(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(b"\0" * 30_000)
    arguments = ["train", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "run"]
    output = shakeshake(*arguments, code=2)
    assert "data_batch_1.bin" in output
    assert "30730000" in output.replace(",", "").replace("_", "")
    assert (folder / "data_batch_1.bin").stat().st_size == 30_000, "the user's file is left alone"


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"]], ids=" ".join)
def test_help_is_fast_and_does_not_import_torch(command):
    code = (
        "import sys, time\nfrom shakeshake.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "assert 'torch' not in sys.modules\nprint(time.process_time(), file=sys.stderr)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True, timeout=60
        )
        times.append(float(done.stderr))
    assert min(times) < 0.3, "0.1 s of CPU on an idle machine"


def test_every_command_has_help():
    for command in COMMANDS:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert main([command, "--help"]) == 0
        assert f"Usage: shakeshake {command}" in output.getvalue()


def test_train_help_groups_the_recipe_fields_and_shows_their_values():
    output = shakeshake("train", "--help", "--recipe", "paper_wrn")
    titles = ["Arguments:", "Options:", "Data:", "Network and rule:", "Optimisation:", "Augmentation:", "Run:"]
    assert [line for line in output.splitlines() if line in titles] == titles
    for field in dataclasses.fields(Recipe):
        assert field.name == "data" or f"--{field.name.replace('_', '-')}" in output
    assert "--precision [auto|fp32|bf16]" in output
    assert "[paper_wrn: wrn28_10]" in " ".join(output.split())


def test_config_is_a_recipe_that_typed_options_override(finished, tmp_path):
    shakeshake("train", "--config", finished / "recipe.json", "--seed", "5", "--out", tmp_path / "run")
    before, after = (json.loads((run / "recipe.json").read_text()) for run in (finished, tmp_path / "run"))
    assert after == {**before, "seed": 5}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"data": "cifar10", "epochs": 0}))
    assert "config.json: epochs: got 0" in shakeshake("train", "digits", "--config", config, code=2)
    config.write_text("{")
    assert "config.json cannot be read as JSON" in shakeshake("train", "--config", config, code=2)
    both = ["train", "--config", finished / "recipe.json", "--recipe", "quick"]
    assert "config: got it together with --recipe" in shakeshake(*both, code=2)


USER_CODE = """
import torch
from torch import nn

def tiny(num_classes, in_channels=3):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_channels, num_classes))

def half(images, branches, *, device, generator):
    coefficients = torch.full((images, branches), 1.0 / branches, device=device)
    return coefficients, coefficients
"""


@pytest.mark.parametrize(
    ("field", "name", "other"), [("model", "tiny", ()), ("rule", "half", ("--model", "shake_resnet8_2x4d"))]
)
def test_network_and_rule_load_from_a_user_file(tmp_path, field, name, other):
    code, run = tmp_path / "mine.py", tmp_path / "run"
    code.write_text(USER_CODE)
    own = [f"--{field}", f"{code}:{name}"]
    options = ["--train-size", "60", "--batch-size", "20", "--epochs", "1", "--device", "cpu"]
    shakeshake("train", "digits", *other, *own, *options, "--out", run)
    recipe = (run / "recipe.json").read_text()
    assert json.loads(recipe)[field] == f"mine.py:{name}", "the name has no path"
    assert "error" in shakeshake("eval", run, *own)
    assert f"pass --{field} PATH/mine.py:{name}" in shakeshake("eval", run, code=2)
    assert f"{field}: got 'other', expected FILE.py:NAME" in shakeshake("eval", run, f"--{field}", "other", code=2)


def test_cache_is_shown_and_cleared(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((16, 16, 3), 20 * number + len(name) + ord(name[0]), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    shakeshake("data", "check", tmp_path / "photos", env=env)
    output = shakeshake("cache", env=env)
    assert str(tmp_path / "cache") in output
    assert "12 images of 16 x 16" in output
    assert "MiB freed" in shakeshake("cache", "clear", env=env)
    assert "images" not in shakeshake("cache", "info", env=env).replace("shakeshake/images", "")


def test_models_data_and_doctor_print_their_lists(tmp_path):
    assert "2,923,162" in shakeshake("models", "shake_resnet26*")
    assert "digits" in shakeshake("data")
    output = shakeshake("doctor", env={"XDG_CACHE_HOME": str(tmp_path), "SHAKESHAKE_DATA": str(tmp_path)})
    assert "precision" in output
    assert "not found; `shakeshake data get cifar10`" in output


@pytest.mark.slow
def test_demo_prints_the_paired_difference_of_its_runs(tmp_path):
    printed = shakeshake("demo", "--out", tmp_path / "demo", "--epochs", 1, "--seeds", 2)
    table = json.loads((tmp_path / "demo" / "demo.json").read_text())
    means = [cell["mean"] for cell in table["cells"]]
    shown = re.findall(r"^(?:without shaking|Shake-Shake).*?([\d.]+) ± [\d.]+ +[\d.]+$", printed, re.MULTILINE)
    assert [float(error) for error in shown] == [round(mean, 2) for mean in means]
    (difference,) = re.findall(r"Shaking (?:raises|lowers) the test error by ([\d.]+) points", printed)
    # Evaluation in fp32 and in the precision of training may disagree about an image.
    assert float(difference) == pytest.approx(abs(means[1] - means[0]), abs=0.5)
    assert "too short" in printed
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "without shaking" in page
