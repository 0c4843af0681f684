"""Everything that may disturb a run, at random, for a while; each result is compared with a quiet single run.

    python tests/soak.py [SECONDS] [SEED]          # 600 seconds by default

A round is one of two. Four threads interpret at once, with one model, while a fifth runs the plain model. Or a table is
begun, stopped up to four times (killed, interrupted, out of disk space, given another chat template), each time on
another day, and finished. The last line counts the rounds and those that went wrong; the status is 1 if any did.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "scripts" / "get_interpretations_from_examples.py"
sys.path[:0] = [str(HERE), str(HERE / "scripts"), str(SCRIPT.parent)]

from common.program import prepare_environment  # noqa: E402

prepare_environment()  # children find torch in use already, and its libraries with their last bits settled

import torch  # noqa: E402
from forked_script import fork, load_script  # noqa: E402
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder  # noqa: E402
from tiny_models import tiny_model  # noqa: E402
from tiny_tokenizer import VOCABULARY, tiny_tokenizer  # noqa: E402
from transformers.interpretation import InterpretationPrompt, interpret  # noqa: E402
from transformers.interpretation.runs import planning, preparation  # noqa: E402
from transformers.interpretation.runs.manifest import read_manifest  # noqa: E402

try:
    from transformers.utils import chat_template_utils
except ImportError:  # this version tells chat templates no time
    chat_template_utils = None

SECONDS = 600
DAYS = (datetime(2026, 5, 31), datetime(2026, 9, 1), datetime(2026, 12, 24))
"""Their names differ in length, so that a chat template that writes them makes prompts of different lengths."""
DATE = "{% if strftime_now is defined %}{{ strftime_now('%d %B') }}{% endif %}"
CONTENT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TEMPLATES = {"model": f"{DATE}: {CONTENT}", "other": f"{DATE}; {CONTENT}"}
DONE, STOPPED, REFUSED, INTERRUPTED, KILLED = 0, 1, 2, 130, -signal.SIGKILL


@dataclass(frozen=True)
class Workplace:
    """A folder with two models that differ in their chat templates, and the program, loaded."""

    folder: Path
    script: ModuleType

    @classmethod
    def make(cls, folder: Path) -> Workplace:
        write_tiny_folder(folder / "model", model=tiny_model(vocab_size=VOCABULARY))
        shutil.copytree(folder / "model", folder / "other")
        for name, template in TEMPLATES.items():
            tokenizer = tiny_tokenizer()
            tokenizer.chat_template = template
            tokenizer.save_pretrained(folder / name)
        write_json(folder / "short.json", SHORT_PROMPT)
        examples = [{"prompt": "Hi"}, {"prompt": "raw", "raw": True}, {"prompt": "Yes", "answer": "x"}]
        write_json(folder / "examples.json", {"examples": examples})
        return cls(folder, load_script(str(SCRIPT), ["--model", str(folder / "model")]))

    def start(self, output: Path, day: datetime, *, model: str = "model", most_bytes: int | None = None) -> int:
        """The id of a process that makes the table, or goes on with it, on that day; with so much space for a file."""
        files = {"--examples": "examples.json", "--interpretation-prompt": "short.json", "--model": model}
        options = [
            "--max-new-tokens",
            "3",
            "--dtype",
            "float32",
            "--device",
            "cpu",
            "--batch-size",
            "5",
            "--output",
            str(output),
        ]
        options += [word for option, name in files.items() for word in (option, str(self.folder / name))]

        def run() -> int:
            stand_at(day)
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            return self.script.main(options)

        return fork(run, os.devnull)  # a full disk would have no room for what is said, either


def stand_at(day: datetime) -> None:
    """All clocks of this process that tell the time to chat templates."""

    class Standing(datetime):
        @classmethod
        def now(cls, tz=None):
            return day

    for module in filter(None, (chat_template_utils, preparation, planning)):
        module.datetime = Standing


def ended(process: int) -> int:
    """The status of a process; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Tables:
    """Tables that are stopped again and again."""

    def __init__(self, workplace: Workplace, dice: random.Random) -> None:
        self.workplace, self.dice = workplace, dice
        began = time.monotonic()
        self.quiet = {(day, kind): self._quiet(day, kind) for day in DAYS for kind in ("csv", "parquet")}
        self.seconds = (time.monotonic() - began) / len(self.quiet)

    def _quiet(self, day: datetime, kind: str) -> bytes:
        output = self.workplace.folder / f"quiet-{day:%m%d}.{kind}"
        assert ended(self.workplace.start(output, day)) == DONE
        return output.read_bytes()

    def round(self) -> list[str]:
        """What went wrong."""
        kind = self.dice.choice(["csv", "parquet"])
        with tempfile.TemporaryDirectory(dir=self.workplace.folder) as place:
            output = Path(place) / f"table.{kind}"
            wrong, done = [], []
            for _ in range(self.dice.randrange(5)):
                disturb = self.dice.choice([self._kill, self._interrupt, self._fill, self._swap])
                done.append(disturb.__name__.strip("_"))
                wrong += disturb(output, self.dice.choice(DAYS))
            status = ended(self.workplace.start(output, self.dice.choice(DAYS)))
            wrong += self._compare(output, kind) if status == DONE else [f"the last run ended with {status}"]
            return [f"{line} (after {', '.join(done) or 'nothing'})" for line in wrong]

    def _compare(self, output: Path, kind: str) -> list[str]:
        day = datetime.fromisoformat(read_manifest(output).began)
        found, left = output.read_bytes(), {path.name for path in output.parent.iterdir()}
        wrong = [] if found == self.quiet[day, kind] else [f"another {kind} than a quiet run's"]
        return wrong + (
            [] if left == {output.name, f"{output.name}.manifest.json", "table.html"} else [f"left: {left}"]
        )

    def _kill(self, output: Path, day: datetime) -> list[str]:
        return self._signal(output, day, signal.SIGKILL, (DONE, KILLED))

    def _interrupt(self, output: Path, day: datetime) -> list[str]:
        # An interrupt before the program has begun is the campaign's own to handle.
        return self._signal(output, day, signal.SIGINT, (DONE, INTERRUPTED, 99, -signal.SIGINT))

    def _signal(self, output: Path, day: datetime, which: int, fine: tuple[int, ...]) -> list[str]:
        process = self.workplace.start(output, day)
        time.sleep(self.dice.uniform(0, 1.2) * self.seconds)
        with suppress(ProcessLookupError):
            os.kill(process, which)
        status = ended(process)
        return [] if status in fine else [f"signal {which} ended with {status}"]

    def _fill(self, output: Path, day: datetime) -> list[str]:
        status = ended(self.workplace.start(output, day, most_bytes=self.dice.randrange(1, 60_000)))
        return [] if status in (DONE, STOPPED) else [f"a full disk ended with {status}"]

    def _swap(self, output: Path, day: datetime) -> list[str]:
        """Another template is another model: refused where a table has been begun, and it stays as it is."""
        before = output.read_bytes() if output.exists() else b""
        if not before:
            return []
        status = ended(self.workplace.start(output, day, model="other"))
        return [] if (status, output.read_bytes()) == (REFUSED, before) else [f"another template ended with {status}"]


