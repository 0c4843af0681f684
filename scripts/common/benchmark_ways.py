"""The ways that the benchmark compares, each with its model in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from embedded_model import ensure_embedded_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.interpretation.engine.cell import Cell
from transformers.interpretation.engine.decode import interpret_chunk, resolve_batch_size
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.activations import capture
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPrompt

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
REPLY = "<|im_end|>\n<|im_start|>assistant\nSure, I will summarize the message:"
INTERPRETATION_PROMPT = ("<|im_start|>user\n", 0, 0, 0, 0, REPLY)
NEW_TOKENS = 30
CHUNK = 256
_FORGET_PEAK = Path("/proc/self/clear_refs")
FACTS = Path(__file__).parents[1] / "examples" / "facts.json"


@dataclass(frozen=True)
class Result:
    """One interpretation; `margins`, where they are known: the distance between the two best logits per token."""

    token_ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    relevancy: tuple[float, ...]
    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one turn of one way gave."""

    seconds: float
    results: list[Result]


class Way:
    """A way to interpret, with its model, its prompt and the vectors of the grids, in one process."""

    def __init__(self, name: str, dtype: str, new_tokens: int) -> None:
        folder = ensure_embedded_model()
        attention = (
            {"attn_implementation": "eager"} if name in ("baseline", "lean-eager") and _chooses_attention() else {}
        )
        self.name = name
        self.settings = InterpretationSettings(max_new_tokens=new_tokens)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype), **attention).eval()
        self.prompt = InterpretationPrompt.from_sequence(self.tokenizer, INTERPRETATION_PROMPT)
        self.grids: dict[str, torch.Tensor] = {}
        self.engine_batch = resolve_batch_size(self.model, [self.prompt], self.settings) if name == "engine" else 0
        self.peak_memory()

    def vectors(self, question: str, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Cells of the grid of a question, numbered layer by layer."""
        if question not in self.grids:
            ids = self.tokenizer(CHAT.format(question), add_special_tokens=False, return_tensors="pt").input_ids
            layers = range(self.model.config.num_hidden_layers + 1)
            self.grids[question] = capture(self.model, ids, layers, range(ids.shape[1])).flatten(0, 1)
        return list(self.grids[question][list(numbers)])

    def run(self, question: str, numbers: Sequence[int], batch_size: int = 0) -> Outcome:
        """Interpret and time. batch_size: of the baseline and the lean way."""
        vectors = self.vectors(question, numbers)
        if self.name == "engine":
            return self._engine(vectors, self.settings)
        passes = _baseline_passes if self.name == "baseline" else _lean_passes
        starts = range(0, len(vectors), batch_size)
        parts = [
            _in_three_calls(self.model, self.prompt, vectors[at : at + batch_size], self.settings, passes)
            for at in starts
        ]
        return Outcome(sum(part.seconds for part in parts), [result for part in parts for result in part.results])

    def guided(self, question: str, numbers: Sequence[int], guidance: float) -> Outcome:
        """The engine with so much guidance, in seconds of CPU time: a few percent drown in a shared machine's load.

        No token ends a text, so that all are equally long: the last rows of a batch cost more than the first.
        """
        ends, self.model.generation_config.eos_token_id = self.model.generation_config.eos_token_id, None
        vectors, began = self.vectors(question, numbers), time.process_time()
        outcome = self._engine(vectors, replace(self.settings, guidance=guidance))
        self.model.generation_config.eos_token_id = ends
        return replace(outcome, seconds=time.process_time() - began)

    def _engine(self, vectors: Sequence[torch.Tensor], settings: InterpretationSettings) -> Outcome:
        began = time.perf_counter()
        results = []
        for start in range(0, len(vectors), CHUNK):
            cells = [Cell(vector, self.prompt) for vector in vectors[start : start + CHUNK]]
            for found in interpret_chunk(self.model, cells, settings, batch_size=self.engine_batch):
                results.append(Result(found.token_ids, found.probabilities, found.relevancy))
        return Outcome(time.perf_counter() - began, results)

    def matmul(self, question: str, numbers: Sequence[int]) -> tuple[float, float]:
        """Floating-point operations of the linear layers over these cells, and this machine's rate on the same."""
        operations = 0

        def count(module: nn.Linear, args: tuple, output: torch.Tensor) -> None:
            nonlocal operations
            operations += 2 * output.numel() * module.in_features

        linears = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        handles = [linear.register_forward_hook(count) for linear in linears]
        self.run(question, numbers)
        for handle in handles:
            handle.remove()
        counted, operations = operations, 0
        rate = max(_matmul_rate(linears[:7]) for _ in range(5))  # the layers of one decoder layer
        return counted, rate

    def recovered_answers(self, count: int) -> float:
        """Share of facts whose answer the interpretation of the last token names, whole word, at some layer."""
        facts = json.loads(FACTS.read_text())["facts"][:count]
        layers = range(2, 25, 2)
        prompt = _describe(self.tokenizer)
        cells = []
        for fact in facts:
            ids = self.tokenizer(fact["prompt"], return_tensors="pt").input_ids
            cells += [Cell(vector[0], prompt) for vector in capture(self.model, ids, layers, [ids.shape[1] - 1])]
        settings = InterpretationSettings(max_new_tokens=8)
        found = interpret_chunk(self.model, cells, settings, batch_size=self.engine_batch)
        texts = self.tokenizer.batch_decode([list(each.token_ids) for each in found])
        said = [" ".join(texts[i * len(layers) : (i + 1) * len(layers)]) for i in range(len(facts))]
        named = [re.search(rf"\b{re.escape(fact['answer'])}\b", text) is not None for fact, text in zip(facts, said)]
        return sum(named) / len(named)

    def peak_memory(self) -> int:
        """Bytes, weights included; on Linux since this was last asked, and without the loading, equal for all ways."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if _FORGET_PEAK.exists():
            _FORGET_PEAK.write_text("5")
        return peak


def _chooses_attention() -> bool:
    return tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 36)


def _describe(tokenizer: Any) -> InterpretationPrompt:
    text = "Syria: a country in the Middle East\nLeonardo DiCaprio: an American actor\n"
    return InterpretationPrompt.from_text(tokenizer, text + "Samsung: a South Korean electronics company\n _ _ _")


def _matmul_rate(linears: Sequence[nn.Linear]) -> float:
    operations, seconds = 0, 0.0
    for linear in linears:
        rows = torch.randn(1024, linear.in_features, dtype=linear.weight.dtype)
        with torch.no_grad():
            began = time.perf_counter()
            for _ in range(4):
                torch.nn.functional.linear(rows, linear.weight)
        seconds += time.perf_counter() - began
        operations += 4 * 2 * rows.shape[0] * linear.weight.numel()
    return operations / seconds


Passes = Callable[[nn.Module, torch.Tensor, list], tuple[torch.Tensor, torch.Tensor, Any]]


def _baseline_passes(model: nn.Module, ids: torch.Tensor, info: list) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Logits `[batch, sequence, vocabulary]`, their softmax, and everything else that a full pass has recorded."""
    options = {"return_dict": True, "output_attentions": True, "output_hidden_states": True}
    out = model.forward_interpret(ids, insert_info=info, **options)
    logits = model.lm_head(out.hidden_states[-1])
    return logits, torch.softmax(logits, dim=-1), out


def _lean_passes(model: nn.Module, ids: torch.Tensor, info: list) -> tuple[torch.Tensor, torch.Tensor, Any]:
    logits = model.forward_interpret(ids, insert_info=info).logits
    return logits, torch.softmax(logits, dim=-1), None


@torch.no_grad()
def _in_three_calls(
    model: nn.Module,
    prompt: InterpretationPrompt,
    vectors: Sequence[torch.Tensor],
    settings: InterpretationSettings,
    passes: Passes,
) -> Outcome:
    """Generate under surgery, then a full pass with and one without it. The margins are not part of the time."""
    began = time.perf_counter()
    places = list(prompt.insert_locations)
    info = [
        {
            settings.insert_layer: (places, vector.expand(1, len(places), -1)),
            "overlay_strength": settings.overlay_strength,
            "replacing_mode": settings.replacing_mode,
        }
        for vector in vectors
    ]
    ids = torch.tensor([prompt.input_ids] * len(vectors))
    width, ends = ids.shape[1], model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    whole = model.generate_interpret(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=settings.max_new_tokens, do_sample=False,
        pad_token_id=ends[0], insert_info=info, output_attentions=False,
    )  # fmt: skip
    said = whole[:, width:]
    logits, probabilities, recorded = passes(model, whole[:, :-1], info)
    _, without, recorded_without = passes(model, whole[:, :-1], [{} for _ in vectors])
    under = probabilities[:, width - 1 :].gather(-1, said[..., None])[..., 0].float()
    plain = without[:, width - 1 :].gather(-1, said[..., None])[..., 0].float()
    relevancy = (under - plain).abs()
    del recorded, recorded_without  # until here, as in a program that looks at both
    seconds = time.perf_counter() - began
    best = torch.stack([row.topk(2).values for row in logits[:, width - 1 :]]).float()
    margins = best[..., 0] - best[..., 1]
    results = []
    for row, tokens in enumerate(said.tolist()):
        length = next((step for step, token in enumerate(tokens, 1) if token in ends), len(tokens))
        columns = (under[row], relevancy[row], margins[row])
        results.append(Result(tuple(tokens[:length]), *(tuple(column[:length].tolist()) for column in columns)))
    return Outcome(seconds, results)


class Process:
    """A way in a process of its own; calls of its methods go there and wait."""

    def __init__(self, name: str, dtype: str, threads: int, new_tokens: int = NEW_TOKENS) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, name, dtype, threads, new_tokens), daemon=True)
        self.process.start()

    def call(self, method: str, *args: Any) -> Any:
        self.connection.send((method, args))
        answer = self.connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        """End the process; its memory is free afterwards."""
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, name: str, dtype: str, threads: int, new_tokens: int) -> None:
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    way = Way(name, dtype, new_tokens)
    while True:
        method, args = connection.recv()
        try:
            connection.send(getattr(way, method)(*args))
        except Exception as error:
            connection.send(error)
