"""Correlations of branches and layers against numpy's on all outputs at once."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import shakeshake as ss
from shakeshake.analysis import covariance
from shakeshake.analysis.covariance import CoMoments
from shakeshake.errors import InputError


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(-1e6, 1e6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_moments_do_not_depend_on_the_chunks(sizes, mean, seed):
    random = np.random.default_rng(seed)
    whole = random.standard_normal((3, sum(sizes) + 3)) + mean
    whole[1] += whole[0]
    sums = CoMoments(3)
    for piece in np.split(whole, np.cumsum([3, *sizes])[:-1], axis=1):
        sums.update([torch.from_numpy(row) for row in piece])
    assert sums.count == whole.shape[1]
    np.testing.assert_allclose(sums.correlation(), np.corrcoef(whole), atol=1e-6)


def test_constant_variable_has_nan_correlation():
    sums = CoMoments(2)
    for _ in range(3):
        sums.update([torch.full((1000,), 0.1), torch.randn(1000)])
    assert np.isnan(sums.correlation()[0]).all()


class Shifted(nn.Module):
    """A branch whose output has a large mean."""

    def __init__(self, branch: nn.Module, mean: float) -> None:
        super().__init__()
        self.conv, self.mean = branch, mean

    def forward(self, x):
        return self.conv(x) + self.mean


class Net(nn.Module):
    def __init__(self, branches: int, mean: float) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.branches = nn.ModuleList(Shifted(nn.Conv2d(2, 3, 1), mean * (b + 1)) for b in range(branches))
        self.block.shake = ss.ShakeShake("S-S-I")

    def forward(self, x):
        return self.block.shake(*(branch(x) for branch in self.block.branches))


@pytest.mark.parametrize(("branches", "mean"), [(2, 0.0), (3, 0.0), (2, 1e4), (3, -1e4)])
def test_branch_correlation_equals_numpy(branches, mean, monkeypatch):
    monkeypatch.setattr(covariance, "CHUNK", 100)  # several chunks, the last one short
    torch.manual_seed(0)
    net = Net(branches, mean)
    batches = [torch.randn(n, 2, 5, 7) for n in (4, 1, 3)]
    net.train()
    (found,) = ss.branch_correlation(net, [batches[0], (batches[1], None), batches[2]])
    assert net.training
    assert found.block == "block"
    outputs = [torch.cat([branch(x).flatten() for x in batches]) / branches for branch in net.block.branches]
    expected = np.corrcoef(torch.stack(outputs).detach().double().numpy())
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)
    assert [(i, j) for i, j, _ in found.pairs()] == list(itertools.combinations(range(branches), 2))


@pytest.mark.parametrize("name", ["shake_resnet8_2x4d", "shake_resnet8_3x4d", "shake_resnext11_2x2x8d"])
def test_layer_outputs_are_seen_before_an_in_place_relu(name):
    """Against a slow reference that calls every layer explicitly."""
    torch.manual_seed(1)
    model = ss.create_model(name, image_size=8).eval()
    images = torch.randn(6, 3, 8, 8)
    entering = {}

    def remember(block):
        def before(_, inputs):
            entering[block] = inputs[0].clone()

        return before

    for block, module in model.named_modules():
        if hasattr(module, "branches"):
            module.branches[0].register_forward_pre_hook(remember(block))
    found = ss.layerwise_correlation(model, images.split(4))
    entering.clear()
    model(images)
    assert [block.block for block in found] == list(entering)
    for block in found:
        assert block.layers == ("conv1", "bn1", "conv2")
        outputs = []
        for branch in model.get_submodule(block.block).branches:
            conv1 = branch.conv1(entering[block.block])
            bn1 = branch.bn1(conv1)
            outputs.append((conv1, bn1, branch.conv2(torch.relu(bn1))))
        for (left, right), matrix in block.matrices.items():
            for i, j in itertools.product(range(3), repeat=2):
                one, other = outputs[left][i], outputs[right][j]
                if one.shape != other.shape:
                    assert np.isnan(matrix[i, j])
                    continue
                pair = torch.stack((one.flatten(), other.flatten())).detach().double().numpy()
                assert matrix[i, j] == pytest.approx(np.corrcoef(pair)[0, 1], abs=1e-5)


def test_no_batch_and_no_hook_is_kept():
    model = ss.create_model("shake_resnet8_2x4d", image_size=8)
    alive = []

    def batches():
        for _ in range(3):
            images = torch.randn(2, 3, 8, 8)
            alive.append(weakref.ref(images))
            yield images

    ss.layerwise_correlation(model, batches())
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_network_without_shake_shake_raises_input_error():
    with pytest.raises(InputError, match="got Linear without ShakeShake modules"):
        ss.branch_correlation(nn.Linear(2, 2), [torch.ones(1, 2)])
