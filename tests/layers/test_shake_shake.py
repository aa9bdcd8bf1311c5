import copy
import subprocess
import sys
import textwrap

import pytest
import torch

from shakeshake import InputError, ShakeRule, ShakeShake, shake_shake


@pytest.mark.parametrize("branches", [2, 3])
def test_evaluation_is_exactly_the_mean_of_the_branches(branches):
    xs = [torch.randn(4, 3, 5, 5, requires_grad=True) for _ in range(branches)]
    layer = ShakeShake("S-S-I").eval()
    y = layer(*xs)
    assert torch.equal(y, layer(*xs))
    total = xs[0] + xs[1] if branches == 2 else xs[0] + xs[1] + xs[2]
    assert torch.equal(y, total / branches)
    for g in torch.autograd.grad(y.sum(), xs):
        assert torch.allclose(g, torch.full_like(g, 1 / branches))


def test_training_mixes_with_the_coefficients_of_the_rule():
    xs = [torch.randn(6, 3, 2, requires_grad=True) for _ in range(2)]
    layer = ShakeShake("S-M3-I", generator=torch.Generator().manual_seed(9))
    y = layer(*xs)
    alpha, beta = ShakeRule.parse("S-M3-I").draw(6, 2, generator=torch.Generator().manual_seed(9))
    assert torch.allclose(y, alpha[:, 0, None, None] * xs[0] + alpha[:, 1, None, None] * xs[1], atol=1e-6)
    for b, g in enumerate(torch.autograd.grad(y.sum(), xs)):
        assert torch.allclose(g, beta[:, b, None, None].expand_as(g))
    assert not torch.equal(layer(*xs), y), "fresh coefficients at every pass"


def test_layer_has_no_parameters_and_a_copy_continues_its_generator():
    layer = ShakeShake("S-E-B", generator=torch.Generator().manual_seed(1))
    assert not layer.state_dict()
    twin = copy.deepcopy(layer)
    assert twin.rule == layer.rule
    x1, x2 = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(twin(x1, x2), layer(x1, x2))
    assert "S-E-B" in repr(layer)


def test_usage_errors_name_shapes_and_branches():
    with pytest.raises(InputError, match="got 1 branch"):
        shake_shake(torch.ones(2, 3))
    with pytest.raises(InputError, match=r"shapes \(2, 3\) and \(2, 4\) differ"):
        shake_shake(torch.ones(2, 3), torch.ones(2, 4), training=False)
    with pytest.raises(InputError, match="without axes"):
        shake_shake(torch.tensor(1.0), torch.tensor(1.0))


def test_ddp_replicas_draw_different_coefficients_and_average_gradients(tmp_path):
    """Two processes with gloo."""
    script = textwrap.dedent("""
        import os, sys, torch, torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel
        from shakeshake import create_model, ShakeRule
        rank, folder = int(sys.argv[1]), sys.argv[2]
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        torch.manual_seed(0)
        model = DistributedDataParallel(create_model("shake_resnet8_2x4d", image_size=8))
        drawn, draw = [], ShakeRule.draw
        ShakeRule.draw = lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
        torch.manual_seed(100 + rank)
        model(torch.ones(2, 3, 8, 8)).square().sum().backward()
        torch.save([torch.stack([a for a, _ in drawn]), *[p.grad for p in model.parameters()]], f"{folder}/{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
        os._exit(0)  # a thread of the process group sometimes aborts a normal exit
    """)
    processes = [subprocess.Popen([sys.executable, "-c", script, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    (alpha0, *gradients0), (alpha1, *gradients1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert alpha0.shape == alpha1.shape == (3, 2, 2)
    assert (alpha0 != alpha1).all()
    for a, b in zip(gradients0, gradients1, strict=True):
        assert torch.equal(a, b)
