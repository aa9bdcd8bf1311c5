"""Constants of CIFAR-10 and CIFAR-100: MD5s, class names, channel means and standard deviations."""

from __future__ import annotations

from .layouts import Cifar, Part

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

# MD5s of cifar-10-binary.tar.gz, cifar-100-binary.tar.gz (from https://www.cs.toronto.edu/~kriz/cifar.html) and of the
# files inside them.
CIFAR = {
    "cifar10": Cifar(
        name="cifar10",
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        parts=(
            Part("data_batch_1.bin", "data_batch_1", 10_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            Part("data_batch_2.bin", "data_batch_2", 10_000, "5ea93a67294ea407fff1d09f752e9692"),
            Part("data_batch_3.bin", "data_batch_3", 10_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            Part("data_batch_4.bin", "data_batch_4", 10_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            Part("data_batch_5.bin", "data_batch_5", 10_000, "53f37980c15c3d472c316c40844f3f0d"),
            Part("test_batch.bin", "test_batch", 10_000, "803d5f7f4d78ea53de84dbe85f74fb6d", is_test=True),
        ),
        labels=("labels",),
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": Cifar(
        name="cifar100",
        binary="cifar-100-binary",
        python="cifar-100-python",
        parts=(
            Part("train.bin", "train", 50_000, "6172c7755cfe09b2fe270c85cebc1b15"),
            Part("test.bin", "test", 10_000, "4499cfba6c016c1be1438163640a0898", is_test=True),
        ),
        labels=("coarse_labels", "fine_labels"),
        classes=tuple(_FINE.split()),
        mean=(129.3, 124.1, 112.4),
        std=(68.2, 65.4, 70.4),
        archive_md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
}
