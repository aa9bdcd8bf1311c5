import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from shakeshake import InputError, ShakeShake, mix, shake_shake
from shakeshake.layers.rules import ShakeRule


def draw(n, branches, level="Image", seed=0):
    g = torch.Generator().manual_seed(seed)
    return ShakeRule("Shake", "Shake", level).draw(n, branches, generator=g)


def slow(branches, weights):
    """sum over b of weights_b * x_b, image by image, in float64."""
    out = torch.zeros(branches[0].shape, dtype=torch.float64)
    for n in range(len(out)):
        for b, x in enumerate(branches):
            w = weights[n, b] if weights.dim() == 2 else weights[b]
            out[n] += float(w) * x[n].double()
    return out


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 4),
    branches=st.integers(1, 4),
    rest=st.lists(st.integers(1, 3), max_size=4),
    level=st.sampled_from(["Image", "Batch"]),
)
def test_value_uses_alpha_and_gradient_uses_beta(n, branches, rest, level):
    torch.manual_seed(0)
    xs = [torch.randn(n, *rest, dtype=torch.float64, requires_grad=True) for _ in range(branches)]
    alpha, beta = (draw(n, max(branches, 2), level, seed)[0][..., :branches].double() for seed in (1, 2))
    y = mix(xs, alpha, beta)
    g = torch.randn_like(y)
    y.backward(g)
    assert torch.allclose(y, slow(xs, alpha), atol=1e-12)
    for b, x in enumerate(xs):
        weights = torch.zeros_like(beta)
        weights[..., b] = beta[..., b]
        assert torch.allclose(x.grad, slow([g] * branches, weights), atol=1e-12)


def test_backward_saves_only_beta():
    x1, x2 = (torch.randn(64, 32, 32, 32, requires_grad=True) for _ in range(2))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        mix((x1, x2), *draw(64, 2)).sum()
    bytes_saved = sum(t.untyped_storage().nbytes() for t in saved)
    assert 0 < bytes_saved < 0.001 * x1.untyped_storage().nbytes()

    branch = 2.0 * x1
    gone = weakref.ref(branch)
    y = mix((branch, x2), *draw(64, 2))
    del branch
    assert y.requires_grad
    assert gone() is None, "the branch is kept alive"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_and_memory_format_of_the_branches_are_kept(dtype):
    xs = [torch.randn(4, 8, 6, 6).to(dtype, memory_format=torch.channels_last).requires_grad_() for _ in range(2)]
    for x in xs:
        assert x.is_contiguous(memory_format=torch.channels_last)
    for y in (mix(xs, *draw(4, 2)), shake_shake(*xs), shake_shake(*xs, training=False)):
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        gradients = torch.autograd.grad(y, xs, torch.ones_like(y))
        assert all(g.dtype == dtype and g.is_contiguous(memory_format=torch.channels_last) for g in gradients)


def test_compiles_without_a_graph_break():
    torch.manual_seed(0)
    xs = [torch.randn(4, 3, 5, 5, requires_grad=True) for _ in range(2)]
    alpha, beta = draw(4, 2)

    def run(f):
        y = f(*xs)
        return y, *torch.autograd.grad(y.square().sum(), xs)

    plain = run(lambda a, b: mix((a, b), alpha, beta))
    compiled = run(torch.compile(lambda a, b: mix((a, b), alpha, beta), fullgraph=True, backend="aot_eager"))
    for a, b in zip(plain, compiled, strict=True):
        assert torch.equal(a, b)

    for rule in ("S-K-I", "E-E-B", "S-S-I"):  # the first two have one tensor for alpha and beta
        layer = ShakeShake(rule)
        compiled_layer = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.manual_seed(3)
        eager = run(layer)
        torch.manual_seed(3)
        for a, b in zip(eager, run(compiled_layer), strict=True):
            assert torch.equal(a, b), "the draw is part of the graph"
    torch.manual_seed(4)
    assert not torch.equal(eager[0], run(compiled_layer)[0]), "every pass draws afresh"


