"""The methods that peft implements, and BitFit: what trains, where it starts, and the algebra of each."""

import copy
import functools
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise import models, storage
from rankwise.measure.batch import meta_batch
from rankwise.method import Unsupported, adapt, build_optimizer, load_method
from rankwise.peft_method import modules_of

LIBRARY = yaml.safe_load((ROOT / "config/models.yaml").read_text())
SMALL_BERT = {
    "num_hidden_layers": 2,
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 96,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SMALL_GPT2 = {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
              "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}  # fmt: skip
FEED_FORWARD = {
    "minilm": {"output": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"},
    "stories260k": {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
    "gpt2": {"output": "attn.c_proj", "down": "mlp.c_proj"},
    "tiny": {},
}
QV, QKV = ("query", "value"), ("query", "key", "value")
CASES = {
    "lora": ("lora", {"rank": 4, "targets": QV, "alpha": 8.0}),
    "rslora": ("lora", {"rank": 4, "targets": QV, "rslora": True}),
    "dora": ("lora", {"rank": 4, "targets": QV, "dora": True}),
    "gaussian": ("lora", {"rank": 4, "targets": QV, "init": "gaussian"}),
    "pissa": ("lora", {"rank": 4, "targets": QV, "init": "pissa"}),
    "pissa_niter_4": ("lora", {"rank": 4, "targets": QV, "init": "pissa_niter_4"}),
    "olora": ("lora", {"rank": 4, "targets": QV, "init": "olora"}),
    "hira": ("hira", {"rank": 4, "targets": QKV}),
    "shira": ("shira", {"rank": 4, "targets": QV}),
    "ia3": ("ia3", {}),
    "vera": ("vera", {"rank": 8, "targets": QV}),
    "oft": ("oft", {"rank": 8, "targets": QV}),
    "oft_neumann": ("oft", {"rank": 8, "targets": QV, "neumann_terms": 5, "share": True}),
    "miss": ("miss", {"rank": 4, "targets": QV}),
    "bat": ("miss", {"rank": 4, "targets": QV, "variant": "bat"}),
    "mini": ("miss", {"rank": 4, "targets": QV, "variant": "mini", "mini_rank": 8}),
    "bitfit": ("bitfit", {}),
    "prompt_tuning": ("prompt_tuning", {"rank": 3}),
    "prompt_tuning_random": ("prompt_tuning", {"rank": 3, "init": "random"}),
    "prefix_tuning": ("prefix_tuning", {"rank": 3}),
    "p_tuning": ("p_tuning", {"rank": 3, "hidden": 16}),
    "p_tuning_mlp": ("p_tuning", {"rank": 3, "hidden": 16, "encoder": "mlp"}),
}
PROMPTS = ("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_mlp")
ON_BERT = ("lora", "ia3", "bitfit", *PROMPTS)  # those that meet its names, its biases or its sizes
ON_LLAMA = [case for case in CASES if case not in ("rslora", "gaussian", "pissa_niter_4", "oft_neumann", "mini", "bitfit")]
PAIRS = [
    *(("tiny", "classification", case) for case in CASES if case != "prefix_tuning"),
    *(("minilm", "classification", case) for case in ON_BERT),
    *(("stories260k", "language_modelling", case) for case in ON_LLAMA),
]


def entry(name: str) -> dict:
    """A small model's entry with a name for every role."""
    found = copy.deepcopy(LIBRARY[name])
    found["architecture"] |= {"minilm": SMALL_BERT, "gpt2": SMALL_GPT2, "stories260k": {"num_hidden_layers": 2}}.get(name, {})
    width = found["architecture"].get("n_embd") or found["architecture"].get("hidden_size")
    found["hidden_size"] = width or found["hidden_size"]
    found["modules"] |= {role: {"name": module} for role, module in FEED_FORWARD.get(name, {}).items()}
    return found


def build(name: str, task: str, device: str = "cpu", attention: str = "sdpa") -> tuple[nn.Module, dict]:
    torch.manual_seed(0)
    model = models.from_shapes(entry(name), task, 2 if task == "classification" else 0, device, attention)
    return model.eval(), models.names(entry(name), task)


def prepare(case: str, name: str, task: str, device: str = "cpu", seed: int = 1, **changes: object):
    """(method, adapted model, names), the base from seed 0 and the method from `seed`."""
    model, names = build(name, task, device, "eager" if device == "meta" else "sdpa")
    module, options = CASES[case]
    torch.manual_seed(seed)
    with torch.device(device):
        method, adapted = adapt({"module": module, "options": {**options, **changes}}, model, names)
    return method, adapted.eval(), names


def batch(task: str) -> dict[str, torch.Tensor]:
    """Four texts of ten tokens; the last two are padded after six (with the token that pads Llama and GPT-2)."""
    ids = torch.randint(3, 96, (4, 10), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[2:, 6:], mask[2:, 6:] = 2, 0
    labels = torch.tensor([0, 1, 1, 0]) if task == "classification" else ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(model: nn.Module, task: str, steps: int = 3) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch(task)).loss.backward()
        optimizer.step()


@torch.no_grad()
def logits(model: nn.Module, task: str) -> torch.Tensor:
    return model(**batch(task)).logits


def trainable(model: nn.Module) -> dict[str, torch.Size]:
    return {name: param.shape for name, param in model.named_parameters() if param.requires_grad}


def sides(module: nn.Module) -> tuple[int, int]:
    """(m, n): rows and columns of W in W x."""
    return (module.nf, module.nx) if isinstance(module, Conv1D) else (module.out_features, module.in_features)


def closed_form(case: str, name: str, task: str) -> int:
    """TRAINABLE over the targeted matrices, MODEL once, and the new head."""
    method = load_method({"module": CASES[case][0], "options": CASES[case][1]})
    model, names = build(name, task, "meta")
    known = {**vars(method), "r": getattr(method, "rank", 0), "d": names["hidden_size"], "h": model.config.num_hidden_layers}
    total = eval(method.MODEL, {}, known)
    for role in getattr(method, "targets", ()):
        for module in modules_of(model, (role,), names).values():
            m, n = sides(module)
            total += eval(method.TRAINABLE, {}, {**known, "m": m, "n": n, "role": role})
    return total + sum(p.numel() for n, p in model.named_parameters() if set(n.split(".")) & set(names["new_head"]))


# Every method ---------------------------------------------------------------------------------------------------------


@functools.cache
def base(name: str, task: str) -> SimpleNamespace:
    """The model as it was found."""
    model, _ = build(name, task)
    return SimpleNamespace(logits=logits(model, task), types={n: type(m) for n, m in model.named_modules()})


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
    rest = [n for n, p in adapted.named_parameters() if not p.is_meta or (p.requires_grad and p.grad is None)]
    return SimpleNamespace(trainable=trainable(adapted), shape=out.shape, rest=rest)


@pytest.mark.parametrize(("name", "task", "case"), [pair for pair in PAIRS if pair[2] != "bitfit"])
def test_the_closed_form_counts_what_trains(name: str, task: str, case: str) -> None:
    assert sum(shape.numel() for shape in life(case, name, task).trainable.values()) == closed_form(case, name, task)


@pytest.mark.parametrize("case", ["lora", "dora", "hira", "vera"])
def test_the_closed_form_counts_gpt2s_transposed_matrices(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, case, (CASES[case][0], {**CASES[case][1], "targets": ("attention", "up")}))
    found = trainable(prepare(case, "gpt2", "language_modelling")[1])
    assert sum(shape.numel() for shape in found.values()) == closed_form(case, "gpt2", "language_modelling")


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


@pytest.mark.parametrize(("name", "task", "case"), [pair for pair in PAIRS if pair[0] == "tiny" or pair[2] in PROMPTS])
def test_shapes_are_enough(name: str, task: str, case: str) -> None:
    """On the meta device the same parameters train, and a profile's batch goes through, forward and backward."""
    seen = profile(case, name, task)
    assert seen.rest == []
    assert seen.trainable == life(case, name, task).trainable
    assert seen.shape[:-1] == ((2,) if task == "classification" else (2, 8))


@pytest.mark.parametrize(("name", "task", "case"), PAIRS)
def test_only_what_trains_moves_and_all_of_it_does(name: str, task: str, case: str) -> None:
    seen = life(case, name, task)
    unseen = {n for n in seen.trainable if n.endswith((".k_lin.bias", ".key.bias"))}  # a softmax does not see them
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
    name, task = ("minilm", "classification") if case == "prefix_tuning" else ("tiny", "classification")

    def run(seed: int) -> torch.Tensor:
        adapted = prepare(case, name, task, seed=seed)[1]
        train(adapted, task)
        return logits(adapted, task)

    first = run(1)
    assert torch.equal(first, life(case, name, task).trained)
    drawn = case not in ("pissa", "olora", "ia3", "oft", "oft_neumann", "miss", "bat", "mini", "bitfit")
    assert torch.equal(first, run(2)) != drawn


# LoRA -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "rank", "alpha", "published"), [
    (QV, 8, 16, 739_586), (QKV, 4, 4, 702_722), (QKV, 8, 8, 813_314), (QKV, 16, 16, 1_034_498), (QKV, 64, 64, 2_361_602),
    (QKV, 128, 128, 4_131_074), (QV, 32, 64, 1_181_954),
])  # fmt: skip
def test_published_systems_trained_so_many_on_distilbert(targets: tuple, rank: int, alpha: int, published: int) -> None:
    """Systems A (query, key, value), B and C (query, value); the last is what system B calls HiRA."""
    adapted = prepare("lora", "distilbert", "classification", "meta", targets=targets, rank=rank, alpha=alpha)[1]
    assert sum(shape.numel() for shape in trainable(adapted).values()) == published


def test_a_masked_language_model_has_no_head_to_train() -> None:
    adapted = prepare("lora", "distilbert", "masked_language_modelling", "meta", rank=8)[1]
    assert sum(shape.numel() for shape in trainable(adapted).values()) == 147_456  # system B


@pytest.mark.parametrize(("rslora", "gamma"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_gamma(rslora: bool, gamma: float) -> None:
    adapted = prepare("lora", "tiny", "classification", rslora=rslora)[1]
    assert {layer.scaling["default"] for layer in adapted.modules() if isinstance(layer, LoraLayer)} == {gamma}


def gradients(case: str, **changes: object):
    """One adapted query matrix W, its factors away from zero, their gradients, and G = dL/dW' of L = sum(C * W' x)."""
    adapted = prepare(case, "tiny", "classification", **changes)[1]
    layer = adapted.get_submodule("base_model.model.distilbert.transformer.layer.0.attention.q_lin")
    torch.manual_seed(3)
    params = [p for p in layer.parameters() if p.requires_grad]
    for param in params:
        nn.init.normal_(param, std=0.1)
    x, c = torch.randn(32, 64), torch.randn(32, 64)
    (layer(x) * c).sum().backward()
    return layer, *params, c.T @ x


def test_the_gradients_of_lora_are_those_of_the_dense_matrix() -> None:
    _, a, b, g = gradients("lora")
    torch.testing.assert_close(a.grad, 2.0 * b.T @ g, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(b.grad, 2.0 * g @ a.T, atol=1e-4, rtol=1e-4)


def test_pissa_leaves_the_residual_frozen() -> None:
    base = build("tiny", "classification")[0].distilbert.transformer.layer[0].attention.q_lin.weight.detach()
    adapted = prepare("pissa", "tiny", "classification")[1]
    layer = adapted.get_submodule("base_model.model.distilbert.transformer.layer.0.attention.q_lin")
    torch.testing.assert_close(layer.base_layer.weight + layer.get_delta_weight("default"), base, atol=1e-6, rtol=0)
    values = torch.linalg.svdvals(layer.base_layer.weight)
    torch.testing.assert_close(values[0], torch.linalg.svdvals(base)[4], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_the_groups_of_lora_plus_are_the_authors(dora: bool) -> None:
    method, adapted, names = prepare("lora", "tiny", "classification", plus_ratio=16.0, dora=dora)
    optimizer = build_optimizer({"optimizer": {"module": "adamw"}, "learning_rate": 1e-3}, method, adapted, names, seed=0)
    theirs = create_loraplus_optimizer(adapted, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)

    def rates(groups: list[dict]) -> dict[int, float]:
        return {id(param): group["lr"] for group in groups for param in group["params"]}

    assert rates(optimizer.param_groups) == rates(theirs.param_groups)
    assert set(rates(optimizer.param_groups).values()) == {1e-3, 1.6e-2}


# HiRA, SHiRA, IA3, VeRA, OFT, MiSS ------------------------------------------------------------------------------------


def test_the_gradients_of_hira_pass_through_w() -> None:
    layer, a, b, g = gradients("hira")
    w = layer.base_layer.weight
    torch.testing.assert_close(a.grad, b.T @ (w * g), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(b.grad, (w * g) @ a.T, atol=1e-5, rtol=1e-4)


def query(model: nn.Module) -> torch.Tensor:
    return model.distilbert.transformer.layer[0].attention.q_lin.weight


def merged_query(case: str, sparsify: bool = False, **changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    """A query matrix before and after training and merging."""
    model, names = build("tiny", "classification")
    with torch.no_grad():
        query(model)[:, ::4] = 0 if sparsify else query(model)[:, ::4]
    before = query(model).detach().clone()
    module, options = CASES[case]
    method, adapted = adapt({"module": module, "options": {**options, **changes}}, model, names)
    train(adapted, "classification")
    return before, query(method.merge(adapted)).detach()


def test_hira_has_high_rank_and_leaves_zeros() -> None:
    before, after = merged_query("hira", sparsify=True)
    assert torch.linalg.matrix_rank((after - before).double() * 1e3) > 4
    assert torch.equal(after[:, ::4], torch.zeros(64, 16))
    assert (after != before)[:, 1::4].any()


def test_shira_moves_r_times_m_plus_n_entries() -> None:
    before, after = merged_query("shira")
    assert (after != before).sum() == 4 * (64 + 64)


def places(**changes: object) -> list[torch.Tensor]:
    adapted = prepare("shira", "tiny", "classification", **changes)[1]
    return [m.shira_indices["default"] for m in adapted.modules() if hasattr(m, "shira_indices")]


def test_shira_draws_its_places_for_every_matrix_from_the_seed() -> None:
    first = places()
    assert not torch.equal(first[0], first[1])  # query and value have one shape
    assert not torch.equal(first[0], places(seed=2)[0])


def test_an_option_pins_the_places_of_shira() -> None:
    def pinned(global_seed: int) -> torch.Tensor:
        model, names = build("tiny", "classification")
        torch.manual_seed(global_seed)
        adapted = adapt({"module": "shira", "options": {"rank": 4, "targets": QV, "seed": 7}}, model, names)[1]
        return next(m.shira_indices["default"] for m in adapted.modules() if hasattr(m, "shira_indices"))

    assert torch.equal(pinned(1), pinned(2))


def test_ia3_scales_keys_and_values_after_and_the_feed_forward_before() -> None:
    found = trainable(prepare("ia3", "minilm", "classification")[1])
    vectors = {
        name.split("layer.0.")[1].removesuffix(".ia3_l.default"): shape for name, shape in found.items() if "layer.0" in name
    }
    assert vectors == {"attention.self.key": (48, 1), "attention.self.value": (48, 1), "output.dense": (1, 96)}


def test_vera_shares_two_frozen_matrices() -> None:
    adapted = prepare("vera", "stories260k", "language_modelling")[1]
    shared = {
        id(layer.vera_A["default"]) for layer in adapted.modules() if hasattr(layer, "vera_A") and hasattr(layer, "base_layer")
    }
    assert len(shared) == 1
    assert adapted.base_model.vera_A["default"].shape == (8, 64)


def test_oft_keeps_lengths_and_angles_of_the_rows() -> None:
    before, after = merged_query("oft")
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("case", "rank"), [("miss", 4), ("miss", 6), ("mini", 4)])
def test_miss_repeats_one_block(case: str, rank: int) -> None:
    before, after = merged_query(case, rank=rank)
    change = after - before
    for start in range(0, 64 - rank, rank):
        torch.testing.assert_close(change[:, start : start + rank], change[:, :rank], atol=1e-6, rtol=0)
    assert change.abs().max() > 1e-3
    if case == "mini":
        torch.testing.assert_close(change[:8], change[8:16], atol=1e-6, rtol=0)


# BitFit ---------------------------------------------------------------------------------------------------------------


def test_bitfit_trains_the_biases_and_the_new_head() -> None:
    found = trainable(prepare("bitfit", "distilbert", "classification", "meta")[1])
    biases = 768 + 6 * (4 * 768 + 3072 + 768 + 2 * 768)  # the embeddings' norm; attention, feed-forward and two norms a layer
    assert sum(shape.numel() for shape in found.values()) == biases + 592_130
    assert {name for name, shape in found.items() if len(shape) > 1} == {"pre_classifier.weight", "classifier.weight"}


# Prompts --------------------------------------------------------------------------------------------------------------

PROMPTED = [
    *(("tiny", "classification", case) for case in PROMPTS if case != "prefix_tuning"),
    *(("minilm", "classification", case) for case in PROMPTS),
    *(
        (name, task, case)
        for name in ("stories260k", "gpt2")
        for task in ("classification", "language_modelling")
        for case in PROMPTS
    ),
]


@pytest.mark.parametrize(("name", "task", "case"), PROMPTED)
def test_padding_changes_no_answer(name: str, task: str, case: str) -> None:
    adapted = prepare(case, name, task)[1]
    whole, given = logits(adapted, task), batch(task)
    with torch.no_grad():
        alone = adapted(input_ids=given["input_ids"][2:3, :6], attention_mask=given["attention_mask"][2:3, :6]).logits
    assert whole.shape[:-1] == given["labels"].shape
    torch.testing.assert_close(whole[2:3] if task == "classification" else whole[2:3, :6], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", PROMPTS)
def test_the_loss_of_a_prompted_language_model_is_over_the_same_labels(case: str) -> None:
    adapted, given = prepare(case, "stories260k", "language_modelling")[1], batch("language_modelling")
    with torch.no_grad():
        out = adapted(**given)
    wanted = nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), given["labels"][:, 1:].flatten())
    torch.testing.assert_close(out.loss, wanted)


def test_a_sampled_prompt_is_made_of_the_vocabularys_embeddings() -> None:
    adapted = prepare("prompt_tuning", "tiny", "classification")[1]
    prompt, words = adapted.prompt_encoder["default"].embedding.weight, adapted.word_embeddings.weight
    assert all((words == row).all(1).any() for row in prompt)


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
def test_what_cannot_be_done_says_why(name: str, task: str, module: str, options: dict, reason: str) -> None:
    model, names = build(name, task, "meta")
    with pytest.raises(Unsupported, match=reason):
        adapt({"module": module, "options": options}, model, names)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_quantized_matrix_has_no_part_to_take_out(init: str) -> None:
    model, names = build("tiny", "classification")
    stored = storage.store(model, "nf4", names)
    entry = {"module": "lora", "options": {"rank": 4, "targets": QV, "init": init}, "weights": "nf4"}
    with pytest.raises(Unsupported, match="must not be quantized"):
        adapt(entry, stored, names)
