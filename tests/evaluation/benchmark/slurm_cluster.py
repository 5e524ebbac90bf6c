"""A SLURM cluster of one node on this machine, for as long as a test lasts. Needs Debian's slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=2
MinJobAge=300
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2048 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd; yields the environment for sbatch and the others.

    Raises:
        AssertionError: a daemon did not come up; its log is in the message.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(folder=folder, user=user, host=host, controller=free_port(), node=free_port())
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    environment = {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(folder / "slurm.conf")}
    files = ("key-file", "munge.key"), ("pid-file", "munge.pid"), ("log-file", "munge.log"), ("seed-file", "munge.seed")
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", "--num-threads=1"]
    munged += [f"--{option}={folder}/{name}" for option, name in files]
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> None:
        program = shutil.which(name, path=SEARCH)
        with open(folder / f"{name}.out", "wb") as log:
            daemons.append(subprocess.Popen([str(program), *words], env=environment, stdout=log, stderr=log))

    def ready() -> bool:
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        return done.stdout.strip() == "idle"

    try:
        start(munged[0], *munged[1:])
        until((folder / "munge.socket").exists, 20)
        start("slurmctld", "-D", "-i")
        start("slurmd", "-D", "-N", host)
        try:
            until(ready, 40)
        except AssertionError as error:
            logs = [path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.[lo][ou][gt]"))]
            raise AssertionError("SLURM did not start:\n" + "\n".join(logs)) from error
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