class Threads:
    """Four that interpret with one model, and one that runs it plainly."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.model, self.tokenizer = tiny_model(vocab_size=VOCABULARY), tiny_tokenizer()
        self.prompt = InterpretationPrompt.from_text(self.tokenizer, "ab: _ _ is", name="short")
        self.tasks = [self._task(text, insert) for text in ("Hi", "Hello", "abc") for insert in (1, (0, 2), "same")]
        self.quiet = [task() for task in self.tasks]

    def _task(self, text: str, insert_layer: object) -> Callable[[], list]:
        options = {"raw": True, "interpretation_prompt": self.prompt, "max_new_tokens": 3, "layers": "0:4"}
        options |= {"insert_layer": insert_layer, "batch_size": 8}
        return lambda: list(interpret(self.model, self.tokenizer, text, **options))

    @torch.no_grad()
    def _plain(self) -> list[torch.Tensor]:
        ids = torch.arange(5, 20)[None]
        output = self.model(ids, labels=ids)
        return [output.loss, output.logits]

    def round(self) -> list[str]:
        """What went wrong."""
        chosen = [self.dice.randrange(len(self.tasks)) for _ in range(4)]
        wrong, over, plain = [], threading.Event(), self._plain()

        def guarded(name: str, right: Callable[[], bool]) -> None:
            try:
                wrong.extend([] if right() else [name])
            except Exception as error:  # an error in a thread would go unnoticed
                wrong.append(f"{name}: {error!r}")

        def watch() -> None:
            while not over.is_set():
                guarded("a plain pass", lambda: all(map(torch.equal, self._plain(), plain)))

        threads = [
            threading.Thread(target=guarded, args=(f"task {n}", lambda n=n: self.tasks[n]() == self.quiet[n]))
            for n in chosen
        ]
        watching = threading.Thread(target=watch)
        before = sys.getswitchinterval()
        sys.setswitchinterval(10 ** self.dice.uniform(-6, -2))
        for thread in (watching, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        watching.join()
        sys.setswitchinterval(before)
        return wrong


def main(seconds: float = SECONDS, seed: int | None = None) -> int:
    """Print what went wrong, and the count."""
    end = time.monotonic() + seconds
    seed = random.randrange(10**6) if seed is None else seed
    dice = random.Random(seed)
    rounds = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        workplace = Workplace.make(Path(folder))
        kinds = [Tables(workplace, dice), Threads(dice)]
        while rounds == 0 or time.monotonic() < end:
            found = dice.choice(kinds).round()
            rounds += 1
            wrong += bool(found)
            for line in found:
                print(f"round {rounds}, seed {seed}: {line}", flush=True)
    print(f"{rounds} rounds, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*(kind(word) for kind, word in zip((float, int), sys.argv[1:]))))
