"""The methods that peft implements, and BitFit: what trains, where each starts, how it merges, and what it refuses."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers.peft_cases import CASES, PAIRS, PROMPTS, QV, build, logits, prepare, train, trainable
from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.methods.parts.base import adapt, load_method
from rankwise.methods.parts.peft_base import modules_of
from rankwise.models import storage


def sides(module: nn.Module) -> tuple[int, int]:
    """(m, n): rows and columns of W in W x."""
    return (
        (module.nf, module.nx)
        if isinstance(module, Conv1D)
        else (module.out_features, module.in_features)
    )


def closed_form(case: str, name: str, task: str) -> int:
    """TRAINABLE over the targeted matrices, MODEL once, and the new head."""
    method = load_method({"module": CASES[case][0], "options": CASES[case][1]})
    model, names = build(name, task, "meta")
    known = {
        **vars(method),
        "r": getattr(method, "rank", 0),
        "d": names["hidden_size"],
        "h": model.config.num_hidden_layers,
    }
    total = eval(method.MODEL, {}, known)
    for role in getattr(method, "targets", ()):
        for module in modules_of(model, (role,), names).values():
            m, n = sides(module)
            total += eval(method.TRAINABLE, {}, {**known, "m": m, "n": n, "role": role})
    return total + sum(
        p.numel() for n, p in model.named_parameters() if set(n.split(".")) & set(names["new_head"])
    )


# Every method ---------------------------------------------------------------------------------------------------------


@functools.cache
def base(name: str, task: str) -> SimpleNamespace:
    """The model as it was found."""
    model, _ = build(name, task)
    return SimpleNamespace(
        logits=logits(model, task), types={n: type(m) for n, m in model.named_modules()}
    )


@functools.cache
def life(case: str, name: str, task: str) -> SimpleNamespace:
    """One adapted model from its start to its merging, as seen from outside."""
    seen = SimpleNamespace()
    seen.method, adapted, _ = prepare(case, name, task)
    seen.trainable, seen.start = trainable(adapted), logits(adapted, task)
    before = {n: p.detach().clone() for n, p in adapted.named_parameters()}
    train(adapted, task)
    seen.moved = {n for n, p in adapted.named_parameters() if not torch.equal(p, before[n])}
    seen.trained, seen.merged = logits(adapted, task), seen.method.merge(adapted)
    return seen


@functools.cache
def profile(case: str, name: str, task: str) -> SimpleNamespace:
    """The same on the meta device, with a profile's batch through it."""
    adapted = prepare(case, name, task, "meta")[1]
    out = adapted(**meta_batch({"batch_size": 2, "sequence_length_tokens": 8})).logits
    out.sum().backward()
    rest = [
        n
        for n, p in adapted.named_parameters()
        if not p.is_meta or (p.requires_grad and p.grad is None)
    ]
    return SimpleNamespace(trainable=trainable(adapted), shape=out.shape, rest=rest)


@pytest.mark.parametrize(("name", "task", "case"), [pair for pair in PAIRS if pair[2] != "bitfit"])
def test_the_closed_form_counts_what_trains(name: str, task: str, case: str) -> None:
    assert sum(shape.numel() for shape in life(case, name, task).trainable.values()) == closed_form(
        case, name, task
    )


@pytest.mark.parametrize("case", ["lora", "dora", "hira", "vera"])
def test_the_closed_form_counts_gpt2s_transposed_matrices(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        CASES, case, (CASES[case][0], {**CASES[case][1], "targets": ("attention", "up")})
    )
    found = trainable(prepare(case, "gpt2", "language_modelling")[1])
    assert sum(shape.numel() for shape in found.values()) == closed_form(
        case, "gpt2", "language_modelling"
    )


