"""Named recipes: a quick start and the recipes of papers. Loads no torch."""

from __future__ import annotations

from ..errors import InputError
from .recipe import Recipe


def quick(data: str = "cifar10") -> Recipe:
    """A narrow network and a short schedule, which take minutes on a laptop.

    It uses S-E-I because S-S-I regularizes such networks and schedules too strongly (measurements in docs/log.md).
    """
    if data == "digits":  # no flips, as digits change their meaning when mirrored; small crops, as images are 8 x 8
        return Recipe(data=data, model="shake_resnet8_2x16d", rule="S-E-I", epochs=20, flip=False, crop_padding=1)
    return Recipe(data=data, rule="S-E-I")


def paper_cifar10(data: str = "cifar10") -> Recipe:
    """The paper's recipe for CIFAR-10.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, Table 1.
    Expected: 26 2x32d S-S-I 3.55 % test error at the last epoch, mean of 3 runs; 26 2x96d 2.86 %, mean of 5.
    The paper trains on two GPUs without synchronised batch norm. ``ghost_batch_size=64`` does the same on one device:
    statistics and coefficients are per half batch. (The author's one-device variant is ``batch_size=64, lr=0.1``.)
    1800 epochs of 391 steps in fp32; no warm-up, clipping, label smoothing or Cutout.
    """
    return Recipe(
        data=data,
        model="shake_resnet26_2x32d",
        rule="S-S-I",
        epochs=1800,
        batch_size=128,
        ghost_batch_size=64,
        lr=0.2,
        momentum=0.9,
        weight_decay=1e-4,
        flip=True,
        crop_padding=4,
        precision="fp32",
    )


def paper_cifar10_300(data: str = "cifar10") -> Recipe:
    """``paper_cifar10`` with 300 epochs: a sixth of the time, and most of the gain.

    Y. Yamada et al., ShakeDrop, Table B1. Expected test error of 26 2x96d at the last epoch: E-E-B 4.02 %, Shake-Shake
    3.36 % (at 1800 epochs 3.58 % and 2.86 %). A public reimplementation reports 3.54 % for 26 2x64d, Shake-Shake.
    """
    return paper_cifar10(data).replace(epochs=300)


def paper_cifar100(data: str = "cifar100") -> Recipe:
    """The paper's recipe for CIFAR-100.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, Table 2.
    Expected: 29 2x4x64d S-E-I 15.85 % test error at the last epoch, E-E-B 16.34 %.
    The author's S-E-I release has about 84 % test error after epoch 1 and 76 % after epoch 2.
    Two GPUs with 16 images each, hence ``ghost_batch_size=16`` (see ``paper_cifar10``).
    """
    return Recipe(
        data=data,
        model="shake_resnext29_2x4x64d",
        rule="S-E-I",
        epochs=1800,
        batch_size=32,
        ghost_batch_size=16,
        lr=0.025,
        momentum=0.9,
        weight_decay=5e-4,
        flip=True,
        crop_padding=4,
        precision="fp32",
    )


def paper_cifar100_300(data: str = "cifar100") -> Recipe:
    """``paper_cifar100`` with 300 epochs.

    Y. Yamada et al., ShakeDrop, Table B1. Expected test error of 29 2x4x64d at the last epoch: E-E-B 16.95 %,
    Shake-Shake 16.46 % (at 1800 epochs 16.34 % and 15.85 %).
    """
    return paper_cifar100(data).replace(epochs=300)


def paper_architecture_c(data: str = "cifar10") -> Recipe:
    """The paper's recipe for its architecture C, without skip connections and batch normalisation.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, Table 5: as for CIFAR-10, but with a learning rate of
    0.025 in the first epoch and then 0.05, and alpha between 0.4 and 0.6. Training can diverge, especially with wider
    intervals.
    """
    return paper_cifar10(data).replace(
        model="shake_resnet14_2x32d_c", rule="S-E-I[0.4,0.6]", lr=0.05, first_epoch_lr=0.025
    )


def paper_resnet(data: str = "cifar10") -> Recipe:
    """The recipe of ResNet for CIFAR-10, without shaking.

    K. He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2 and Table 6.
    Expected on CIFAR-10: cifar_resnet20 8.75 % test error.
    64,000 steps (here 164 epochs), learning rate divided by 10 at 50 % and 75 %, two GPUs with 64 images each, no
    Nesterov momentum. For cifar_resnet110 the paper adds ``first_epoch_lr=0.01``. It trains on 45,000 of the images.
    """
    return Recipe(
        data=data,
        model="cifar_resnet20",
        epochs=164,
        batch_size=128,
        ghost_batch_size=64,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-4,
    )


def paper_wrn(data: str = "cifar10") -> Recipe:
    """The recipe of Wide ResNet for CIFAR, without shaking and dropout.

    S. Zagoruyko, N. Komodakis, Wide Residual Networks, arXiv 1605.07146, section 3, and the authors' release.
    Expected: wrn28_10 4.00 % test error on CIFAR-10, 19.25 % on CIFAR-100, median of 5 runs (release).
    200 epochs, learning rate divided by 5 after 60, 120 and 160. The release pads crops by reflection, here with zeros.
    """
    return Recipe(
        data=data,
        model="wrn28_10",
        epochs=200,
        batch_size=128,
        ghost_batch_size=None,
        lr=0.1,
        schedule="steps",
        milestones="0.3,0.6,0.8",
        gamma=0.2,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def paper_resnext(data: str = "cifar10") -> Recipe:
    """The recipe of ResNeXt for CIFAR, without shaking.

    S. Xie et al., Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431, section 5.3, and the
    authors' release. Expected: resnext29_16x64d 3.58 % test error on CIFAR-10 (Shake-Shake's Table 3).
    300 epochs, learning rate divided by 10 after 150 and 225, eight GPUs with 16 images each.
    """
    return Recipe(
        data=data,
        model="resnext29_16x64d",
        epochs=300,
        batch_size=128,
        ghost_batch_size=16,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def paper_densenet(data: str = "cifar10") -> Recipe:
    """The recipe of DenseNet for CIFAR, without shaking.

    G. Huang et al., Densely Connected Convolutional Networks, arXiv 1608.06993, section 4.2, and the authors' release.
    Expected: densenet_bc190_40 3.46 % test error on CIFAR-10 (Shake-Shake's Table 3).
    300 epochs, learning rate divided by 10 after 150 and 225.
    """
    return Recipe(
        data=data,
        model="densenet_bc190_40",
        epochs=300,
        batch_size=64,
        ghost_batch_size=None,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )


PRESETS = {
    "quick": quick,
    "paper_cifar10": paper_cifar10,
    "paper_cifar100": paper_cifar100,
    "paper_cifar10_300": paper_cifar10_300,
    "paper_cifar100_300": paper_cifar100_300,
    "paper_architecture_c": paper_architecture_c,
    "paper_resnet": paper_resnet,
    "paper_wrn": paper_wrn,
    "paper_resnext": paper_resnext,
    "paper_densenet": paper_densenet,
}


def preset(name: str, data: str | None = None) -> Recipe:
    """Return a preset for some data, by default that of the paper.

    Raises:
        InputError: There is no preset of this name.
    """
    if name not in PRESETS:
        raise InputError(f"recipe: got {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name](data) if data is not None else PRESETS[name]()
