"""Placeholders are where they should be, whatever the tokenizer does to their neighbours."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from functools import partial

import pytest
import sentencepiece
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.interpretation.prompts import interpretation_prompt as prompts
from transformers.interpretation.prompts.interpretation_prompt import (
    BUILT_IN,
    InterpretationPrompt,
    InterpretationPromptSpec,
    encode_prompt,
    user_turn,
)
from transformers.interpretation.prompts.placeholders import MARKS
from transformers.interpretation.prompts.spec_files import find_spec

CORPUS = [
    "[INST]_ _ _ [/INST] Sure, I will summarize the message: [INST]_[/INST]_[ x]x ]_ _[ __ _____ _\n_\n",
    "Syria: a country in the Middle East\nLeonardo DiCaprio: an American actor\nX 0 ? * ?? ** xx XX",
    "<|user|> <|end|> The quick brown fox jumps over the lazy dog; what is it that you would like me to do? Write it.",
] * 4
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def byte_level(**special) -> PreTrainedTokenizerFast:
    """Like GPT-2: byte-level BPE, a space belongs to the word after it. Trained until `]_` is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **special)


def llama_like(**special) -> PreTrainedTokenizerFast:
    """Like Llama-2's fast tokenizer: no splitting into words, `▁` for spaces and before the text, bytes, and a BOS."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special_tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator([word for line in CORPUS for word in line.split()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **special)


def slow_sentencepiece(folder, **special):
    """A slow tokenizer over a sentencepiece model: Llama's, where the version still has a slow one."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=1.0,
        minloglevel=2,
    )
    file = folder / "tokenizer.model"
    file.write_bytes(model.getvalue())
    if int(transformers.__version__.split(".")[0]) < 5:
        return transformers.LlamaTokenizer(str(file), legacy=True, **special)
    return transformers.BertGenerationTokenizer(str(file), **special)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, embedded_tokenizer):
    folder = tmp_path_factory.mktemp("sentencepiece")
    return {
        "byte-level": byte_level(),
        "llama-like": llama_like(),
        "sentencepiece": slow_sentencepiece(folder),
        "embedded": embedded_tokenizer,
    }


KINDS = ("byte-level", "llama-like", "sentencepiece", "embedded")


def plain(text: str) -> str:
    """Text up to white space, which tokenizers move between tokens."""
    return "".join(text.split())


def assert_placeholders(tokenizer, prompt, between) -> None:
    """The tokens between the placeholders spell the text between them, and each placeholder token spells a mark.

    Read backwards from the ids by decoding stretches of them: an independent way to find the same places.
    """
    ids, locations = list(prompt.input_ids), list(prompt.insert_locations)
    edges = [-1, *locations, len(ids)]
    stretches = [ids[begin + 1 : end] for begin, end in itertools.pairwise(edges)]
    if stretches[0][:1] == [tokenizer.bos_token_id]:
        stretches[0] = stretches[0][1:]
    assert [plain(tokenizer.decode(stretch)) for stretch in stretches] == [plain(text) for text in between]
    marks = {tokenizer.decode([ids[location]]).strip() for location in locations}
    assert len(marks) == 1
    assert marks <= set(MARKS)


def test_the_tokenizers_of_this_file_do_merge_marks(tokenizers):
    """Else the tests below could not fail."""
    assert tokenizers["byte-level"].tokenize("[INST]_ _") == ["[", "INST", "]_", "Ġ_"]
    assert not tokenizers["sentencepiece"].is_fast
    assert len(tokenizers["sentencepiece"].tokenize("_____")) < 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sequence", "between"),
    [
        (("[INST]", 0, 0, 0, "[/INST] Sure:"), ["[INST]", "", "", "[/INST] Sure:"]),
        (("what is", 0, "is it"), ["what is", "is it"]),
        ((0, "fox"), ["", "fox"]),
        (("fox: ", 7, -1), ["fox: ", "", ""]),
        (("dog\n", 0, "\n", 0, "\n"), ["dog\n", "\n", "\n"]),
        (("_ is ]_ not a", 0, "placeholder_"), ["_ is ]_ not a", "placeholder_"]),
    ],
    ids=["instruction", "words", "first", "last", "lines", "marks in text"],
)
def test_sequence_form(tokenizers, kind, sequence, between):
    prompt = InterpretationPrompt.from_sequence(tokenizers[kind], sequence, name="mine")
    assert prompt.name == "mine"
    assert_placeholders(tokenizers[kind], prompt, between)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "placeholder", "between"),
    [
        ("[INST] _____ [/INST] Sure:", "_", ["[INST]", "", "", "", "", "[/INST] Sure:"]),
        ("[INST]_[/INST] Sure:", "_", ["[INST]", "[/INST] Sure:"]),
        ("the dog <here> and <here>", "<here>", ["the dog", "and", ""]),
        ("the dog: ☃", "☃", ["the dog:", ""]),
        ("Middle x East\nx", "x", ["Middle", "East\n", ""]),
    ],
    ids=["adjacent", "merging", "several tokens", "unknown character", "user's mark"],
)
def test_text_form(tokenizers, kind, text, placeholder, between):
    prompt = InterpretationPrompt.from_text(tokenizers[kind], text, placeholder=placeholder)
    assert_placeholders(tokenizers[kind], prompt, between)


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_mark_is_kept_where_it_is_a_token(tokenizers, kind):
    assert InterpretationPrompt.from_text(tokenizers[kind], "the dog x", placeholder="x").text == "the dog x"
    assert InterpretationPrompt.from_sequence(tokenizers[kind], ("the dog", 0, 0)).text == "the dog _ _"


