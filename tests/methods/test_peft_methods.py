"""Options and models that no entry of config/methods.yaml covers, for the methods of peft and BitFit."""

import functools
from types import SimpleNamespace

import pytest
import torch

from helpers.conformance import declared, module_types
from helpers.peft_cases import CASES, PAIRS, PROMPTS, QV, build, logits, prepare, train, trainable
from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.methods.parts.base import adapt, load_method
from rankwise.models import storage

# A softmax does not see what is added to all keys, so biases of keys get no gradient.
UNSEEN = (".k_lin.bias", ".key.bias")
# Methods whose start has no random numbers in its state dict. SHiRA draws places, which are not in
# it: test_peft_adapters.py.
NOT_DRAWN = (
    "shira",
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

pairs = pytest.mark.parametrize(("name", "task", "case"), PAIRS)


def closed_form(case: str, name: str, task: str) -> int:
    """TRAINABLE over the targeted matrices, MODEL once, and the new head."""
    module, options = CASES[case]
    model, names = build(name, task, "meta")
    total = declared(load_method({"module": module, "options": options}), model, names)
    for path, param in model.named_parameters():
        if set(path.split(".")) & set(names["new_head"]):
            total += param.numel()
    return total


def count(shapes: dict[str, torch.Size]) -> int:
    return sum(shape.numel() for shape in shapes.values())


@functools.cache
def base(name: str, task: str) -> SimpleNamespace:
    """The model as it was found."""
    model, _ = build(name, task)
    return SimpleNamespace(logits=logits(model, task), types=module_types(model))


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


@pytest.mark.parametrize(("name", "task", "case"), [pair for pair in PAIRS if pair[2] != "bitfit"])
def test_the_closed_form_counts_what_trains(name: str, task: str, case: str) -> None:
    assert count(life(case, name, task).trainable) == closed_form(case, name, task)


@pytest.mark.parametrize("case", ["lora", "dora", "hira", "vera"])
def test_the_closed_form_counts_gpt2s_transposed_matrices(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, options = CASES[case]
    monkeypatch.setitem(CASES, case, (module, {**options, "targets": ("attention", "up")}))
    adapted = prepare(case, "gpt2", "language_modelling")[1]
    assert count(trainable(adapted)) == closed_form(case, "gpt2", "language_modelling")


@pairs
def test_the_start_is_the_base_or_says_that_it_is_not(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    gap = (seen.start - base(name, task).logits).abs().max()
    if seen.method.IDENTITY:
        assert gap <= 1e-6
    elif case == "pissa_niter_4":
        assert gap <= 1e-5
    else:
        assert gap > 1e-4


@pairs
def test_shapes_are_enough(name: str, task: str, case: str) -> None:
    """On the meta device the same parameters train, and a profile's batch goes forward and backward."""
    adapted = prepare(case, name, task, "meta")[1]
    out = adapted(**meta_batch({"task": task, "batch_size": 2, "sequence_length_tokens": 8})).logits
    out.sum().backward()
    for path, param in adapted.named_parameters():
        assert param.is_meta, path
        assert param.grad is not None or not param.requires_grad, path
    assert trainable(adapted) == life(case, name, task).trainable
    assert out.shape[:-1] == ((2,) if task == "classification" else (2, 8))


@pairs
def test_only_what_trains_moves_and_all_of_it_does(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    unseen = {parameter for parameter in seen.trainable if parameter.endswith(UNSEEN)}
    assert seen.moved - unseen == set(seen.trainable) - unseen


@pairs
def test_the_merged_model_is_a_base_that_answers_alike(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    if case in (*PROMPTS, "prompt_tuning_random"):
        assert seen.merged is None
    else:
        assert module_types(seen.merged) == base(name, task).types
        torch.testing.assert_close(logits(seen.merged, task), seen.trained, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_seed_decides_the_start(case: str) -> None:
    """One seed, one start; another seed, another start, for methods that draw it."""
    name = "minilm" if case == "prefix_tuning" else "tiny"
    models = [prepare(case, name, "classification", seed=seed)[1] for seed in (1, 1, 2)]
    first, again, other = (
        [value.to_dense() for value in model.state_dict().values()] for model in models
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    is_drawn = not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert is_drawn == (case not in NOT_DRAWN)


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
