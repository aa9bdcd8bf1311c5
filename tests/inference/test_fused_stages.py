"""Kernels prepared for small batches match the modules and are prepared again after changes."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import shakeshake as ss
from shakeshake.inference.fused_conv import FusedConv
from shakeshake.inference.fused_stages import FusedBlock, FusedStages
from shakeshake.kernels import build, convs

REASON = f"no fused convolutions: {build.unavailable_reason() or 'this CPU has no AVX-512'}"
pytestmark = pytest.mark.skipif(not convs.is_supported(torch.float32), reason=REASON)
DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            not convs.is_supported(torch.bfloat16),
            reason="no fused convolutions in bfloat16, or AMX",
        ),
    ),
]


def network(name: str = "shake_resnet14_2x32d", dtype: torch.dtype = torch.float32, **options) -> nn.Module:
    torch.manual_seed(0)
    model = ss.create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return ss.fuse(model).to(dtype)


def by_modules(fused: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run the modules themselves: a hook in a block prevents the use of prepared kernels."""
    with fused.stages[0][0].register_forward_hook(lambda module, given, y: None), torch.inference_mode():
        return fused(x)


def prepared(fused: nn.Module) -> int:
    return sum(len(ready) for ready in fused.stages[0]._plans.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shake_resnet14_2x32d", {}),
        ("shake_resnet8_3x32d", {"activation": "post"}),
        ("shake_resnet8_2x32d_a", {}),  # no skip
        ("shake_resnet8_2x32d_b", {}),  # nor a second convolution
    ],
)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 19, 24)])
def test_prepared_kernels_match_the_modules(dtype, name, options, shape):
    fused = network(name, dtype, **options)
    images, *side = shape
    x, other = torch.randn(2, images, 3, *side, dtype=dtype)
    first, second = by_modules(fused, x), by_modules(fused, other)
    assert prepared(fused) == 0
    with torch.inference_mode():
        assert torch.equal(fused(x), first)  # prepares
        assert torch.equal(fused(other), second)
    with torch.no_grad():
        assert torch.equal(fused(x), first)
    assert prepared(fused) == 1


def test_block_output_does_not_overwrite_its_input():
    """One convolution and one skip: the block's input is still read when its output is written."""
    torch.manual_seed(0)

    def block() -> FusedBlock:
        conv, skip = (FusedConv(32, 32, 3, padding=1) for _ in range(2))
        return FusedBlock([conv], skip, relu_before=True, relu_after=False)

    stages = FusedStages([nn.Sequential(block(), block(), block())]).to(memory_format=torch.channels_last)
    x = torch.randn(1, 32, 40, 40)
    with torch.inference_mode():
        expected = nn.Sequential.forward(stages, x)
        assert torch.equal(stages(x), expected)
        assert torch.equal(stages(x), expected)
    assert len(stages._plans) == 1


def test_later_calls_do_not_change_earlier_results():
    fused = network()
    stages, (x, other) = fused.stages[0], torch.randn(2, 1, 16, 32, 32)
    with torch.no_grad():
        first = stages(x)
        kept = first.clone()
        stages(other)
        with pytest.raises(RuntimeError, match="same"):
            stages(x.double())
    assert torch.equal(first, kept)


def test_changed_modules_are_prepared_again():
    """Changed weights and biases, replaced modules and hooks; copies share nothing with the original."""
    x = torch.randn(1, 3, 32, 32)
    fused = network()
    seen = []
    with torch.inference_mode():
        before = fused(x)

        def changed(to: nn.Module = fused) -> bool:
            nonlocal before
            last, before = before, to(x)
            assert torch.equal(before, by_modules(to, x))
            assert torch.equal(before, to(x))
            return not torch.equal(last, before)

        block = fused.stages[0][1][1]
        block.convs[0].weight.mul_(0.5)
        assert changed()
        block.convs[1].bias.add_(1)
        assert changed()
        block.convs[1].bias = nn.Parameter(block.convs[1].bias * 2)
        assert changed()
        block.convs[1] = copy.deepcopy(block.convs[0])
        with pytest.raises(RuntimeError):  # of other channels
            fused(x)
        block.convs[1] = copy.deepcopy(fused.stages[0][1][0].convs[1])
        assert changed()
        fused.stages[0][1].append(copy.deepcopy(block))
        assert changed()
        with block.convs[0].register_forward_pre_hook(lambda module, given: seen.append(1)):
            fused(x)
        assert seen
        fused(x)
        with block.register_forward_hook(lambda module, given, y: seen.append(1)):
            fused(x)
        assert len(seen) == 2
        copied = copy.deepcopy(fused)
        copied.stages[0][2][0].skip.weight.zero_()
        assert changed(copied)
        assert changed(fused)


def test_threads_do_not_share_memory():
    fused = network()
    xs = torch.randn(16, 1, 3, 32, 32)
    threads = torch.get_num_threads()

    def use(number: int) -> bool:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return all(torch.equal(fused(xs[number]), expected[number]) for _ in range(20))

    try:
        torch.set_num_threads(1)
        expected = [by_modules(fused, x) for x in xs]
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(use, range(16)))
    finally:
        torch.set_num_threads(threads)
    assert 1 <= prepared(fused) <= 4


def test_only_small_batches_and_few_shapes_are_prepared():
    fused = network("shake_resnet8_2x32d")
    with torch.inference_mode():
        fused(torch.randn(64, 3, 32, 32))
        assert prepared(fused) == 0
        for side in range(8, 40):
            fused(torch.randn(1, 3, side, side))
            assert prepared(fused) <= 8
    grouped = ss.fuse(ss.create_model("shake_resnext20_3x2x8d"))
    with torch.inference_mode():
        grouped(torch.randn(1, 3, 32, 32))
    assert prepared(grouped) == 0
