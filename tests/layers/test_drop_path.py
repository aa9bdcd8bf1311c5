import pytest
import torch

from shakeshake import InputError, ShakeDrop, StochasticDepth
from shakeshake.layers.drop_path import linear_survival_prob

N = 40_000


def coefficients(layer):
    """(forward, backward) coefficient of each of N images."""
    torch.manual_seed(0)
    x = torch.ones(N, 1, requires_grad=True)
    y = layer(x)
    (g,) = torch.autograd.grad(y.sum(), x)
    return y.detach()[:, 0], g[:, 0]


def test_stochastic_depth_keeps_or_drops_value_and_gradient_together():
    forward, backward = coefficients(StochasticDepth(0.7, "Image"))
    assert set(forward.tolist()) == {0.0, 1.0}
    assert torch.equal(forward, backward), "the same gate both ways"
    assert float(forward.mean()) == pytest.approx(0.7, abs=0.01)
    assert float(StochasticDepth(0.7).eval()(torch.ones(1, 1))) == pytest.approx(0.7)
    assert len(coefficients(StochasticDepth(0.7, "Batch"))[0].unique()) == 1


def test_shakedrop_draws_alpha_and_beta_where_the_gate_is_zero():
    forward, backward = coefficients(ShakeDrop(0.6))
    kept = forward == 1.0
    assert float(kept.float().mean()) == pytest.approx(0.6, abs=0.01)
    assert (backward[kept] == 1.0).all()
    alpha, beta = forward[~kept], backward[~kept]
    assert -1 <= float(alpha.min()) < -0.99 < 0.99 < float(alpha.max()) <= 1
    assert 0 <= float(beta.min()) < 0.01 < 0.99 < float(beta.max()) <= 1
    assert abs(float(torch.corrcoef(torch.stack((alpha, beta)))[0, 1])) < 0.04
    assert float(forward.mean()) == pytest.approx(0.6, abs=0.015)
    assert float(ShakeDrop(0.6).eval()(torch.ones(1, 1))) == pytest.approx(0.6)


def test_survival_probability_falls_linearly_and_arguments_are_checked():
    assert [linear_survival_prob(k, 4) for k in (1, 2, 4)] == [0.875, 0.75, 0.5]
    with pytest.raises(InputError, match="survival_prob"):
        ShakeDrop(1.5)
    with pytest.raises(InputError, match="block"):
        linear_survival_prob(5, 4)
