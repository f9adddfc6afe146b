"""A SLURM of one node on this machine: munged, slurmctld and slurmd of its own, in a folder of its own, on free ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=0
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [d for d in DAEMONS if shutil.which(d, path=PATHS) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    return "" if os.getuid() == 0 else "slurmd wants root"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def called(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


@contextmanager
def cluster(folder: Path, cores: int) -> Iterator[None]:
    """Inside, sbatch and its like speak to a cluster with so many cores. Its jobs end with it."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    ports = {"controller": free_port(), "daemon": free_port()}
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=host, folder=folder, cores=cores, **ports), encoding="utf-8")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    of_munge = {"socket": "munge.socket", "key-file": key.name, "pid-file": "munged.pid"}
    of_munge |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    paths = [f"--{name}={folder / file}" for name, file in of_munge.items()]
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(file)
    try:
        for command in (["munged", "--force", *paths], ["slurmctld"], ["slurmd", "-N", host]):
            called(shutil.which(command[0], path=PATHS) or command[0], *command[1:])
        wait_until(lambda: "idle" in called("sinfo", "-h", "-o", "%T"))
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            called("scancel", "--me", "--signal=KILL")
            called("scancel", "--me")
            wait_until(lambda: not called("squeue", "-h"))
        for name in reversed(DAEMONS):
            end(folder / f"{name}.pid")
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def wait_until(holds, seconds: float = 60.0) -> None:
    """Until `holds()`; what it raises meanwhile counts as no."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with suppress(subprocess.CalledProcessError, OSError):
            if holds():
                return
        time.sleep(0.1)
    raise TimeoutError(f"not after {seconds:.0f} s")


def end(file: Path) -> None:
    """Ends the daemon whose number is in `file`, and waits for it."""
    if not file.exists():
        return
    number = int(file.read_text(encoding="utf-8"))
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{number}").exists(), 10)


def state(job: str) -> str:
    return called("squeue", "-h", "-r", "-t", "all", "-o", "%T", "-j", job).strip()


def task_of(job: str) -> int:
    """The number of a job's own process."""
    number = called("squeue", "-h", "-o", "%A", "-j", job).strip()  # of its own, not of the array's
    lines = [line.split() for line in called("scontrol", "listpids", number).splitlines()[1:]]
    return next(int(pid) for pid, _, _, local, _ in lines if local != "-")


def release(job: str) -> None:
    """A job that was queued again begins at once, without the pause that SLURM puts before."""
    called("scontrol", "update", f"JobId={job}", "StartTime=now")