@pytest.mark.slow
def test_inductor_computes_the_same_gradients():
    xs = [torch.randn(4, 3, 5, 5, requires_grad=True) for _ in range(2)]
    alpha, beta = draw(4, 2)
    compiled = torch.compile(lambda a, b: mix((a, b), alpha, beta), fullgraph=True)
    for a, b in zip(
        torch.autograd.grad(compiled(*xs).square().sum(), xs),
        torch.autograd.grad(mix(xs, alpha, beta).square().sum(), xs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_autocast_keeps_half_precision():
    conv = torch.nn.Conv2d(3, 4, 3)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = shake_shake(conv(x), conv(x))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32


def test_autocast_promotes_branches_of_several_dtypes_as_in_a_sum():
    """A branch that ends in a convolution is in half precision, one that ends in pooling is not."""
    conv, x = torch.nn.Conv2d(3, 3, 3, padding=1), torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        branches = conv(x), F.max_pool2d(x, 3, 1, 1)
        assert branches[0].dtype != branches[1].dtype
        y = shake_shake(*branches, rule="S-S-I")
        assert y.dtype == (branches[0] + branches[1]).dtype == torch.float32


@pytest.mark.parametrize("rule", ["S-S-I", "S-M5-B", "S-0.7-I"])
def test_activation_checkpointing_recomputes_with_the_same_coefficients(rule):
    conv1, conv2, layer = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1), ShakeShake(rule)
    x = torch.randn(5, 3, 4, 4, requires_grad=True)

    def block(x):
        # tanh after the mix: its gradient needs the recomputed value, so other coefficients would show.
        return torch.tanh(layer(conv1(x), conv2(x)))

    def gradients(f):
        torch.manual_seed(1)
        return torch.autograd.grad(f(x).sum(), [x, *conv1.parameters(), *conv2.parameters()])

    for a, b in zip(gradients(block), gradients(lambda x: checkpoint(block, x, use_reentrant=False)), strict=True):
        assert torch.equal(a, b)


def test_double_backward_uses_beta_again():
    xs = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    alpha, beta = (t.double() for t in draw(3, 2))
    y = mix(xs, alpha, beta)
    (g,) = torch.autograd.grad(y.pow(3).sum(), xs[:1], create_graph=True)
    assert torch.allclose(g, 3 * y.square() * beta[:, :1])
    second = torch.autograd.grad(g.sum(), xs)
    for b, s in enumerate(second):  # y is differentiated by beta again, as everywhere
        assert torch.allclose(s, 6 * y * beta[:, :1] * beta[:, b : b + 1])
    assert torch.autograd.gradgradcheck(lambda a, b: mix((a, b), alpha, alpha), xs)


def test_works_under_func_grad_and_vmap():
    x1, x2 = torch.randn(4, 3), torch.randn(4, 3)
    alpha, beta = draw(4, 2)
    g = torch.func.grad(lambda x: mix((x, x2), alpha, beta).sum())(x1)
    assert torch.allclose(g, beta[:, :1].expand(4, 3))
    many = torch.randn(7, 4, 3), torch.randn(7, 4, 3)
    together = torch.vmap(lambda a, b: mix((a, b), alpha, beta))(*many)
    assert torch.allclose(together, torch.stack([mix((a, b), alpha, beta) for a, b in zip(*many, strict=True)]))
    drawn = torch.vmap(lambda a, b: shake_shake(a, b), randomness="different")(
        torch.ones(7, 4, 3), torch.zeros(7, 4, 3)
    )
    assert len(drawn[:, :, 0].unique()) == 28, "every sample draws its own coefficients"
    of_three = torch.vmap(shake_shake, randomness="different")(torch.ones(7, 4, 3), *torch.zeros(2, 7, 4, 3))
    assert len(of_three[:, :, 0].unique()) == 28
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: mix((x, y), alpha, beta).sum()))(*many)
    assert torch.allclose(per_sample, beta[:, :1].expand(7, 4, 3))


class Net(torch.nn.Module):
    def __init__(self, rule="S-S-I"):
        super().__init__()
        self.a, self.b, self.shake = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), ShakeShake(rule)

    def forward(self, x):
        return x + self.shake(F.relu(self.a(x)), F.relu(self.b(x)))


@pytest.mark.parametrize("rule", ["S-S-I", "E-E-B", "S-M3-I", "S-K-B"])
def test_training_mode_exports_with_a_dynamic_batch(rule):
    sizes = {0: torch.export.Dim("images", min=3)}
    program = torch.export.export(Net(rule).train(), (torch.randn(4, 4),), dynamic_shapes=(sizes,))
    assert program.module()(torch.randn(7, 4)).shape == (7, 4)


def test_evaluation_mode_exports_without_random_operations():
    net, x = Net().eval(), torch.randn(2, 4)
    program = torch.export.export(net, (x,))
    assert torch.equal(program.module()(x), net(x))
    assert "rand" not in str(program.graph)


@pytest.mark.parametrize(
    ("branches", "alpha", "message"),
    [
        ([torch.ones(2, 3), torch.ones(2, 4)], torch.ones(2, 2), r"branch 1 has shape \(2, 4\), expected \(2, 3\)"),
        ([torch.ones(2, 3)] * 2, torch.ones(3, 2), r"alpha: shape is \(3, 2\), expected \(2,\) or \(2, 2\)"),
        ([torch.ones(2, 3), torch.ones(2, 3).half()], torch.ones(2, 2), "branch 1 has dtype"),
        ([torch.ones(2, 3)] * 2, [0.5, 0.5], "alpha: got a list, expected a tensor"),
        ([torch.ones(2, 3).int()] * 2, torch.ones(2, 2), "expected a floating one"),
        ([], torch.ones(2, 2), "branches: got none"),
    ],
)
def test_mismatched_shapes_and_dtypes_are_named(branches, alpha, message):
    with pytest.raises(InputError, match=message):
        mix(branches, alpha, alpha)
