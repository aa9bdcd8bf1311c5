"""`shakeshake bench`: its numbers are consistent and count what they claim."""

import json
import statistics

import pytest
import torch
from torch import nn

import shakeshake as ss
from shakeshake.bench import convolutions, interleaved, measure
from shakeshake.cli.main import main
from shakeshake.errors import InputError


def test_printed_table_and_json_agree(tmp_path, capsys):
    out = tmp_path / "new" / "bench.json"
    options = [
        "--model",
        "shake_resnet8_2x4d",
        "--batch-size",
        "4",
        "--test-batch-size",
        "4",
        "--rounds",
        "2",
        "--device",
        "cpu",
    ]
    assert main(["bench", *options, "--device", "cpu", "--out", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    for row in found["rows"]:
        assert len(row["seconds"]) == 2
        assert row["images_per_second"] == pytest.approx(row["images"] / statistics.median(row["seconds"]))
        assert f"{row['images_per_second']:.1f}" in printed
    times = {row["name"]: row["milliseconds"] for row in found["rows"]}
    assert found["share_of_limit"]["fp32"] == pytest.approx(times["convolutions fp32"] / times["train fp32"])
    with pytest.raises(InputError, match="rounds: got 0"):
        measure(rounds=0)


def test_limit_counts_every_convolution_forward_and_backward():
    """Compared with torch's own count of floating-point operations."""
    from torch.utils.flop_counter import FlopCounterMode

    network = ss.create_model("shake_resnet8_2x4d")
    images = torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as whole:
        network.train()(images).sum().backward()
    step = convolutions(network, 2, "fp32", torch.device("cpu"))
    assert network.training
    with FlopCounterMode(display=False) as alone:
        step()
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    others = sum(2 * 2 * 3 * m.in_features * m.out_features for m in linear)  # forward and two gradients, for 2 images
    assert alone.get_total_flops() == whole.get_total_flops() - others


def test_steps_run_once_per_round_in_changing_order():
    order = []
    seconds = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3, torch.device("cpu"))
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert all(set(order[i : i + 2]) == {"a", "b"} for i in range(0, len(order), 2))