@pytest.mark.parametrize(("name", "task", "case"), PAIRS)
def test_the_start_is_the_base_or_says_that_it_is_not(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    gap = (seen.start - base(name, task).logits).abs().max()
    if seen.method.IDENTITY:
        assert gap <= 1e-6
    elif case in ("pissa", "pissa_niter_4", "olora"):
        assert gap <= 1e-5
    else:
        assert gap > 1e-4


@pytest.mark.parametrize(
    ("name", "task", "case"), [pair for pair in PAIRS if pair[0] == "tiny" or pair[2] in PROMPTS]
)
def test_shapes_are_enough(name: str, task: str, case: str) -> None:
    """On the meta device the same parameters train, and a profile's batch goes through, forward and backward."""
    seen = profile(case, name, task)
    assert seen.rest == []
    assert seen.trainable == life(case, name, task).trainable
    assert seen.shape[:-1] == ((2,) if task == "classification" else (2, 8))


@pytest.mark.parametrize(("name", "task", "case"), PAIRS)
def test_only_what_trains_moves_and_all_of_it_does(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    unseen = {
        n for n in seen.trainable if n.endswith((".k_lin.bias", ".key.bias"))
    }  # a softmax does not see them
    assert seen.moved - unseen == set(seen.trainable) - unseen


@pytest.mark.parametrize(("name", "task", "case"), PAIRS)
def test_the_merged_model_is_a_base_that_answers_alike(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    if CASES[case][0] in ("prompt_tuning", "prefix_tuning", "p_tuning"):
        assert seen.merged is None
    else:
        assert {n: type(m) for n, m in seen.merged.named_modules()} == base(name, task).types
        torch.testing.assert_close(logits(seen.merged, task), seen.trained, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_seed_decides_every_bit(case: str) -> None:
    name, task = (
        ("minilm", "classification") if case == "prefix_tuning" else ("tiny", "classification")
    )

    def run(seed: int) -> torch.Tensor:
        adapted = prepare(case, name, task, seed=seed)[1]
        train(adapted, task)
        return logits(adapted, task)

    first = run(1)
    assert torch.equal(first, life(case, name, task).trained)
    drawn = case not in (
        "pissa",
        "olora",
        "ia3",
        "oft",
        "oft_neumann",
        "miss",
        "bat",
        "mini",
        "bitfit",
    )
    assert torch.equal(first, run(2)) != drawn


# What cannot be done --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "task", "module", "options", "reason"), [
    ("stories260k", "language_modelling", "bitfit", {}, "the model has no biases"),
    ("tiny", "classification", "prefix_tuning", {"rank": 3}, "DistilBERT takes no keys and values"),
    ("tiny", "masked_language_modelling", "prompt_tuning", {"rank": 3}, "not for masked_language_modelling"),
    ("tiny", "classification", "shira", {"rank": 48, "targets": QV}, "is 64 x 64: fewer than"),
    ("tiny", "classification", "oft", {"rank": 6, "targets": QV}, "no whole number of blocks of side 6"),
    ("tiny", "classification", "oft", {"rank": 1, "targets": QV}, "cannot rotate"),
    ("tiny", "classification", "miss", {"rank": 6, "targets": QV, "variant": "bat"}, "not whole tiles of 6 x 6"),
    ("tiny", "classification", "miss", {"rank": 4, "targets": QV, "variant": "mini", "mini_rank": 7}, "no multiple of mini_rank 7"),
    ("gpt2", "language_modelling", "shira", {"rank": 2, "targets": ("attention",)}, "Conv1D"),
    ("gpt2", "language_modelling", "oft", {"rank": 2, "targets": ("attention",)}, "Conv1D"),
    ("gpt2", "language_modelling", "miss", {"rank": 2, "targets": ("attention",)}, "Conv1D"),
    ("gpt2", "language_modelling", "lora", {"rank": 2, "targets": ("attention",), "init": "olora"}, "Conv1D"),
])  # fmt: skip
def test_what_cannot_be_done_says_why(
    name: str, task: str, module: str, options: dict, reason: str
) -> None:
    model, names = build(name, task, "meta")
    with pytest.raises(Unsupported, match=reason):
        adapt({"module": module, "options": options}, model, names)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_quantized_matrix_has_no_part_to_take_out(init: str) -> None:
    model, names = build("tiny", "classification")
    stored = storage.store(model, "nf4", names)
    entry = {
        "module": "lora",
        "options": {"rank": 4, "targets": QV, "init": init},
        "weights": "nf4",
    }
    with pytest.raises(Unsupported, match="must not be quantized"):
        adapt(entry, stored, names)
