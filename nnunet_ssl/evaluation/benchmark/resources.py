"""What a command and its children use: its share of the cores, memory, GPU memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from nnunet_ssl.data.workers import usable_cores

MEGABYTE = 2**20
GPU_PERIOD = 5.0  # seconds; nvidia-smi can take a good part of one
PATIENCE = 10  # seconds for an answer of nvidia-smi
LOADERS = 12  # nnU-Net's own number of loading processes


class Peak:
    """The largest memory of a process tree so far. ``sample`` is to be called a few times per second.

    Attributes:
        memory_mb: sum of RSS over the descendants of a process.
        gpu_memory_mb: None as long as nvidia-smi names none of them (no GPU, or a container that hides process ids).
    """

    def __init__(self, gpu: bool) -> None:
        self.memory_mb: float | None = None
        self.gpu_memory_mb: float | None = None
        self._smi = shutil.which("nvidia-smi") if gpu else None
        self._next_gpu = 0.0

    def sample(self, pid: int) -> None:
        processes, memory = _tree(pid)
        if processes:
            self.memory_mb = max(self.memory_mb or 0.0, memory / MEGABYTE)
        if self._smi and processes and time.monotonic() >= self._next_gpu:
            used = [mb for process, mb in _gpu_processes(self._smi) if process in processes]
            if used:
                self.gpu_memory_mb = max(self.gpu_memory_mb or 0.0, sum(used))
            self._next_gpu = time.monotonic() + GPU_PERIOD


def _tree(pid: int) -> tuple[set[int], int]:
    """Descendants of a process and the sum of their resident memory in bytes."""
    pids, total = set[int](), 0
    try:
        descendants = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return pids, 0
    for process in descendants:
        try:
            total += process.memory_info().rss
            pids.add(process.pid)
        except psutil.Error:  # it has just ended
            continue
    return pids, total


def _gpu_processes(smi: str) -> list[tuple[int, float]]:
    """(process, MB) of everything that computes on a GPU."""
    query = [smi, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return []
    pairs = [line.split(",") for line in lines]
    return [(int(p[0]), float(p[1])) for p in pairs if len(p) == 2 and p[0].strip().isdigit() and _number(p[1])]


def _number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()  # else "[N/A]"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Values for CUDA_VISIBLE_DEVICES, one per GPU that may be used."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part.strip() for part in chosen.split(",") if part.strip() and part.strip() != "-1"]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def job_variables(environment: Mapping[str, str], device: str, gpu: str | None, at_once: int) -> dict[str, str]:
    """Environment of one of several jobs that run at once on this computer. What the user has set stays.

    nnU-Net starts 12 loading and 8 exporting processes per training whatever else runs, and as many threads as there
    are cores where it trains on the CPU.

    Args:
        gpu: for CUDA_VISIBLE_DEVICES, None to leave it alone.
        at_once: number of jobs.
    """
    share = max(1, usable_cores() // at_once)
    variables = {
        "nnUNet_n_proc_DA": "1" if device == "cpu" else str(min(LOADERS, share)),
        "nnUNet_def_n_proc": str(min(8, share)),
        "nnUNet_npp": str(min(3, share)),
        "nnUNet_nps": str(min(3, share)),
    }
    if device == "cpu" and at_once > 1:
        # nnU-Net asks for a thread per core; they must not spin while those of the other jobs wait for the core
        variables |= {"OMP_NUM_THREADS": str(share), "OMP_WAIT_POLICY": "PASSIVE"}
        if sys.version_info >= (3, 13):
            variables["PYTHON_CPU_COUNT"] = str(share)
    result = {name: value for name, value in variables.items() if name not in environment}
    if gpu is not None:
        result["CUDA_VISIBLE_DEVICES"] = gpu
    return result
