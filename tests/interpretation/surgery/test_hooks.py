"""Surgery while a model runs, against the reference."""

from __future__ import annotations

import pytest
import torch
from reference import reference_pass
from three_rows import HIDDEN, infos, plan_for, vectors
from tiny_models import tiny_model
from transformers.interpretation.models.families import decoder, decoder_layers
from transformers.interpretation.models.kv_cache import cache_beside, cache_in
from transformers.interpretation.surgery.hooks import (
    LayerInsertion,
    SurgeryPlan,
    surgery,
)


@pytest.mark.parametrize(
    ("mode", "strength"),
    [
        ("normalized", 1.0),
        ("normalized", 0.3),
        ("normalized", 0.0),
        ("addition", 1.7),
        ("norm_matched", 1.0),
        ("norm_matched", 0.3),
        ("norm_matched_addition", 1.7),
        ("norm_matched_addition", {0: [0.5, 2.0], 2: 1.1}),
        ("normalized", {0: [0.0, 0.7], 2: [1.0]}),
    ],
)
def test_every_hidden_state_and_logit_equals_the_reference(model, input_ids, mode, strength):
    insert_info = infos(mode, strength)
    with torch.no_grad(), surgery(model, plan_for(insert_info)):
        output = model(input_ids, output_hidden_states=True)
    for row, info in enumerate(insert_info):
        states, logits = reference_pass(model, input_ids[row].tolist(), info)
        # A row alone and in a batch are rounded differently.
        torch.testing.assert_close(output.logits[row], logits, atol=1e-4, rtol=1e-4)
        for layer, state in enumerate(states):
            torch.testing.assert_close(output.hidden_states[layer][row], state, atol=1e-4, rtol=1e-4)


def test_a_full_replacement_inserts_the_very_bits(model, input_ids):
    with torch.no_grad(), surgery(model, plan_for(infos())):
        states = model(input_ids, output_hidden_states=True).hidden_states
    assert torch.equal(states[0][0, [1, 3]], vectors(2)[0])
    assert torch.equal(states[2][0, -1], vectors(1, 1)[0, 0])


def test_a_full_replacement_forgets_what_was_there_even_infinity(model):
    plan = plan_for([{1: ([0], vectors(1)), "replacing_mode": "normalized", "overlay_strength": 1}], 1, 2)
    embeds = torch.zeros(1, 2, HIDDEN)
    seen = []

    def spoil(module, args):
        return (args[0] + torch.tensor([float("inf"), 0.0])[None, :, None], *args[1:])

    def look(module, args):
        seen.append(args[0])

    layer = decoder_layers(model)[1]
    spoiling = layer.register_forward_pre_hook(spoil)
    with torch.no_grad(), surgery(model, plan):
        looking = layer.register_forward_pre_hook(look)
        model(inputs_embeds=embeds)
    spoiling.remove()
    looking.remove()
    assert torch.equal(seen[0][0, 0], vectors(1)[0, 0])


def test_callers_tensors_are_not_written_to(model, input_ids):
    embeds = model.get_input_embeddings()(input_ids).detach()
    insert_info = infos()
    before = [embeds.clone(), insert_info[0][0][1].clone()]
    with torch.no_grad(), surgery(model, plan_for(insert_info)):
        model(inputs_embeds=embeds)
    assert torch.equal(embeds, before[0])
    assert torch.equal(insert_info[0][0][1], before[1])


