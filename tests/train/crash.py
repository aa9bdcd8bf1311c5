"""Run by test_resume: train in forked children that kill themselves at the n-th step of writing files.

    python crash.py OUT FIRST LAST STRIDE    (which points to die at)

Prints one JSON object: the number of points, and the folders of the run that was killed again and again and of the one
that was left alone.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch._dynamo  # what takes long to import is imported once, before forking
import torch.utils.tensorboard

from shakeshake.train import fit as loop
from shakeshake.train.recipe import Recipe
from shakeshake.utils import environment as environment_module

RECIPE = (
    Recipe(data="tiny.npz", model="shake_resnet8_2x4d", rule="S-S-I", epochs=2, batch_size=20, crop_padding=1)
    .replace(
        checkpoint_interval_s=0.0,
        device="cpu",
        precision="fp32",
        ema_decay=0.9,
        mixup_alpha=0.2,
        grad_clip_norm=5.0,
        cutout_size=3,
    )
    .replace(balance="sample", randaugment=5)
)
POINTS = ("fsync", "replace", "unlink")


def child(task, kill_at: int | None) -> int:
    """Run a task in a fork which dies just before (odd) or after (even) a file operation. Returns operations seen."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def tick():
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def deadly(real):
            def operation(*args, **more):
                tick()
                result = real(*args, **more)
                tick()
                return result

            return operation

        for name in POINTS:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            task()
            os.write(write, str(count).encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    os.close(write)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if kill_at is None:
        assert status == 0, status
    return int(text or 0)


def main() -> None:
    out, first, last, stride = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    environment_module.environment = lambda **more: {"note": "left out: asking git would take most of the time", **more}
    loop.environment = environment_module.environment
    torch.set_num_threads(1)  # threads do not survive a fork
    out.mkdir(exist_ok=True)
    os.chdir(out)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez("tiny.npz", x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    points = child(lambda: loop.fit(RECIPE, out / "alone", quiet=True), None)
    killed = []
    for n in range(first, min(last, points) + 1, stride):
        run = out / f"killed-{n}"
        child(lambda run=run: loop.fit(RECIPE, run, quiet=True), n)
        if not (run / "recipe.json").exists():  # killed before there was a run: start it again
            child(lambda run=run: loop.fit(RECIPE, run, quiet=True), None)
        else:
            child(lambda run=run: loop.resume(run, quiet=True), 5)  # and once more, soon after
            child(lambda run=run: loop.resume(run, quiet=True), None)
        killed.append(run.name)
    print(json.dumps({"points": points, "killed": killed}))


if __name__ == "__main__":
    main()