@pytest.mark.parametrize("kind", KINDS)
def test_placeholders_that_cannot_be_told_apart_are_an_error(kind, tokenizers, monkeypatch):
    monkeypatch.setattr(prompts, "MARKS", ("qzqz",))  # several tokens for all of them
    with pytest.raises(ValueError, match=r"prompt 'mine'.*no placeholder mark is a token.*spaces around"):
        InterpretationPrompt.from_sequence(tokenizers[kind], ("the dog", 0), name="mine")


@pytest.mark.parametrize("kind", ["byte-level", "llama-like", "sentencepiece"])
def test_a_chat_prompt_has_one_beginning_of_sequence(kind, tmp_path):
    make = {"byte-level": byte_level, "llama-like": llama_like, "sentencepiece": partial(slow_sentencepiece, tmp_path)}
    tokenizer = make[kind](chat_template=CHAT_TEMPLATE)
    prompt = InterpretationPromptSpec("mine", sequence=("dog", 0, 0), chat=True, reply="Sure:").build(tokenizer)
    assert prompt.text == "<s><|user|>\ndog _ _<|end|>\n<|assistant|>\nSure:"
    assert prompt.input_ids.count(tokenizer.bos_token_id) == 1
    assert_placeholders(tokenizer, prompt, ["<|user|>\ndog", "", "<|end|>\n<|assistant|>\nSure:"])
    assert encode_prompt(tokenizer, "the dog", raw=False).count(tokenizer.bos_token_id) == 1
    assert encode_prompt(tokenizer, "<s>the dog", raw=True).count(tokenizer.bos_token_id) == 1


def test_without_a_chat_template_a_turn_is_an_instruction(tokenizers):
    tokenizer = tokenizers["llama-like"]
    assert user_turn(tokenizer, "the dog") == "[INST] the dog [/INST]"
    prompt = InterpretationPromptSpec("mine", sequence=("dog", 0), chat=True, reply="Sure:").build(tokenizer)
    assert prompt.text == "[INST] dog _ [/INST] Sure:"
    assert prompt.input_ids[0] == tokenizer.bos_token_id
    assert encode_prompt(tokenizer, "the dog", raw=True) == tokenizer("the dog")["input_ids"]
    assert encode_prompt(tokenizer, "the dog", raw=False) == tokenizer("[INST] the dog [/INST]")["input_ids"]


def test_a_template_that_loses_placeholders_is_an_error():
    tokenizer = byte_level(chat_template="{% for message in messages %}{{ message['content'][:5] }}{% endfor %}")
    with pytest.raises(ValueError, match=r"changes the text 'the dog _'; write the prompt without chat"):
        InterpretationPromptSpec("mine", sequence=("the dog", 0), chat=True).build(tokenizer)


def test_a_placeholder_mark_in_the_template_is_not_a_placeholder(embedded_tokenizer):
    """`<|im_start|>` holds an underscore."""
    prompt = InterpretationPromptSpec("mine", text="Say _ now", chat=True, reply="Sure:").build(embedded_tokenizer)
    assert len(prompt.insert_locations) == 1
    assert prompt.text.startswith("<|im_start|>system\n")
    assert prompt.text.endswith("<|im_start|>user\nSay _ now<|im_end|>\n<|im_start|>assistant\nSure:")


PINNED = {
    "turn": "37 [] f091ddad59b9be72",
    "summarize": "43 [24, 25, 26, 27, 28] fb1d7dca4f3ddd65",
    "repeat": "43 [24, 25, 26, 27, 28] 36cae616bd3faf6c",
    "object": "43 [24, 25, 26, 27, 28] 2c11af87281d31a1",
    "object_in_message": "43 [24, 25, 26, 27, 28] 3eac0128426ae77d",
    "describe_once": "31 [30] a50d1dd8f40bbfa4",
    "describe": "79 [77, 78] 3bad9f4480be8bf4",
    "ask": "63 [51, 52] f86db1793e16ff59",
}
"""Length, insert locations and hash of the ids on the embedded model: the same on every version of transformers."""


def fingerprint(ids, locations=()) -> str:
    return f"{len(ids)} {list(locations)} {hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]}"


def built_in(name):
    spec = BUILT_IN[name]
    return spec.asking("What is it?") if spec.has_field else spec


def test_token_ids_are_the_same_on_every_version(embedded_tokenizer):
    found = {"turn": fingerprint(encode_prompt(embedded_tokenizer, "What is the capital of France?", raw=False))}
    for name in BUILT_IN:
        prompt = built_in(name).build(embedded_tokenizer)
        found[name] = fingerprint(prompt.input_ids, prompt.insert_locations)
    assert found == PINNED


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("kind", KINDS)
def test_built_in_prompts_build_for_every_tokenizer(tokenizers, name, kind):
    spec = built_in(name)
    prompt = spec.build(tokenizers[kind])
    assert len(prompt.insert_locations) == sum(isinstance(part, int) for part in spec.sequence)
    assert prompt.text.endswith(spec.reply)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON_VALUES,
        "sequence": st.lists(st.text(max_size=9) | st.integers() | JSON_VALUES, max_size=5) | JSON_VALUES,
        "text": st.text(alphabet="ab_ \n", max_size=30) | JSON_VALUES,
        "placeholder": st.sampled_from(["_", "a", ""]) | JSON_VALUES,
        "chat": st.booleans() | JSON_VALUES,
        "reply": st.text(max_size=9) | JSON_VALUES,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=FIELDS | JSON_VALUES)
def test_any_json_is_a_prompt_or_a_clear_error(tokenizers, tmp_path, content):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    try:
        spec = find_spec(file)
        prompts = [spec.build(tokenizers[kind]) for kind in KINDS]
    except ValueError as error:
        assert "interpretation prompt" in str(error) or str(file) in str(error)
        return
    assert len({len(prompt.insert_locations) for prompt in prompts}) == 1
