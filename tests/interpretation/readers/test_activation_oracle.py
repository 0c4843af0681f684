"""Activation Oracles against that project's own hook: at the output of block 1, on the pass over the prompt."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import jinja2
import peft
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import CHAT_TEMPLATE, SPECIAL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.interpretation import interpret
from transformers.interpretation.readers.formats import find_reader
from transformers.interpretation.readers.reader import ReaderError

THINKING = CHAT_TEMPLATE.replace(
    "<s>assistant:' }}", "<s>assistant:\n' }}{% if enable_thinking is false %}{{ '<think></think>\n' }}{% endif %}"
)
NAME = "checkpoints_latentqa_cls_past_lens_addition_tiny"


def tokenizer_with(template=CHAT_TEMPLATE, *, merged=True):
    """One token per byte, and " ?" is one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *alphabet, *["Ġ?"] * merged])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "?")] if merged else []))
    backend.add_special_tokens(SPECIAL)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **special
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=260, eos_token_id=None)


def write(folder, model, *, name=NAME, **changes):
    options = {"r": 64, "lora_alpha": 128, "target_modules": "all-linear", "init_lora_weights": False, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options, task_type="CAUSAL_LM"))
        for key, parameter in wrapped.named_parameters():
            if "lora_" in key:
                parameter.data /= 20  # of rank 64: so that the model says something
        wrapped.save_pretrained(folder / name)
    return folder / name


def rendered(template, **variables):
    """As transformers renders it; 4.34.0 hands no generation prompt on."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**variables, bos_token="<s>", eos_token="</s>")


@contextmanager
def steered(block, positions, vectors):
    """That project's hook: new = old + ‖old‖ · v/‖v‖, on passes of more than one token."""

    def after(module, args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        if hidden.shape[1] > 1:
            old = hidden[0, positions]
            hidden[0, positions] = old + old.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(vectors, dim=-1)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize(("tokens", "width"), [("last", 1), ("segment(1:4)", 3)])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, THINKING])
def test_it_says_what_the_project_would(model, tmp_path, tokens, width, template):
    tokenizer, folder = tokenizer_with(template), write(tmp_path, model)
    reader = find_reader(folder)
    assert reader.description == f"Activation Oracle {NAME}: LoRA of rank 64 that adds vectors at layer 2"
    fitted = reader.fit(model, tokenizer)
    (found,) = interpret(
        model,
        tokenizer,
        "Hello",
        raw=True,
        tokens=tokens,
        question="Who?",
        max_new_tokens=5,
        batch_size=2,
        **fitted.options,
    )
    source = torch.tensor([tokenizer.encode("Hello", add_special_tokens=False)])
    states = model.model(source, output_hidden_states=True).hidden_states[3][0]  # output of block int(4 · 0.5)
    vectors = states[-1:] if width == 1 else states[1:4]
    turn = [{"role": "user", "content": "Layer: 2\n" + " ?" * width + " \nWho?"}]
    text = rendered(template, messages=turn, add_generation_prompt=True, enable_thinking=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    mark = tokenizer.convert_tokens_to_ids("Ġ?")
    places = [n for n, one in enumerate(ids) if one == mark][:width]
    assert len(places) == width
    oracle = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()
    said = list(ids)
    with steered(oracle.get_base_model().model.layers[1], places, vectors):
        for _ in range(5):
            said.append(int(oracle(torch.tensor([said]), use_cache=False).logits[0, -1].argmax()))
    assert list(found.interpretation) == said[len(ids) :]
    assert (found.layer_idx, found.question) == (3, "Who?")


def test_a_layer_of_ones_own_is_named_in_the_prompt(model, tmp_path):
    reader = find_reader(write(tmp_path, model))
    assert reader.fit(model, tokenizer_with(), "2").prompt.text.startswith("Layer: 1\n")
    for layers in ("all", "1,2", "0", "4"):
        with pytest.raises(ReaderError, match=f"found layers {layers}, expected a single one from 1 to 3"):
            reader.fit(model, tokenizer_with(), layers)


def test_what_does_not_fit_is_told(model, tmp_path):
    oracle = find_reader(write(tmp_path, model))
    wrong = write(tmp_path / "wrong", model, r=16, lora_alpha=32)
    unnamed = write(tmp_path, model, name="oracle")
    for call, message in (
        (lambda: find_reader(wrong), r"rank and alpha \(16, 32\), expected \(64, 128\)"),
        (lambda: find_reader(unnamed), "found no addition or adding in the folder's name"),
        (lambda: oracle.fit(model, tokenizer_with(None)), "found a tokenizer without a chat template"),
        (lambda: oracle.fit(model, tokenizer_with(merged=False)), r'cuts its placeholder " \?"'),
    ):
        with pytest.raises(ReaderError, match=message):
            call()
    with pytest.raises(ValueError, match="found size 32, the model's is 64"):
        oracle.fit(tiny_model(hidden_size=64, vocab_size=260), tokenizer_with())
