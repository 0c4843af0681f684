"""The SLURM job file, with stubs in the place of SLURM's programs and two nodes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import get_interpretations_from_examples as script
import pytest
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder

SCRIPT = Path(script.__file__)
JOB = SCRIPT.parent / "slurm" / "interpret.slurm"
SMALL_CHUNKS = Path(__file__).resolve().parent / "small_chunks.py"

SRUN = """#!/usr/bin/env bash
# One task per node; if one fails, the others are ended.
echo "srun $1" >> calls
shift
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node "$@" &
done
status=0
for ((node = 0; node < SLURM_NNODES; node++)); do
    wait -n
    ended=$?
    if ((ended && !status)); then
        status=$ended
        kill $(jobs -p) 2> /dev/null
    fi
done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> calls
if [[ $1 == show ]]; then
    echo 127.0.0.1
    echo elsewhere
else
    kill $(cat tasks)
fi
"""
SLEEPER = """#!/usr/bin/env bash
echo $$ >> tasks
echo "$SLURM_NODEID: $*" >> launched
exec sleep 60
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stubs on the path, and the environment of a job on two nodes."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL), ("sleeper", SLEEPER)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(free_port() - 20000), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    return {**os.environ, **job, "PATH": path, "OMP_NUM_THREADS": "1", "SCRIPT": str(SMALL_CHUNKS)}


def free_port():
    """Of those that the job file chooses from."""
    for port in range(20000 + os.getpid() % 10000, 40000):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which(
        "shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    ended = subprocess.run([shellcheck, str(JOB)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_two_nodes_write_what_one_process_does(cluster):
    write_tiny_folder(Path("model"))
    write_json(Path("short.json"), SHORT_PROMPT)
    write_json(Path("examples.json"), {"examples": [{"prompt": "two words", "raw": True}]})
    arguments = ["--model", "model", "--examples", "examples.json", "--interpretation-prompt", "short.json"]
    arguments += ["--max-new-tokens", "3", "--dtype", "float32", "--device", "cpu", "--no-report"]
    cluster["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    subprocess.run([sys.executable, SMALL_CHUNKS, *arguments, "--output", "whole.csv"], env=cluster, check=True)
    command = ["bash", str(JOB), *arguments, "--output", "out file.csv"]
    ended = subprocess.run(command, env={**cluster, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("50 interpretations in") == 1
    assert Path("out file.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_job_whose_time_is_nearly_up_is_requeued(cluster):
    job = subprocess.Popen(
        ["bash", str(JOB), "--layers", "0 1"],
        env={**cluster, "PYTHON": "sleeper", "SLURM_GPUS_ON_NODE": "4"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not Path("launched").exists() or len(Path("launched").read_text().splitlines()) < 2:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert f"requeueing job {cluster['SLURM_JOB_ID']}" in job.communicate(timeout=30)[1]
    assert job.returncode == 128 + signal.SIGTERM
    assert Path("calls").read_text().splitlines() == [
        "scontrol show hostnames node[1-2]",
        "srun --kill-on-bad-exit=1",
        f"scontrol requeue {cluster['SLURM_JOB_ID']}",
    ]
    port = 20000 + int(cluster["SLURM_JOB_ID"])
    assert sorted(Path("launched").read_text().splitlines()) == [
        f"{node}: -m accelerate.commands.launch --machine_rank {node} --num_machines 2 --num_processes 8 "
        f"--main_process_ip 127.0.0.1 --main_process_port {port} --multi_gpu {SMALL_CHUNKS} --layers 0 1"
        for node in range(2)
    ]
