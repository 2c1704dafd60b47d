"""The processes of one site: rank 0 speaks to the server, the others get what it got, by broadcast.

The group is the script's own, if it has made one when the first task is awaited, else gloo (NCCL where there are GPUs). While
rank 0 waits for a long round it says so every minute, so that no collective runs into its timeout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from .codec import Inflow, flatten
from .config import Ranks
from .errors import OUT_OF_STEP, FedJobError, JobFailed, LocalProtocolError, ReceiveTimeout, ended
from .wire_pb2 import Task

_WAIT_SECONDS = 60.0
_CHUNK_BYTES = 16 << 20
_MOST_BYTES = 1 << 30  # of a message: far above a task's, far below what a collective of the script would seem to say


class Gang:
    """Rank 0 and the others, in step: every rank makes the same calls in the same order."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._made_group = False
        self._pid = os.getpid()

    def close(self) -> None:
        """End the process group, if it was made here: one that is alive at the interpreter's end may abort the process."""
        if self._made_group and self._pid == os.getpid() and dist.is_initialized():
            dist.destroy_process_group()

    def share_task(self, ask: Callable[[float | None], Task | None], timeout: float | None) -> Task | None:
        """What `ask` returns on rank 0, on every rank; what it raises is raised on every rank."""
        if self._ranks.rank == 0:
            return self._lead(ask, timeout)
        while True:
            try:
                news = json.loads(self._broadcast(b""))
            except ValueError as e:
                raise LocalProtocolError(
                    f"rank {self._ranks.rank} got what is no message of fedjob: {OUT_OF_STEP}"
                ) from e
            if news["state"] == "task":
                return Task.FromString(bytes.fromhex(news["task"]))
            if news["state"] == "ended":
                return None
            if news["state"] == "timeout":
                raise ReceiveTimeout(news["message"])
            if news["state"] == "failed":
                raise ended(news["reason"], news["message"])

    def _lead(self, ask: Callable[[float | None], Task | None], timeout: float | None) -> Task | None:
        left = float("inf") if timeout is None else timeout
        while True:
            try:
                task = ask(min(left, _WAIT_SECONDS))
            except ReceiveTimeout as e:
                left -= _WAIT_SECONDS
                if left > 0:
                    self._tell(state="waiting")
                    continue
                self._tell(state="timeout", message=str(e))
                raise
            except FedJobError as e:
                reason, message = (e.reason, e.message) if isinstance(e, JobFailed) else (type(e).__name__, str(e))
                self._tell(state="failed", reason=reason, message=message)
                raise
            if task is None:
                self._tell(state="ended")
            else:
                self._tell(state="task", task=task.SerializeToString().hex())
            return task

    def share_parts(self, parts: dict[str, Any] | None) -> dict[str, Any] | None:
        """Rank 0's trees of tensors (or its None) on every rank, in chunks: no rank holds more than its own copy."""
        names = json.loads(self._broadcast(json.dumps(None if parts is None else list(parts)).encode()))
        if names is None or parts is None:
            return None
        for name in names:
            if self._ranks.rank == 0:
                outflow = flatten(parts[name])
                self._broadcast(str(outflow.layout.size).encode())
                for at in range(0, outflow.layout.size, _CHUNK_BYTES):
                    chunk = outflow.read(at, min(at + _CHUNK_BYTES, outflow.layout.size))
                    self._bytes(bytes(chunk), len(chunk))
            else:
                size, inflow = int(self._broadcast(b"")), Inflow()
                while inflow.position < size:
                    inflow.write(self._bytes(b"", min(_CHUNK_BYTES, size - inflow.position)))
                parts[name] = inflow.tree()
        return parts

    def _tell(self, **news: str) -> None:
        self._broadcast(json.dumps(news).encode())

    def _broadcast(self, message: bytes) -> bytes:
        """A message of rank 0, of any length, on every rank."""
        length = int.from_bytes(self._bytes(len(message).to_bytes(8, "little"), 8), "little")
        if length > _MOST_BYTES:
            raise LocalProtocolError(f"rank {self._ranks.rank} got what is no message of fedjob: {OUT_OF_STEP}")
        return self._bytes(message, length)

    def _bytes(self, data: bytes, size: int) -> bytes:
        device = self._device()
        if self._ranks.rank == 0:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
        else:
            buffer = torch.empty(size, dtype=torch.uint8, device=device)
        dist.broadcast(buffer, src=0)
        return data if self._ranks.rank == 0 else buffer.cpu().numpy().tobytes()

    def _device(self) -> torch.device:
        """Where this gang's collectives want their tensors; makes the process group if the script has not."""
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            self._made_group = True
        if dist.get_backend() == "nccl":
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("cpu")
