import functools
import json

import pytest
import torch
from torch import nn

import shakeshake as ss
from shakeshake.errors import InputError
from shakeshake.models import registry
from shakeshake.models.config import make_config
from shakeshake.models.registry import count_parameters, model_info, register_module, rule_for
from shakeshake.models.weights import load_for_finetuning, weights_as_bytes


class Net(nn.Module):
    """Two shaken linear branches."""

    def __init__(self, num_classes, in_channels=3, image_size=32, rule="S-S-I", width=8):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, image_size)
        self.branches = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.shake = ss.ShakeShake(rule)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.stem(x).flatten(1)
        return self.head(x + self.shake(*(branch(x) for branch in self.branches)))


def plain(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(num_classes))


@pytest.fixture(autouse=True)
def registered():
    before = dict(registry._registered)
    registry._registered.clear()
    yield
    registry._registered.clear()
    registry._registered.update(before)


def write_run(path, network, model, rule="none", **more):
    config = make_config(model, rule, classes="abc", in_channels=3, image_size=8, mean=[0.0] * 3, std=[1.0] * 3, **more)
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights_as_bytes(network))
    (path / "config.json").write_text(json.dumps(config))


def test_a_registered_name_works_like_the_packages_names():
    assert ss.register_model("my_net")(Net) is Net
    network = ss.create_model("my_net", num_classes=5, in_channels=1, image_size=8, rule="S-E-B")
    assert isinstance(network, Net)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert str(network.shake.rule) == "S-E-B"
    assert network.training
    assert ss.create_model("my_net", width=4).stem.out_channels == 4
    assert ss.list_models("my_*") == ["my_net"]
    info = model_info("my_net")
    assert (info.branched, info.branches, info.family, info.paper_label) == (True, None, None, "my_net")
    assert info.source == f"{__name__}:Net"
    recipe = ss.Recipe(model="my_net", rule="S-K-I")
    assert (recipe.model, recipe.rule) == ("my_net", "S-K-I")
    assert count_parameters("my_net", num_classes=5) == 5 * 9 + 2 * 72 + 8 * (3 * 1024 + 1)


def test_a_factory_without_rule_has_no_rule():
    ss.register_model("plain")(plain)
    assert ss.Recipe(model="plain").rule == ss.Recipe(model="plain", rule="none").rule == "none"
    ss.register_model("my_net")(Net)
    with pytest.raises(InputError, match=r"^rule: got 'none' for my_net, which has branches"):
        rule_for("my_net", "none")


def test_checking_a_network_leaves_its_weights_statistics_and_the_random_state(tmp_path):
    def normed(num_classes):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(num_classes)
        )

    ss.register_model("normed")(normed)
    torch.manual_seed(0)
    network = ss.create_model("normed", image_size=8)
    after = torch.rand(1)
    torch.manual_seed(0)
    conv = normed(10)[0]
    assert torch.equal(network[0].weight, conv.weight)
    assert torch.equal(torch.rand(1), after)
    assert int(network[1].num_batches_tracked) == 0
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("factory", "match"),
    [
        (lambda num_classes: {"a": 1}, "^model: bad returned dict, expected an nn.Module$"),
        (
            lambda num_classes: plain(7),
            r"bad returns shape \(2, 7\) for two images, expected logits of shape \(2, 10\)",
        ),
        (lambda num_classes: nn.Identity(), r"bad returns shape \(2, 3, 32, 32\) for two images"),
        (lambda num_classes: nn.Linear(5, num_classes), r"bad fails on images of shape \(2, 3, 32, 32\): mat1"),
    ],
)
def test_a_factory_that_returns_something_else_is_refused(factory, match):
    ss.register_model("bad")(factory)
    with pytest.raises(InputError, match=match):
        ss.create_model("bad")


