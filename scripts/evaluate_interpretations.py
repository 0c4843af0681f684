"""How accurate a model's interpretations are, layer by layer: ten measures, with lenses and controls.

    python scripts/evaluate_interpretations.py                                         # the small model, default prompt
    python scripts/evaluate_interpretations.py --model meta-llama/Llama-3.1-8B-Instruct --layers 0:33:2

By default: answer recovery; whether the interpretations that are trusted most are right; the next token under an
identity prompt; the kind of entities; and whether words of high relevancy come back when a paraphrase is interpreted.

On request: privileged, whether the vector is read or the text (a copy of the model learns about invented persons, which
takes minutes and the package peft); echoes, how often interpretations of examples repeat words of the interpretation
prompt; roundtrip, whether interpretations from which their vector can be recovered are right more often; attributes,
whether the model answers a question about a subject whose state is inserted; and steps, the same for questions that
need two steps.

Writes a JSON file and, with matplotlib, figures; prints tables. The JSON file also calibrates trust on your model:
python -m transformers.interpretation.report FILE.csv --calibration evaluation.json. Intervals are 95 % bootstrap
intervals over facts, entities or persons.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.evaluation_echoes import echoes_section
from common.evaluation_patching import patching_sections
from common.evaluation_privileged import facts_section, persons_sections
from common.evaluation_recovery import as_json, depths, read_lenses, recovery_section
from common.evaluation_roundtrip import roundtrip_section
from common.evaluation_trust import described, trust_section
from common.evaluation_views import draw, figures, tables
from common.fitted_settings import parse_with_maps
from common.measured_model import Loaded, add_measuring_options, check_insert_layer, load
from common.options import EXAMPLES, ONE_PROMPT, add_options, settings_names
from common.program import REFUSED, check_files, fail, files_of_models, run_program

if TYPE_CHECKING:
    from transformers.interpretation.mapping.lenses import Lens
    from transformers.interpretation.measures import Entity, Fact, Faithfulness, Interpreter

USUAL = ("recovery", "trust", "identity", "entities", "faithfulness")
MEASURES = (*USUAL, "privileged", "echoes", "roundtrip", "attributes", "steps")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0 done, 2 refused, 130 interrupted."""
    return run_program(parse, evaluate, argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; an error of syntax ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_measuring_options(parser)
    add_options(
        parser,
        *("layers", "interpretation_prompts", "mapping", "output"),
        *settings_names(),
        layers={"default": "all"},
        interpretation_prompts=ONE_PROMPT,
        overlay_strength={"type": float, "help": "weight of the embedding"},
        max_new_tokens={"default": 8},
        output={"default": Path("evaluation.json"), "metavar": "FILE.json", "help": "what was measured"},
    )
    add = parser.add_argument
    half = "of the facts and entities (default: held-out)"
    add("--half", default="held-out", choices=("tuning", "held-out"), help=half)
    names = f"of: {', '.join(MEASURES)} (default: {', '.join(USUAL)})"
    add("--measures", nargs="+", choices=MEASURES, default=USUAL, metavar="NAME", help=names)
    add("--entities", type=Path, default=EXAMPLES / "entities.json", metavar="FILE.json", help="default: the project's")
    add("--lens", nargs="+", type=Path, default=[], metavar="FILE", help="fit_lens.py's, next to the logit lens")
    texts = "what echoes are looked for in (default: the demo's)"
    add("--examples", type=Path, default=EXAMPLES / "demo.json", metavar="FILE.json", help=texts)
    persons = "the invented persons of privileged (default: the project's)"
    add("--persons", type=Path, default=EXAMPLES / "persons.json", metavar="FILE.json", help=persons)
    add("--epochs", type=int, default=40, metavar="N", help="of learning about the persons (default: 40)")
    add("--figure", type=Path, metavar="FILE.png", help="default: next to the output, if there is matplotlib")
    return parse_with_maps(parser, argv)


def evaluate(arguments: argparse.Namespace) -> int:
    """Check, load, measure, report."""
    from transformers.interpretation.engine.settings import InterpretationSettings
    from transformers.interpretation.mapping.checkpoint import MapsFile
    from transformers.interpretation.measures import (
        Interpreter,
        LearningSettings,
        check_peft,
        of_half,
        read_entities,
        read_facts,
        read_persons,
    )
    from transformers.interpretation.prompts.examples import read_examples
    from transformers.interpretation.prompts.index_selection import Selection
    from transformers.interpretation.prompts.spec_files import find_spec

    inputs = {"the facts": arguments.facts, "the entities": arguments.entities, "the maps": arguments.mapping}
    inputs |= {"the persons": arguments.persons, "the examples": arguments.examples}
    inputs |= {f"the lens {path}": path for path in arguments.lens}
    inputs["the interpretation prompt"] = Path(arguments.interpretation_prompt)
    inputs |= files_of_models(arguments.model)
    try:
        check_files({"the evaluation": arguments.output} | figures(arguments), inputs)
        given = read_facts(arguments.facts)
        facts, tuning = of_half(given, arguments.half), of_half(given, "tuning")
        entities = (
            of_half(read_entities(arguments.entities), arguments.half) if "entities" in arguments.measures else []
        )
        learning, persons = LearningSettings(arguments.epochs), []
        if "privileged" in arguments.measures:
            check_peft()
            persons = read_persons(arguments.persons)
        examples = read_examples(arguments.examples) if "echoes" in arguments.measures else []
        spec, selection = find_spec(arguments.interpretation_prompt), Selection(arguments.layers)
        settings = InterpretationSettings.of(vars(arguments))
        maps = None if arguments.mapping is None else MapsFile.read(arguments.mapping)
        lenses = read_lenses(arguments.lens)
        loaded = load(arguments)
        layers = selection.resolve(loaded.n_layers + 1)
        check_insert_layer(settings.insert_layer, loaded, layers)
        prompt = spec.build(loaded.tokenizer)
        if maps is not None:
            maps.check_layers(layers)
            maps.check_model(loaded.model)
        for lens in lenses:
            lens.check(loaded.model)
    except ValueError as error:
        return fail(error, REFUSED)
    mapping = None if maps is None else maps.maps
    interpreter = Interpreter(loaded.model, loaded.tokenizer, prompt, settings, arguments.batch_size, mapping)
    began = time.monotonic()
    measured = {
        "model": loaded.name,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "half": arguments.half,
        "interpretation prompt": {"name": prompt.name, "text": prompt.text},
        "settings": asdict(settings),
        "mapping": str(arguments.mapping) if arguments.mapping else None,
        "lenses": [str(path) for path in arguments.lens],
        **measure(arguments.measures, interpreter, facts, tuning, entities, layers, loaded, lenses),
    }
    if "privileged" in arguments.measures:
        up_to = depths(layers, loaded.n_layers)
        measured |= persons_sections(interpreter, persons, arguments.half, layers, up_to, learning)
    if "echoes" in arguments.measures:
        measured["echoes"] = echoes_section(interpreter, examples, layers)
    measured["seconds"] = round(time.monotonic() - began, 1)
    print("\n\n".join(tables(measured)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    where = [str(arguments.output), *draw(measured, arguments)]
    print(f"in {measured['seconds']:,.0f} s: {', '.join(where)}")
    return 0


def measure(
    wanted: Sequence[str],
    interpreter: Interpreter,
    facts: Sequence[Fact],
    tuning: Sequence[Fact],
    entities: Sequence[Entity],
    layers: Sequence[int],
    loaded: Loaded,
    lenses: Sequence[Lens],
) -> dict[str, Any]:
    """What was asked for, each measure under its name."""
    from transformers.interpretation.measures import (
        known_facts,
        next_token_shares,
        score_cells,
        score_faithfulness,
        score_kinds,
    )

    model, tokenizer = interpreter.model, interpreter.tokenizer
    measured: dict[str, Any] = {}
    if {"recovery", "trust", "faithfulness", "privileged", "roundtrip", "attributes", "steps"} & set(wanted):
        known = known_facts(model, tokenizer, facts)
        measured |= {"facts": len(facts), "known facts": len(known)}
        print(f"{len(known)} of {len(facts)} facts are known to the model", file=sys.stderr)
    if {"recovery", "trust", "roundtrip"} & set(wanted):
        cells = score_cells(interpreter, known, layers)
    if "recovery" in wanted:
        measured["answer recovery"] = recovery_section(interpreter, cells, known, layers, loaded.n_layers, lenses)
    if "trust" in wanted:
        known_of_tuning = known if tuning == facts else known_facts(model, tokenizer, tuning)
        if len(known_of_tuning) > 1:
            tuning_cells = cells if tuning == facts else score_cells(interpreter, known_of_tuning, layers)
            source = described(loaded, interpreter, known_of_tuning, layers)
            measured["trust"] = trust_section(tuning_cells, cells, source)
        else:
            print("no trust: it is calibrated on facts of the tuning half that the model knows", file=sys.stderr)
    if "roundtrip" in wanted:
        measured["round trip"] = roundtrip_section(interpreter, cells, layers, loaded.n_layers)
    if {"attributes", "steps"} & set(wanted):
        inserted = [layer for layer in layers if layer < loaded.n_layers]  # each at its own layer
        measured |= patching_sections(wanted, interpreter, known, tuning, inserted)
    if "identity" in wanted:
        texts = [fact.prompt for fact in facts]
        shares = next_token_shares(
            model,
            tokenizer,
            texts,
            layers,
            interpreter.settings,
            batch_size=interpreter.batch_size,
            mapping=interpreter.mapping,
        )
        measured["next token, identity prompt"] = {"layers": {layer: as_json(one) for layer, one in shares.items()}}
    if "entities" in wanted:
        kinds = score_kinds(interpreter, entities, layers)
        measured["entity description"] = {"layers": {layer: as_json(one) for layer, one in kinds.items()}}
    if "faithfulness" in wanted:
        returns = score_faithfulness(interpreter, known, layers)
        measured["faithfulness of relevancy"] = {"layers": {layer: returns_of(one) for layer, one in returns.items()}}
    if "privileged" in wanted:
        up_to = depths(layers, loaded.n_layers)
        measured["privileged, known facts"] = facts_section(interpreter, known, layers, up_to)
    return measured


def returns_of(faithfulness: Faithfulness) -> dict[str, Any]:
    """One level: "high: difference" and so on; what no word is of is left out."""
    return {
        f"{relevancy}: {name}": value
        for relevancy, returns in (("high", faithfulness.high), ("low", faithfulness.low))
        if returns is not None
        for name, value in as_json(returns).items()
    }


if __name__ == "__main__":
    sys.exit(main())
