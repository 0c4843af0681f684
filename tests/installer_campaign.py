"""Kill the installer at every file operation, or make the operation fail, and check what the next run does about it.

    python installer_campaign.py FOLDER CAMPAIGN [OPERATION]

A program of its own, because it forks a child for every run of the installer: only a small single-threaded process
forks fast and safely. It prints a JSON object: how many runs, and every one that did not end as it must.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path

from failing_operations import at_every_operation, count_down, fail, kill
from fake_transformers import MODIFIED, STATE, Bench, make_repository, make_site, snapshot

VERBS = ("install", "restore", "status", "verify")
RANDOM_KILLS = 300


class Scene:
    """A folder with a site and the two patches that go over it."""

    def __init__(self, folder: Path):
        self.site = folder / "site"
        self.start = folder / "start"
        self.log = folder / "log"
        self.benches = {name: Bench(self.site, make_repository(folder / name, name)) for name in ("one", "two")}
        (folder / "two/transformers_files/interpretation/more.py").write_text("")
        (folder / "one/transformers_files/interpretation/gone.py").write_text("")
        self.installers = {name: bench.load() for name, bench in self.benches.items()}
        sys.path.insert(0, str(self.site))
        self.states = {"pristine": snapshot(make_site(self.site))}
        for name in ("one", "two"):
            self.run(name, "install")
            self.states[name] = snapshot(self.site)

    def run(self, name: str, verb: str, prepare: Callable[[], None] = lambda: None, proof: str = "") -> int:
        """Run the installer of a repository in a child; its exit status, negative if it was killed."""
        pid = os.fork()
        if pid == 0:
            self._child(name, verb, prepare, proof)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def start_child(self, name: str, verb: str) -> int:
        """The process id of an installer that runs."""
        pid = os.fork()
        if pid == 0:
            self._child(name, verb, lambda: None, "")
        return pid

    def _child(self, name: str, verb: str, prepare: Callable[[], None], proof: str) -> None:
        status = 99
        write = os.write  # untouched by what is made to fail
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            installer = self.installers[name]

            def self_test(folder: Path) -> None:
                if proof:
                    raise installer.PatchError(proof)

            installer.checks.run_self_test = self_test  # the real one takes a process: too slow for thousands of runs
            os.fsync = lambda descriptor: None
            output = StringIO()
            with redirect_stdout(output), redirect_stderr(output):
                prepare()
                status = installer.main([verb, "--yes"])
            write(log, output.getvalue().encode())
        except BaseException:
            write(log, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def copy(self, source: Path, target: Path) -> None:
        """Replace a tree by a copy of another."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)

    def state(self) -> str:
        """The name of the state that the site is in, byte for byte."""
        found = snapshot(self.site)
        return next((name for name, files in self.states.items() if files == found), "broken")

    def importable(self) -> bool:
        """A modified file never stands without the module that it imports."""
        modified = b"PATCH" in (self.site / MODIFIED[0]).read_bytes()
        return not modified or (self.site / "transformers/interpretation/core.py").exists()


class Operation:
    """What is interrupted: from which state, by which repository's verb, and where it may end."""

    def __init__(self, start: str, name: str, verb: str, end: str, proof: str = ""):
        self.start, self.name, self.verb, self.end, self.proof = start, name, verb, end, proof


OPERATIONS = {
    "install": Operation("pristine", "two", "install", "two"),
    "restore": Operation("two", "two", "restore", "pristine"),
    "update": Operation("one", "two", "install", "two"),
    "failing-update": Operation("one", "two", "install", "one", proof="does not fit"),
}


def recovery_problem(scene: Scene, operation: Operation, verb: str) -> str:
    """Let the next run recover; what is wrong with what it leaves, if anything."""
    status = scene.run("two", verb)
    allowed = {"install": {"two"}, "restore": {"pristine"}}.get(verb, {operation.start, operation.end})
    differs = verb == "verify" and scene.state() == "one"  # recovered, and rightly not called this patch
    if scene.state() in allowed and status == (2 if differs else 0):
        return ""
    return f"{verb} leaves {scene.state()}, status {status}: {scene.log.read_text()}"


def begin(scene: Scene, operation: Operation) -> None:
    """Keep the state to start from."""
    shutil.rmtree(scene.site)
    make_site(scene.site)
    if operation.start != "pristine":
        scene.run(operation.start, "install")
    assert scene.state() == operation.start
    scene.copy(scene.site, scene.start)


