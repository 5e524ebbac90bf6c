"""Cases one after the other in this process, and on several where that is quicker."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping

from tqdm import tqdm

from nnunet_ssl.data.workers import Workers, usable_cores
from nnunet_ssl.evaluation.scoring.case import CaseResult, Rules, score_case

DESCRIPTION = "Evaluating"
TRIAL = 2.0  # seconds of work after which the rest is estimated
WORTHWHILE = 20.0  # seconds of remaining work that pay for starting processes, each of which imports MONAI (5 to 10 s)


def score_cases(
    files: Mapping[str, tuple[str, str]], rules: Rules, processes: int, score: bool = True
) -> dict[str, CaseResult]:
    """Check and score every case, in the order given, with a progress bar.

    Sixty small volumes are scored before a second process would have started. So this one begins alone, and hands the
    rest to others when it has seen that it pays.

    Args:
        files: case -> (reference, prediction).
        rules: how to score.
        processes: at most so many, never more than there are cases or cores.
        score: false to check the files only.

    Raises:
        SemiSupervisedError: a worker process died.
    """
    results: dict[str, CaseResult] = {}
    processes = min(processes, usable_cores())
    with tqdm(total=len(files), desc=DESCRIPTION, miniters=1) as bar:  # miniters: see Workers.map
        if score:
            importlib.import_module("nnunet_ssl.evaluation.scoring.metrics")  # before the clock starts
        started = time.monotonic()
        for case, pair in files.items():
            results[case] = score_case(case, *pair, rules, score)
            score = score and not results[case].problems  # then nothing will be written anyway
            bar.update()
            if processes > 1 and pays_off(time.monotonic() - started, len(results), len(files) - len(results)):
                bar.leave = False
                break
    rest = {case: (case, *pair, rules, score) for case, pair in files.items() if case not in results}
    if rest:
        with Workers(min(processes, len(rest))) as workers:
            results |= workers.map(score_case, rest, DESCRIPTION)
    return results


def pays_off(elapsed: float, done: int, remaining: int) -> bool:
    """Whether several processes, which take time to start, would do the remaining cases sooner than one."""
    return remaining > 1 and elapsed >= TRIAL and elapsed / done * remaining >= WORTHWHILE
