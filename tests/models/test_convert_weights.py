"""Weights of networks with the attribute names of public reimplementations, loaded into ShakeResNet."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shakeshake import InputError, create_model
from shakeshake.models.convert import load_external_weights, translate

WIDTH, UNITS, CLASSES = 8, 2, 7


def named(**modules) -> nn.Module:
    """A module that only holds others under these names."""
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


def conv(a, b, k, stride=1, bias=False):
    return nn.Conv2d(a, b, k, stride, k // 2, bias=bias)


class Theirs(nn.Module):
    """The frame: three stages of units, the shapes of 14 2x8d, an output layer for CLASSES."""

    def blocks(self):
        a = 16
        for s in range(3):
            for u in range(UNITS):
                b = WIDTH * 2**s
                yield s, u, a, b, 2 if s and not u else 1
                a = b

    def skip(self, a, b, **more):
        return named(conv1=conv(a, b // 2, 1), conv2=conv(a, b // 2, 1), bn=nn.BatchNorm2d(b), **more)

    def two_paths(self, m, x, stride, mirrored):
        shifted = torch.zeros_like(x)
        if mirrored:
            shifted[..., :-1, :-1] = x[..., 1:, 1:]
        else:
            shifted[..., 1:, 1:] = x[..., :-1, :-1]
        paths = m.conv1(x[..., ::stride, ::stride]), m.conv2(shifted[..., ::stride, ::stride])
        return m.bn(torch.cat(paths, 1))


class Hysts(Theirs):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = conv(3, 16, 3), nn.BatchNorm2d(16)
        for s in range(3):
            self.add_module(f"stage{s + 1}", nn.Module())
        for s, u, a, b, stride in self.blocks():
            paths = {
                f"residual_path{i}": named(
                    conv1=conv(a, b, 3, stride), bn1=nn.BatchNorm2d(b), conv2=conv(b, b, 3), bn2=nn.BatchNorm2d(b)
                )
                for i in (1, 2)
            }
            more = {"shortcut": named(skip=self.skip(a, b))} if a != b else {}
            getattr(self, f"stage{s + 1}").add_module(f"block{u + 1}", named(**paths, **more))
        self.fc = nn.Linear(4 * WIDTH, CLASSES)

    def forward(self, x):
        x = self.bn(self.conv(x))
        for s, u, a, b, stride in self.blocks():
            m, active = getattr(getattr(self, f"stage{s + 1}"), f"block{u + 1}"), F.relu(x)
            x = x if a == b else self.two_paths(m.shortcut.skip, active, stride, mirrored=True)
            for p in (m.residual_path1, m.residual_path2):
                x = x + 0.5 * p.bn2(p.conv2(F.relu(p.bn1(p.conv1(active)))))
        return self.fc(F.relu(x).mean((2, 3)))


class Owruby(Theirs):
    def __init__(self, bias=True, idle_skips=True):
        super().__init__()
        self.c_in = conv(3, 16, 3, bias=bias)
        for s in range(3):
            self.add_module(f"layer{s + 1}", nn.Sequential())
        for s, _, a, b, stride in self.blocks():
            branches = {
                f"branch{i}": nn.Sequential(
                    nn.ReLU(),
                    conv(a, b, 3, stride),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                    conv(b, b, 3),
                    nn.BatchNorm2d(b),
                )
                for i in (1, 2)
            }
            more = {"shortcut": self.skip(a, b)} if a != b or idle_skips else {}
            getattr(self, f"layer{s + 1}").append(named(**branches, **more))
        self.fc_out = nn.Linear(4 * WIDTH, CLASSES)

    def forward(self, x):
        x = self.c_in(x)
        for s, u, a, b, stride in self.blocks():
            m = getattr(self, f"layer{s + 1}")[u]
            skip = x if a == b else self.two_paths(m.shortcut, F.relu(x), stride, mirrored=True)
            x = (m.branch1(x) + m.branch2(x)) / 2 + skip
        return self.fc_out(F.relu(x).mean((2, 3)))


class Pytorchcv(Theirs):
    def __init__(self):
        super().__init__()
        self.features = named(init_block=self.block(3, 16))
        for s in range(3):
            self.features.add_module(f"stage{s + 1}", nn.Module())
        for s, u, a, b, stride in self.blocks():
            branches = {f"branch{i}": named(conv1=self.block(a, b, stride), conv2=self.block(b, b)) for i in (1, 2)}
            more = {"identity_branch": self.skip(a, b)} if a != b else {}
            getattr(self.features, f"stage{s + 1}").add_module(f"unit{u + 1}", named(**branches, **more))
        self.output = nn.Linear(4 * WIDTH, CLASSES)

    def block(self, a, b, stride=1):
        return named(conv=conv(a, b, 3, stride), bn=nn.BatchNorm2d(b))

    def forward(self, x):
        run = lambda m, x: m.bn(m.conv(x))  # noqa: E731
        x = F.relu(run(self.features.init_block, x))
        for s, u, a, b, stride in self.blocks():
            m = getattr(getattr(self.features, f"stage{s + 1}"), f"unit{u + 1}")
            skip = x if a == b else self.two_paths(m.identity_branch, x, stride, mirrored=False)
            both = [run(p.conv2, F.relu(run(p.conv1, x))) for p in (m.branch1, m.branch2)]
            x = F.relu(skip + sum(both) / 2)
        return self.output(x.mean((2, 3)))


def lively(network: nn.Module) -> nn.Module:
    """Set statistics and affine parameters to values that are not neutral."""
    torch.manual_seed(0)
    for value in network.state_dict().values():
        value.copy_(torch.rand_like(value) + 0.1 if value.dim() == 1 else value) if value.is_floating_point() else None
    return network.eval()


def ours(name="shake_resnet14_2x8d", **options):
    return create_model(name, num_classes=CLASSES, image_size=8, **options).eval()


LAYOUTS = [
    (Hysts, {"skip_shift": "mirrored"}, {}),
    (Owruby, {"skip_shift": "mirrored"}, {"activation": "post"}),
    (lambda: Owruby(bias=False, idle_skips=False), {"skip_shift": "mirrored"}, {"skip_shift": "reference"}),
    (Pytorchcv, {"activation": "post"}, {"activation": "post", "skip_shift": "mirrored"}),
]


@pytest.mark.parametrize(("theirs", "options", "wrong"), LAYOUTS, ids=["hysts", "owruby", "fork", "pytorchcv"])
def test_converted_weights_give_the_same_outputs(theirs, options, wrong):
    theirs = lively(theirs())
    x, network = torch.randn(4, 3, 8, 8), ours(**options)
    assert load_external_weights(network, theirs.state_dict()) is network
    expected = theirs(x)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-4)
    # As DataParallel saves it, and from before batches were counted.
    old = {f"module.{k}": v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert torch.equal(load_external_weights(ours(**options), old)(x), network(x))
    # A network built otherwise takes the weights, computes something else, and is therefore refused.
    other = ours(**wrong)
    with pytest.raises(InputError, match="network: built with"):
        load_external_weights(other, theirs.state_dict())
    other.load_state_dict(translate(theirs.state_dict()))
    assert not torch.allclose(other(x), expected, rtol=1e-2, atol=1e-2)


def test_mismatches_are_named_and_the_network_stays():
    state = lively(Hysts()).state_dict()
    network = ours(skip_shift="mirrored")
    before = {k: v.clone() for k, v in network.state_dict().items()}

    def refused(state, message, network=network):
        with pytest.raises(InputError, match=message) as raised:
            load_external_weights(network, state)
        assert "\n" not in str(raised.value)

    refused(state | {"stage1.block1.residual_path1.conv1.noise": torch.zeros(1)}, r"no counterpart of .*conv1\.noise")
    refused(state | {"conv.bias": torch.zeros(16)}, r"the network has no stem\.conv\.bias")
    refused({k: v for k, v in state.items() if k != "bn.weight"}, r"lacks stem\.bn\.weight of the network")
    refused(state | {"fc.weight": torch.zeros(10, 32)}, r"fc\.weight has shape \(10, 32\) there, expected \(7, 32\)")
    refused(state, r"has no stages\.0\.blocks\.1\.", ours("shake_resnet8_2x8d", skip_shift="mirrored"))
    refused(state, r"lacks .*branches\.2\.", ours("shake_resnet14_3x8d", skip_shift="mirrored"))
    refused({"encoder.weight": torch.zeros(1)}, r"keys \(encoder\.weight, \.\.\.\) match no known layout")
    refused({}, "none at all")
    refused(state, "expected a ShakeResNet", create_model("cifar_resnet8"))
    # An older version of this public network differs in more than its keys: ReLU after the stem, none before the pool.
    refused({k.replace(".skip.", ".downsample."): v for k, v in state.items()}, r"no counterpart of .*downsample")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