def kills(scene: Scene, operation: Operation) -> tuple[int, list[str]]:
    """SIGKILL at every file operation in turn; the verbs take turns in recovering."""
    begin(scene, operation)
    problems: list[str] = []
    for number in count(1):
        scene.copy(scene.start, scene.site)
        hook = count_down(number, kill)
        status = scene.run(operation.name, operation.verb, partial(at_every_operation, hook), operation.proof)
        if status != -signal.SIGKILL:
            break
        if not scene.importable():
            problems.append(f"killed at {number}: the package cannot be imported")
        problem = recovery_problem(scene, operation, VERBS[number % len(VERBS)])
        problems += [f"killed at {number}: {problem}"] if problem else []
    if scene.state() != operation.end or status != (2 if operation.proof else 0):
        problems.append(f"uninterrupted: {scene.state()}, status {status}")
    return number - 1, problems


def failures(scene: Scene, operation: Operation) -> tuple[int, list[str]]:
    """A full disk at every operation in turn; and permission lost for good at every seventh."""
    begin(scene, operation)
    problems: list[str] = []
    runs, reached = 0, mmap.mmap(-1, 1)
    for code, times, step in ((errno.ENOSPC, 1, 1), (errno.EACCES, sys.maxsize, 7)):
        for number in count(1, step):
            runs += 1
            scene.copy(scene.start, scene.site)
            reached[0] = 0
            hook = count_down(number, fail(code, times, reached))
            status = scene.run(operation.name, operation.verb, partial(at_every_operation, hook), operation.proof)
            text, state = scene.log.read_text(), scene.state()
            where = f"{errno.errorcode[code]} at {number}: {state}, status {status}, {text!r}"
            if times == 1 and not without_litter(
                scene.site, scene.states[operation.end if status == 0 else operation.start]
            ):
                problems.append(f"{where}: neither done nor rolled back")
            problem = recovery_problem(scene, operation, VERBS[number % len(VERBS)])
            problems += [f"{where}: {problem}"] if problem else []
            if not reached[0]:
                break
            if status and (status != 2 or text.count("\n") != 1 or os.strerror(code) not in text):
                problems.append(f"{where}: not one line and status 2")
    return runs, problems


def without_litter(site: Path, state: dict[str, str]) -> bool:
    """Is the site in this state, apart from old contents in the installer's own folder that the next run removes?"""
    found = snapshot(site)
    return all(found.get(path) == value for path, value in state.items()) and all(
        path in state or path.split("/")[0] == STATE for path in found
    )


def no_permission(scene: Scene) -> tuple[int, list[str]]:
    """Somebody who may read the package and not write to it."""
    begin(scene, OPERATIONS["restore"])
    problems = []
    for verb, expected in (("install", 2), ("restore", 2), ("status", 0), ("verify", 0)):
        name = "one" if verb == "install" else "two"
        status = scene.run(name, verb, partial(become_a_reader, scene, name))
        text = scene.log.read_text()
        if status != expected or (status and "Permission denied" not in text):
            problems.append(f"{verb}: status {status}: {text}")
        if scene.state() != "two":
            problems.append(f"{verb}: {scene.state()}")
    return 4, problems


def become_a_reader(scene: Scene, name: str) -> None:
    """Take away the permission to write; the system's administrator has to become somebody else for that."""
    scene.installers[name].main(["verify"])  # loads every module while there is the permission to read them
    for place in (scene.site, *scene.site.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    if os.getuid() == 0:
        os.setuid(65534)


def random_kills(scene: Scene) -> tuple[int, list[str]]:
    """One run after the other on the same site, most of them killed at some time, recovery runs included."""
    dice = random.Random(20240229)
    problems: list[str] = []
    kills = 0
    started = time.monotonic()
    scene.run("two", "install")
    longest = 2 * (time.monotonic() - started)
    while kills < RANDOM_KILLS:
        name, verb = dice.choice(("one", "two")), dice.choice((*VERBS, "install", "restore"))
        pid = scene.start_child(name, verb)
        time.sleep(dice.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        kills += killed
        if not scene.importable():
            problems.append(f"after kill {kills}: the package cannot be imported")
        if dice.random() < 0.3:
            status = scene.run("two", "status")
            if status or scene.state() == "broken":
                problems.append(f"after kill {kills}: {scene.state()}, status {status}: {scene.log.read_text()}")
    return kills, problems


def main(folder: str, campaign: str, operation: str = "") -> None:
    """Run a campaign and print what came of it."""
    scene = Scene(Path(folder))
    alone = {"random-kills": random_kills, "no-permission": no_permission}
    if campaign in alone:
        runs, problems = alone[campaign](scene)
    else:
        runs, problems = {"kills": kills, "failures": failures}[campaign](scene, OPERATIONS[operation])
    print(json.dumps({"runs": runs, "problems": problems}))


if __name__ == "__main__":
    main(*sys.argv[1:])
