"""Lets nnU-Net's own commands fork the pools that they would spawn, and keep one thread; found through PYTHONPATH.

A spawned worker imports PyTorch and nnU-Net anew, which takes longer than a tiny training, and every validation spawns
two. With one thread of OpenMP a fork is as safe here. On a CPU nnU-Net sets as many threads as there are processors;
those of several tests at once would wait for each other most of the time.
"""

import multiprocessing
import sys


def fork_pools():
    original = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: original("fork" if method == "spawn" else method)
    multiprocessing.cpu_count = lambda: 1


if any("nnUNetv2_" in word for word in sys.orig_argv):
    fork_pools()