@pytest.mark.parametrize("mode", ["normalized", "norm_matched", "norm_matched_addition"])
def test_gradients_flow_through_the_inserted_embedding(model, input_ids, mode):
    def gradient(run) -> torch.Tensor:
        embedding = vectors(1).requires_grad_()
        run({1: ([2], embedding), "replacing_mode": mode, "overlay_strength": 0.6}).sum().backward()
        return embedding.grad

    def operated(info):
        with surgery(model, plan_for([info], 1)):
            return model(input_ids[:1]).logits

    ours = gradient(operated)
    reference = gradient(lambda info: reference_pass(model, input_ids[0].tolist(), info)[1])
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_half_precision_mixes_exactly_and_rounds_once(input_ids):
    model = tiny_model().bfloat16()
    info = {0: ([2], vectors(1)), "replacing_mode": "normalized", "overlay_strength": 0.3}
    with torch.no_grad(), surgery(model, plan_for([info], 1)):
        states = model(input_ids[:1], output_hidden_states=True).hidden_states
        old = model.get_input_embeddings()(input_ids[:1])[0, 2].float()
    expected = (0.3 * vectors(1)[0, 0].bfloat16().float() + 0.7 * old).bfloat16()
    assert torch.equal(states[0][0, 2], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_matched_replacement_has_the_direction_of_one_and_the_norm_of_the_other(input_ids, dtype):
    model = tiny_model().to(dtype)
    info = {0: ([2], 1e4 * vectors(1)), "replacing_mode": "norm_matched", "overlay_strength": 1.0}
    with torch.no_grad(), surgery(model, plan_for([info], 1)):
        new = model(input_ids[:1], output_hidden_states=True).hidden_states[0][0, 2].float()
        old = model.get_input_embeddings()(input_ids[:1])[0, 2].float()
    rounding, direction = 2 * torch.finfo(dtype).eps, (vectors(1) / vectors(1).norm())[0, 0]
    torch.testing.assert_close(new.norm(), old.norm(), rtol=rounding, atol=0)
    torch.testing.assert_close(new / new.norm(), direction, rtol=0, atol=rounding)


def test_a_zero_vector_beside_a_norm_matched_one_spoils_no_gradient(model, input_ids):
    embedding, zero = vectors(1).requires_grad_(), torch.zeros(1, 1, HIDDEN).requires_grad_()
    infos = [
        {1: ([2], embedding), "replacing_mode": "norm_matched", "overlay_strength": 1.0},
        {1: ([2], zero), "replacing_mode": "addition", "overlay_strength": 1.0},
    ]
    with surgery(model, plan_for(infos, 2)):
        model(input_ids[:2]).logits.sum().backward()
    assert bool(torch.isfinite(embedding.grad).all() and torch.isfinite(zero.grad).all())
    assert embedding.grad.abs().max() > 1e-3


@pytest.mark.parametrize("chunks", [(7,), (3, 4), (1, 1, 5), (6, 1)])
def test_chunks_over_a_cache_equal_one_pass(model, input_ids, chunks):
    plan = plan_for(infos())
    with torch.no_grad(), surgery(model, plan):
        whole = model(input_ids).logits
    logits, past = [], None
    with torch.no_grad(), surgery(model, plan):
        for part in input_ids.split(chunks, dim=1):
            output = model(part, use_cache=True, **cache_beside(model, past, part))
            past = cache_in(output)
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_rows_that_beams_add_carry_the_surgery_of_their_row(model, input_ids):
    plan = plan_for(infos())
    with torch.no_grad(), surgery(model, plan):
        single = model(input_ids).logits
        expanded = model(input_ids.repeat_interleave(2, dim=0)).logits
    torch.testing.assert_close(expanded, single.repeat_interleave(2, dim=0), atol=1e-5, rtol=1e-5)


def test_rows_that_are_no_multiple_of_the_plan_are_an_error(model, input_ids):
    with pytest.raises(RuntimeError, match=r"layer 0 runs 2 rows.*planned 3"), surgery(model, plan_for(infos())):
        model(input_ids[:2])


def test_surgery_that_never_took_place_is_an_error(model, input_ids):
    with (
        pytest.raises(RuntimeError, match=r"row 2, layer 2, position 5 never took place"),
        torch.no_grad(),
        surgery(model, plan_for([{}, {}, infos()[2]])),
    ):
        model(input_ids[:, :4])


def test_an_exception_on_its_way_is_not_replaced(model):
    with pytest.raises(KeyError, match="mine"), surgery(model, plan_for(infos())):
        raise KeyError("mine")


def test_a_layer_that_the_model_does_not_have(model):
    one = torch.zeros(1, dtype=torch.long)
    plan = SurgeryPlan({4: LayerInsertion(one, one, vectors(1)[0], torch.ones(1), torch.zeros(1), *2 * [one == 2])}, 1)
    with pytest.raises(ValueError, match=r"layer 4 is out of range.*0 to 3"), surgery(model, plan):
        pass


def test_tuples_are_corrected_as_well(model, input_ids):
    with torch.no_grad(), surgery(decoder(model), plan_for(infos())):
        output = decoder(model)(input_ids, output_hidden_states=True, return_dict=False)
    recorded = next(part for part in output if isinstance(part, tuple) and len(part) == 5)
    assert torch.equal(recorded[2][0, -1], vectors(1, 1)[0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.zeros(2, dtype=torch.long)}, "do not fit"),
        ({"vectors": torch.zeros(1, 1, HIDDEN)}, "do not fit"),
    ],
)
def test_an_insertion_checks_its_shapes(change, message):
    one = torch.zeros(1, dtype=torch.long)
    fields = {"rows": one, "positions": one, "vectors": vectors(1)[0], "strength": one.float(), "keep": one.float()}
    fields |= {"norm_matched": one == 1, "onward": one == 1}
    with pytest.raises(ValueError, match=message):
        LayerInsertion(**{**fields, **change})


def test_a_plan_checks_its_rows_and_is_never_empty():
    one = torch.ones(1, dtype=torch.long)
    insertion = LayerInsertion(one, one, vectors(1)[0], torch.ones(1), torch.zeros(1), *2 * [one == 2])
    with pytest.raises(ValueError, match="a row outside the batch of 1"):
        SurgeryPlan({0: insertion}, 1)
    with pytest.raises(ValueError, match="without a layer"):
        SurgeryPlan({}, 1)
