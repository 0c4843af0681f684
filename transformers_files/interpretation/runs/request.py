"""What a run is asked to do, and with it the options of the programs. Importing this imports no torch.

    request = RunRequest(model="…", examples=Path("mine.json"), output=Path("mine.csv"), layers="10:25")
    prepared = prepare(request)          # of `preparation`

A field with help text is an option of the command line; `scripts` makes its parsers of them.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.settings import DEFAULT_PROMPT, DEFAULTS

if TYPE_CHECKING:
    from ..models.layer_spec import InsertLayer

CHUNK_CELLS = 256
"""Cells of a chunk: the most that a killed run loses, and what one batch can be filled from."""


def option(help: str, *, default: Any = MISSING, shown: str = "", **argument: Any) -> Any:
    """A field of a dataclass that is an option of the command line.

    shown: the default in words, where it is none. argument: for argparse's `add_argument`.
    """
    return field(default=default, metadata={"option": {"help": help, "shown": shown, **argument}})


def numbers(text: str) -> float | tuple[float, ...]:
    """`0.5`, or several: `1,0.5,0.5`."""
    several = tuple(float(number) for number in text.split(","))
    return several[0] if len(several) == 1 else several


def factor(text: str) -> float | str:
    """`2.5` or `auto`."""
    return text if text == "auto" else float(text)


def decoder_layers(text: str) -> str | tuple[int, ...]:
    """`1`, `1,3` or `same`."""
    return text if text == "same" else tuple(int(layer) for layer in text.split(","))


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do. Nothing is checked here: see `preparation`."""

    model: str = option("hub id or folder", shown="the small embedded model", metavar="NAME")
    output: Path = option("the table to write, .csv or .parquet", type=Path, metavar="FILE")
    examples: Path | None = option(
        "the prompts; -: from standard input", default=None, shown="none", type=Path, metavar="FILE.json"
    )
    vectors: Path | None = option(
        "in place of examples: .safetensors, .npy, .parquet, or the folder of a SAE as SAELens saves it",
        default=None,
        shown="none",
        type=Path,
        metavar="FILE|FOLDER",
    )
    tensor: str | None = option(
        "of the vectors' safetensors file", default=None, shown="the only one with rows", metavar="NAME"
    )
    vector_column: str | None = option(
        "of the vectors' Parquet file", default=None, shown="activation_vector", metavar="NAME"
    )
    names: str | None = option(
        "of vectors: a text file with one per line, or a column of their Parquet file",
        default=None,
        shown="vector 0, vector 1, …",
        metavar="FILE|COLUMN",
    )
    rows: str | None = option(
        "of the vectors' file: 0:16384, 500: or 7", default=None, shown="all", metavar="FIRST:END"
    )
    strength: float | str = option(
        "what vectors are multiplied with; auto: chosen for each, where only a direction is known",
        default=1.0,
        type=factor,
        metavar="X|auto",
    )
    layers: str | None = option(
        "of the n_layers + 1 hidden states (of vectors: the one they belong to): all, 0,5,10, 0:30:5, -1 (after the "
        "last norm)",
        default=None,
        shown="all, or those of the mapping",
    )
    tokens: str = option(
        "all (prompt and output); of the prompt alone: last, 3,4, -2, 1:5, mean(1:5), segment(1:5)", default="all"
    )
    place: str = option(
        "where embeddings are read: residual, attention_output, residual_mid, mlp_input, mlp_output, layer_output",
        default="residual",
    )
    interpretation_prompts: tuple[str, ...] = option(
        "a built-in name or a file; may be repeated",
        default=(DEFAULT_PROMPT,),
        flag="--interpretation-prompt",
        action="append",
        metavar="NAME|FILE.json",
    )
    questions: tuple[str, ...] = option(
        "put into the {question} field of the interpretation prompts; may be repeated",
        default=(),
        shown="none",
        flag="--question",
        action="append",
        metavar="TEXT",
    )
    insert_layer: InsertLayer = option(
        "decoder layer to insert at; 1,3: at both; same: where each embedding comes from",
        default=DEFAULTS.insert_layer,
        type=decoder_layers,
        metavar="N",
    )
    insert_place: str = option(
        "where in that layer: residual, its input; attention_output, residual_mid, mlp_input, mlp_output, "
        "layer_output; or final_norm, behind the last",
        default=DEFAULTS.insert_place,
        metavar="PLACE",
    )
    replacing_mode: str = option(
        "normalized, which blends, addition, norm_matched or norm_matched_addition",
        default=DEFAULTS.replacing_mode,
        metavar="MODE",
    )
    overlay_strength: float | tuple[float, ...] = option(
        "weight of the embedding; 1,0.5,0.5: of each placeholder",
        default=DEFAULTS.overlay_strength,
        type=numbers,
        metavar="X",
    )
    guidance: float = option(
        "weight of the contrast with the same text without the embedding; 0: raw argmax",
        default=DEFAULTS.guidance,
        type=float,
        metavar="X",
    )
    plausibility: float = option(
        "with guidance, leave out tokens less probable than so many times the best",
        default=DEFAULTS.plausibility,
        type=float,
        metavar="X",
    )
    deep_gain: float = option(
        "factor of embeddings of deep layers at the last placeholder; 1: none",
        default=DEFAULTS.deep_gain,
        type=float,
        metavar="X",
    )
    samples: int = option(
        "interpretations of each embedding, drawn at random; 0: one, of the best tokens",
        default=0,
        type=int,
        metavar="N",
    )
    temperature: float = option("of samples", default=1.0, type=float, metavar="T")
    top_p: float = option(
        "draw samples from the most probable tokens that have this share together", default=1.0, type=float, metavar="P"
    )
    seed: int = option("of samples", default=0, type=int, metavar="S")
    source_model: str | None = option(
        "explain this model's embeddings: it reads the prompts, --model interprets",
        default=None,
        shown="the same",
        metavar="NAME|FOLDER",
    )
    reader: str | None = option(
        "a published reader of activations: its prompt, insert layer, mode, maps, adapter and layers",
        default=None,
        shown="none",
        metavar="FILE|FOLDER",
    )
    reader_adapter: str | None = option(
        "a LoRA adapter that is on for interpreting and off for reading the prompts",
        default=None,
        shown="none",
        metavar="FOLDER|ID",
    )
    mapping: Path | None = option(
        "maps by source layer, as fit_translator.py writes them: embeddings go through theirs first",
        default=None,
        type=Path,
        metavar="FILE.safetensors",
    )
    max_new_tokens: int = option(
        "of an interpretation, at most", default=DEFAULTS.max_new_tokens, type=int, metavar="N"
    )
    prompt_output_tokens: int = option("generated after each prompt", default=1, type=int, metavar="N")
    batch_size: int | None = option(
        "interpretations at once", default=None, shown="as many as memory suggests", type=int, metavar="N"
    )
    dtype: str = option("auto: bfloat16 if native", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    device: str = option("auto, cpu, cuda, cuda:1, …", default="auto")
    device_map: str | None = option(
        "spread the model: auto, balanced, balanced_low_0, sequential, or a .json file that gives each module a device;"
        " in place of --device",
        default=None,
        metavar="MAP",
    )
    max_memory: str | None = option(
        "the most that a device map uses, as in 0=20GB,cpu=60GB", default=None, metavar="DEVICE=SIZE,…"
    )
    offload_folder: Path | None = option(
        "for weights that a device map puts on the disk", default=None, type=Path, metavar="DIR"
    )
    names_by_category: bool = option(
        "number the examples within their category, from the shortest prompt on, not by their place in the file",
        default=False,
    )
    csv_safe: bool = option("guard cells that a spreadsheet would take for formulas", default=False)
    overwrite: bool = option("start over, replacing the output of an earlier run", default=False)
    trust_remote_code: bool = option("let the model's own code run on this machine", default=False)
    chunk_cells: int = CHUNK_CELLS
    """Of a run that begins; a resumed one keeps its own."""
