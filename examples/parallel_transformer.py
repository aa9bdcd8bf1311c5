"""A transformer with two parallel branches per block, shaken: ShakeShake is not limited to images and convolutions.

    python examples/parallel_transformer.py [--rule S-S-I] [--epochs 20]

The network reads a digit as eight tokens, its rows. A block has two attention layers and two feed-forward networks in
parallel, ``x + shake(attention1(x), attention2(x))``; ``E-E-B`` does not shake. Takes seconds.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shakeshake as ss


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.attention(x, x, x, need_weights=False)[0]


def feed_forward(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, rule: str) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(2))
        self.nets = nn.ModuleList(feed_forward(width) for _ in range(2))
        self.shake = ss.ShakeShake(rule)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shake(*(attention(x) for attention in self.attentions))
        return x + self.shake(*(net(x) for net in self.nets))


class Transformer(nn.Module):
    """x: (N, tokens, features) in 0..1. Returns logits (N, classes)."""

    def __init__(
        self, tokens: int, features: int, classes: int, rule: str, *, width: int = 32, blocks: int = 2
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, 4, rule) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x) + self.position).mean(dim=1))


def main(rule: str = "S-S-I", epochs: int = 20, seed: int = 0) -> float:
    """Train on the digits and return the test error in %."""
    torch.manual_seed(seed)
    data = ss.load_data("digits")
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(split.images).squeeze(1) / 255, torch.from_numpy(split.labels))
        for split in (data.train, data.test)
    )
    network = Transformer(8, 8, data.num_classes, rule)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        wrong = network.eval()(x_test).argmax(dim=1) != y_test
    error = 100 * float(wrong.float().mean())
    print(f"{rule}: {error:.2f} % test error after {epochs} epochs")
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="S-S-I")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
