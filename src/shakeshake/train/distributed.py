"""Distributed training with torchrun.

Start with ``torchrun --nproc-per-node N -m shakeshake train ...``. Each process computes its slice of every batch, with
its own shake coefficients and batch statistics, as the paper's two GPUs did.
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

TIMEOUT = datetime.timedelta(minutes=10)  # for a process that is alive but does not answer


@dataclass(frozen=True)
class DistContext:
    """The processes of a run. With a single process all methods are free no-ops.

    Attributes:
        rank: Index of this process; 0 is the main process, which alone writes files and logs.
        size: Number of processes.
        local_rank: Index of this process on its machine, and of its GPU.
        restarts: How often torchrun has restarted the processes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def all_reduce_sum(self, *values: Tensor) -> list[Tensor]:
        """Return each tensor summed over the processes."""
        if self.size == 1:
            return list(values)
        values = tuple(value.detach().clone() for value in values)
        for value in values:
            dist.all_reduce(value)
        return list(values)

    def any_rank(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process. Does not wait for a GPU."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def broadcast_str(self, text: str) -> str:
        """Return the main process's text."""
        if self.size == 1:
            return text
        encoded = text.encode()
        length = torch.tensor(len(encoded))
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_main:
            content.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.numpy().tobytes().decode()

    def run_on_main(self, action: Callable[[], None]) -> None:
        """Run an action in the main process. If it fails, the other processes raise SilentEnd."""
        error: BaseException | None = None
        if self.is_main:
            try:
                action()
            except (InputError, RunError, OSError) as failed:
                error = failed
        (failed_there,) = self.any_rank(error is not None)
        if error is not None:
            raise error
        if failed_there:
            raise SilentEnd

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copy the main process's running statistics, which are evaluated and saved, to all processes."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """Wrap a network in DistributedDataParallel; all processes get the main one's weights."""
        if self.size == 1:
            return network
        replicas = nn.parallel.DistributedDataParallel
        known = inspect.signature(replicas).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # an older torch
        options: dict[str, Any] = {name: False}
        return replicas(network, gradient_as_bucket_view=True, **options)

    def grad_sync(self, network: nn.Module, now: bool) -> AbstractContextManager:
        """Return a context in which backward averages gradients only if ``now``: the last microbatch of a step."""
        if now or self.size == 1:
            return contextlib.nullcontext()
        assert isinstance(network, nn.parallel.DistributedDataParallel)
        return network.no_sync()

    @contextlib.contextmanager
    def translate_peer_errors(self) -> Iterator[None]:
        """Turn a communication error after another process has died into a RunError."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or isinstance(error, RunError) or not _is_peer_error(error):
                raise
            raise RunError(
                f"process {self.rank} of {self.size} lost another one; torchrun --max-restarts N restarts them "
                "from the last checkpoint, or run: shakeshake resume"
            ) from None


SINGLE_PROCESS = DistContext()


class SilentEnd(RunError):
    """Another process has failed and reports why."""

    def __init__(self) -> None:
        super().__init__("")


@contextlib.contextmanager
def distributed_context() -> Iterator[DistContext]:
    """Join the process group that torchrun started this process in; yield SINGLE_PROCESS without torchrun.

    No reference to a network from ``wrap_ddp`` may be left when the block ends: it keeps the process group alive, whose
    threads can abort the process at interpreter shutdown.

    Raises:
        InputError: Environment variables of torchrun are missing or invalid.
        RunError: The other processes were not found.
    """
    context = _from_environment()
    if context.size == 1:
        yield context
        return
    if dist.is_initialized():
        yield context
        return
    importlib.import_module("torch._dynamo")  # imported by DDP; after joining, it would keep the process group alive
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torchrun's store outlives restarts: without a prefix, processes would wait for addresses of the previous attempt.
    with _default_signal_handlers():
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            store = dist.PrefixStore(f"attempt {context.restarts}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        except dist.DistError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"process {context.rank} of {context.size} has not found the others: {reason}") from None
    try:
        yield context
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # finished frames may hold a network
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def by_torchrun() -> bool:
    """Whether torchrun started this process and may restart it."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def _from_environment() -> DistContext:
    """Read the environment variables that torchrun sets."""
    if "WORLD_SIZE" not in os.environ:
        return SINGLE_PROCESS
    size = _number("WORLD_SIZE", 1)
    restarts = _number("TORCHELASTIC_RESTART_COUNT", 0) if by_torchrun() else 0
    if size == 1:
        return DistContext(restarts=restarts)
    if not os.environ.get("MASTER_ADDR"):
        raise InputError("MASTER_ADDR: is not set but WORLD_SIZE is, expected both, as torchrun sets them")
    _number("MASTER_PORT", 0, 65535)
    return DistContext(_number("RANK", 0, size - 1), size, _number("LOCAL_RANK", 0, size - 1), restarts)


def _number(name: str, least: int, most: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not (text.isdecimal() and least <= int(text) <= (int(text) if most is None else most)):
        numbers = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{name}: got {text!r}, expected {numbers}, as torchrun sets it")
    return int(text)


@contextlib.contextmanager
def _default_signal_handlers() -> Iterator[None]:
    """Let signals end the process at once: Python's handlers do not run while C++ waits for other processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_peer_error(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "socket", "peer"))
