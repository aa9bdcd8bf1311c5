"""Run by test_resume: train in forked children that kill themselves at the n-th step of writing files.

    python crash.py OUT [SIGKILL points: first stop stride]

Prints one JSON object: the number of points, and the folders of the run that was killed again and again and of the one
that was left alone.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401  (imported once, before forking)

from shakeshake.train import loop, record
from shakeshake.train.recipe import Recipe

RECIPE = Recipe(
    data="digits", model="shake_resnet8_2x4d", rule="S-S-I", train_size=50, epochs=2, batch_size=20
).replace(flip=True, crop=1, checkpoint_every=0.0, device="cpu", precision="fp32", ema=0.9, mixup=0.2, clip_norm=5.0)
POINTS = ("fsync", "replace", "unlink")


def child(task, kill_at: int | None) -> int:
    """Run a task in a fork which dies just before (odd) or after (even) a file operation. Returns operations seen."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0
        for name in POINTS:

            def operation(*args, _real=getattr(os, name), **more):
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = _real(*args, **more)
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(os, name, operation)
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
    record.environment = lambda **more: {"note": "left out: asking git would take most of the time", **more}
    loop.environment = record.environment
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