@pytest.mark.parametrize(
    ("name", "factory", "match"),
    [
        ("shake_resnet26_2x32d", plain, "is a network of this package, expected another name"),
        ("wrn11_1", plain, "is a network of this package"),
        ("a name", plain, "got the name 'a name', expected letters, digits"),
        ("", plain, "got the name ''"),
        (3, plain, "got the name 3"),
        ("net", lambda classes: None, "net requires|net does not take num_classes"),
        ("net", lambda num_classes, depth: None, "net requires depth, expected defaults for all arguments but"),
        ("net", nn.Identity(), "net is Identity, expected a function that returns an nn.Module"),
        ("net", None, "net is NoneType, expected a function"),
    ],
)
def test_registering_something_unusable_is_refused(name, factory, match):
    with pytest.raises(InputError, match=f"^model: .*{match}"):
        ss.register_model(name)(factory)


def test_a_name_is_registered_once():
    ss.register_model("net")(plain)
    ss.register_model("net")(plain)  # the same definition, as in a notebook cell that is run again
    with pytest.raises(InputError, match=r"'net' is already registered by .*test_user_models:plain"):
        ss.register_model("net")(Net)


def test_unknown_names_say_how_to_register():
    for name, match in (
        ("net.py:tiny", r"import the module that registers it, or pass --model PATH/net.py:tiny$"),
        ("lab.nets:tiny", r"import the module that registers it, or pass it as model=$"),
        ("my_net", r"register your own with @register_model\); the closest valid names are"),
    ):
        with pytest.raises(InputError, match=match):
            model_info(name)


def test_module_is_copied_with_its_weights():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    name = register_module(module)
    assert name.endswith(":Sequential")
    first, second = (ss.create_model(name, num_classes=3, image_size=8) for _ in range(2))
    assert torch.equal(first[1].weight, module[1].weight)
    assert first[1].weight.data_ptr() != second[1].weight.data_ptr() != module[1].weight.data_ptr()
    with pytest.raises(InputError, match=r"returns shape \(2, 3\) for two images, expected logits of shape \(2, 10\)"):
        ss.create_model(name, image_size=8)


def test_a_factory_is_named_after_its_definition():
    assert register_module(plain) == f"{__name__}:plain"
    assert register_module(functools.partial(Net, width=4)) == f"{__name__}:Net"
    assert register_module(lambda num_classes: plain(num_classes)) == f"{__name__}:lambda"
    assert register_module(Net, "net.py:Net") == "net.py:Net"
    with pytest.raises(InputError, match="network of this package"):
        register_module(plain, "wrn10_1")


def test_a_run_of_a_users_network_loads_by_its_name_or_with_model(tmp_path):
    ss.register_model("my_net")(Net)
    network = ss.create_model("my_net", num_classes=3, image_size=8).eval()
    write_run(tmp_path / "run", network, "my_net", "S-S-I")
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    expected = network(images.float())
    assert torch.allclose(ss.load(tmp_path / "run")(images), expected, atol=1e-5)
    registry._registered.clear()
    with pytest.raises(InputError, match=r"config.json cannot be used: model: 'my_net' is not .*test_user_models:Net"):
        ss.load(tmp_path / "run")
    assert torch.allclose(ss.load(tmp_path / "run", model=Net)(images), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"belongs to another network than my_net: it has no stem.weight|has no"):
        ss.load(tmp_path / "run", model=plain)


def test_weights_of_a_network_without_fc_are_loaded_whole():
    source, target = Net(3, image_size=8), Net(3, image_size=8)
    assert not load_for_finetuning(target, source.state_dict(), "weights", "net")
    assert torch.equal(target.head.weight, source.head.weight)
    with pytest.raises(InputError, match=r"head.weight has the shape"):
        load_for_finetuning(Net(4, image_size=8), source.state_dict(), "weights", "net")


def test_runs_recorded_under_an_old_name_load():
    assert ss.Recipe.from_dict({"model": "resnet20"}).model == "cifar_resnet20"
