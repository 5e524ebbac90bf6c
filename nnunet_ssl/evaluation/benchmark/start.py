"""What `nnunet_ssl benchmark` does with its options, step by step."""

from __future__ import annotations

import os

from nnunet_ssl import discovery
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.cluster_scripts import Resources, write_script
from nnunet_ssl.evaluation.benchmark.expand import prepare
from nnunet_ssl.evaluation.benchmark.jobs import (
    MANIFEST_FILE,
    Job,
    is_complete,
    read_benchmark,
    write_manifest,
)
from nnunet_ssl.evaluation.benchmark.manifest import Manifest, parse_manifest, to_json
from nnunet_ssl.evaluation.benchmark.run_local import retire, run_in_foreground, run_local
from nnunet_ssl.evaluation.benchmark.slurm import LOCAL, SLURM, run_submitted

RUNNERS = ("local", "slurm", "submitit-local")


def stored_manifest(output: str) -> Manifest:
    """The manifest of an earlier start in this folder.

    Raises:
        SemiSupervisedError: there is none.
    """
    content, _ = read_benchmark(output)
    return parse_manifest(content, os.path.join(output, MANIFEST_FILE), output)


def begin(manifest: Manifest, output: str) -> tuple[Manifest, list[Job]]:
    """Check, write plans and OUT/manifest.json. Results of an earlier start stay where settings are the same."""
    discovery.register()
    if os.path.isfile(os.path.join(output, MANIFEST_FILE)):
        read_benchmark(output)  # never replace a file of another program
    manifest, jobs = prepare(manifest, output)
    os.makedirs(output, exist_ok=True)
    write_manifest(output, to_json(manifest), jobs)
    retire(output, jobs)
    return manifest, jobs


def run_all(
    manifest: Manifest, output: str, runner: str, processes: int | None, resources: Resources, wait: bool = True
) -> list[Job] | None:
    """Run the benchmark to its end. Returns its jobs, or None where nobody waits for that end."""
    manifest, jobs = begin(manifest, output)
    complete = sum(is_complete(output, job) for job in jobs)
    print(f"Semi-supervised benchmark in {output}: {len(jobs)} jobs, {complete} of them already complete.", flush=True)
    if runner == "local":
        run_local(output, jobs, manifest.device, processes)
    elif not run_submitted(output, jobs, resources, SLURM if runner == "slurm" else LOCAL, wait):
        print(f"When they are done: nnunet_ssl benchmark -o {output}   (runs what failed, and writes the report)")
        return None
    return jobs


def write_only(manifest: Manifest, output: str, kind: str, resources: Resources) -> int:
    """Write the script that runs the jobs elsewhere."""
    _, jobs = begin(manifest, output)
    todo = [job for job in jobs if not is_complete(output, job)]
    if not todo:
        print(f"All {len(jobs)} jobs in {output} are complete. Their table: nnunet_ssl report {output}")
        return 0
    written = write_script(kind, output, todo, resources)
    print(f"{written.path}: {len(todo)} of {len(jobs)} jobs\n{written.instructions}")
    return 0


def run_single(output: str, job_id: str) -> int:
    """One job of an existing benchmark, in the foreground. Returns 1 if it is not complete in the end."""
    discovery.register()
    manifest, jobs = read_benchmark(output)
    found = [job for job in jobs if job.id == job_id]
    if not found:
        raise complain(f'{output} has no job "{job_id}". Its jobs:', [job.id for job in jobs], "Give one with --job.")
    (job,) = found
    return run_in_foreground(output, job, manifest["device"])
