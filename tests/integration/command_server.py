"""One process per run of pytest that has imported nnU-Net and forks the commands, since the imports take longer than a
tiny training. Started by path, with the folders of the first project; each command brings its own environment.

A line of JSON in: words, environment, folder, file for the output. A line out: the exit code.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import entry_points

SECONDS = 600
FEW_VOXELS = property(lambda self: 10**6, lambda self, value: None)
"""For nnU-Net's fingerprint, which draws 10^8 with replacement, however small the dataset is: 6 s of a tiny one's 7."""


@lru_cache(maxsize=1)
def server() -> subprocess.Popen[str]:
    """It ends with its input, so with this process, however that ends."""
    folder = os.path.join(os.path.dirname(__file__), "fork_pools")
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "PYTHONPATH": path}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, __file__], env={**os.environ, **settings}, **pipes)
    atexit.register(process.terminate)
    return process


def run_forked(words: list[str], environment: dict[str, str], folder: str, output: str) -> int:
    """Run a console script in a fork of the server; its exit code."""
    process = server()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([words, environment, folder, output]) + "\n")
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], SECONDS)
    if not ready:
        process.kill()
        server.cache_clear()
        raise TimeoutError(f"{' '.join(words)} took more than {SECONDS} seconds")
    return int(process.stdout.readline())


def serve() -> None:
    """Returns in a child, with the words of its command as sys.argv."""
    import nnunetv2.experiment_planning.plan_and_preprocess_entrypoints
    import nnunetv2.inference.predict_from_raw_data
    import nnunetv2.run.run_training  # noqa: F401
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.training.logging.nnunet_logger import MetaLogger
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    import nnunet_ssl.training.base  # noqa: F401
    from nnunet_ssl.training import curves

    # two figures and debug.json take longer than a tiny epoch; commands in processes of their own write them
    MetaLogger.plot_progress_png, curves.draw_png = lambda self, folder: None, lambda table, folder: None
    nnUNetTrainer._save_debug_information = lambda self: None
    DatasetFingerprintExtractor.num_foreground_voxels_for_intensitystats = FEW_VOXELS
    recursive_find_trainer_class_by_name("nnUNetTrainer_1epoch")  # imports all of nnU-Net's
    gc.freeze()  # or the collector of each child would copy the memory of all that is imported
    # lines of the file, not of a buffer that a fork would share
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    while line := requests.readline():
        words, environment, folder, output = json.loads(line)
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
            continue
        files = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for target, source in enumerate((files[0], files[1], files[1])):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = words
        return
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    serve()
    if sys.argv[0].startswith("nnUNetv2_"):
        import sitecustomize

        sitecustomize.fork_pools()
    del sys.modules["__main__"].__file__  # what the command spawns need not import this file
    (script,) = entry_points(group="console_scripts", name=sys.argv[0])
    sys.exit(script.load()())
