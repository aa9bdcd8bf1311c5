"""One run on several processes: the one file that knows torchrun.

Started as ``torchrun --nproc-per-node N -m shakeshake train ...``, every process finds its place in the environment.
Each computes its share of every batch, with coefficients and batch statistics of its own, as the paper's two GPUs did.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib
import inspect
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError, RunError

PATIENCE = datetime.timedelta(minutes=10)  # for a process that does not answer but has not died either


@dataclass(frozen=True)
class Group:
    """The processes of a run. Alone it does nothing, at no cost.

    rank, size: this process's number and how many there are; rank 0 leads: it alone writes and speaks.
    local_rank: its number on its machine, which is the number of its GPU. restarts: how often torchrun has started
    all of them again.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def add(self, *values: Tensor) -> list[Tensor]:
        """Each tensor's sum over the processes."""
        if self.size == 1:
            return list(values)
        values = tuple(value.detach().clone() for value in values)
        for value in values:
            dist.all_reduce(value)
        return list(values)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is up in any process. Does not wait for a GPU."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def share(self, text: str) -> str:
        """The leader's text."""
        if self.size == 1:
            return text
        encoded = text.encode()
        length = torch.tensor(len(encoded))
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            content.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.numpy().tobytes().decode()

    def lead(self, action: Callable[[], None]) -> None:
        """Let the leader do something. If it fails there, it fails here, in silence: the leader says why."""
        error: BaseException | None = None
        if self.leads:
            try:
                action()
            except (InputError, RunError, OSError) as failed:
                error = failed
        (failed_there,) = self.any(error is not None)
        if error is not None:
            raise error
        if failed_there:
            raise SilentEnd

    def share_statistics(self, network: nn.Module) -> None:
        """Give every process the leader's running statistics, those that are tested and saved."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def in_step(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages gradients over the processes. Begins with the leader's weights."""
        if self.size == 1:
            return network
        replicas = nn.parallel.DistributedDataParallel
        known = inspect.signature(replicas).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # an older torch
        options: dict[str, Any] = {name: False}
        return replicas(network, gradient_as_bucket_view=True, **options)

    def averaging(self, network: nn.Module, now: bool) -> AbstractContextManager:
        """Whether this backward pass averages: only the last of a step has to."""
        if now or self.size == 1:
            return contextlib.nullcontext()
        assert isinstance(network, nn.parallel.DistributedDataParallel)
        return network.no_sync()

    @contextlib.contextmanager
    def losses_told(self) -> Iterator[None]:
        """Turn the backends' error about a process that is gone into one sentence."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or isinstance(error, RunError) or not _is_about_others(error):
                raise
            raise RunError(
                f"process {self.rank} of {self.size} has lost another one; torchrun --max-restarts N starts them "
                "again from the last checkpoint, `shakeshake resume` does it by hand"
            ) from None


ALONE = Group()


class SilentEnd(RunError):
    """Another process has failed and says why."""

    def __init__(self) -> None:
        super().__init__("")


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """The group of processes that this one was started in; ALONE without torchrun, which may also start a single one.

    A network made by the group's in_step() must be out of reach where the with-block ends: make it in a function of its
    own. It holds on to the group, and threads of a group that outlives the block may want Python while Python takes
    itself down, which aborts the process. Raises InputError when the environment is not torchrun's.
    """
    group = _place()
    if group.size == 1:
        yield group
        return
    if dist.is_initialized():
        yield group
        return
    importlib.import_module("torch._dynamo")  # DDP would; imported in a group, it holds on to it for good
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torchrun's store outlives the processes that it starts again: without a prefix they would meet the addresses of
    # the dead and wait for them.
    with _signals_act():
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
            store = dist.PrefixStore(f"attempt {group.restarts}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        except dist.DistError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"process {group.rank} of {group.size} has not found the others: {reason}") from None
    try:
        yield group
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # of functions that have ended, whose locals may hold a network
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def by_torchrun() -> bool:
    """Whether torchrun has started this process, and may start it again."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def _place() -> Group:
    """This process's place, as torchrun writes it into the environment."""
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    size = _number("WORLD_SIZE", 1)
    restarts = _number("TORCHELASTIC_RESTART_COUNT", 0) if by_torchrun() else 0
    if size == 1:
        return Group(restarts=restarts)
    if not os.environ.get("MASTER_ADDR"):
        raise InputError("MASTER_ADDR: is not set and WORLD_SIZE is, expected a start by torchrun, which sets both")
    _number("MASTER_PORT", 0, 65535)
    return Group(_number("RANK", 0, size - 1), size, _number("LOCAL_RANK", 0, size - 1), restarts)


def _number(name: str, least: int, most: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not (text.isdecimal() and least <= int(text) <= (int(text) if most is None else most)):
        numbers = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{name}: got {text!r}, expected {numbers}, as torchrun sets it")
    return int(text)


@contextlib.contextmanager
def _signals_act() -> Iterator[None]:
    """Let a signal end the process at once: Python's handlers would wait for what C++ waits for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_about_others(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "socket", "peer"))
