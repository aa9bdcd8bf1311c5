"""CIFAR-10 and CIFAR-100 in every layout that they are distributed in."""
