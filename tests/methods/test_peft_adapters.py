"""The algebra of LoRA, HiRA, SHiRA, IA3, VeRA, OFT and MiSS; and BitFit's biases."""

import math

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from torch import nn

from helpers.peft_cases import CASES, QKV, QV, build, prepare, train, trainable
from rankwise.methods.parts.base import adapt, build_optimizer

# LoRA -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "rank", "alpha", "published"), [
    (QV, 8, 16, 739_586), (QKV, 4, 4, 702_722), (QKV, 8, 8, 813_314), (QKV, 16, 16, 1_034_498), (QKV, 64, 64, 2_361_602),
    (QKV, 128, 128, 4_131_074), (QV, 32, 64, 1_181_954),
])  # fmt: skip
def test_published_systems_trained_so_many_on_distilbert(
    targets: tuple, rank: int, alpha: int, published: int
) -> None:
    """Systems A (query, key, value), B and C (query, value); the last is what system B calls HiRA."""
    adapted = prepare(
        "lora", "distilbert", "classification", "meta", targets=targets, rank=rank, alpha=alpha
    )[1]
    assert sum(shape.numel() for shape in trainable(adapted).values()) == published


def test_a_masked_language_model_has_no_head_to_train() -> None:
    adapted = prepare("lora", "distilbert", "masked_language_modelling", "meta", rank=8)[1]
    assert sum(shape.numel() for shape in trainable(adapted).values()) == 147_456  # system B


@pytest.mark.parametrize(("rslora", "gamma"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_gamma(rslora: bool, gamma: float) -> None:
    adapted = prepare("lora", "tiny", "classification", rslora=rslora)[1]
    assert {
        layer.scaling["default"] for layer in adapted.modules() if isinstance(layer, LoraLayer)
    } == {gamma}


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
    base = (
        build("tiny", "classification")[0]
        .distilbert.transformer.layer[0]
        .attention.q_lin.weight.detach()
    )
    adapted = prepare("pissa", "tiny", "classification")[1]
    layer = adapted.get_submodule("base_model.model.distilbert.transformer.layer.0.attention.q_lin")
    torch.testing.assert_close(
        layer.base_layer.weight + layer.get_delta_weight("default"), base, atol=1e-6, rtol=0
    )
    values = torch.linalg.svdvals(layer.base_layer.weight)
    torch.testing.assert_close(values[0], torch.linalg.svdvals(base)[4], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_the_groups_of_lora_plus_are_the_authors(dora: bool) -> None:
    method, adapted, names = prepare("lora", "tiny", "classification", plus_ratio=16.0, dora=dora)
    optimizer = build_optimizer(
        {"optimizer": {"module": "adamw"}, "learning_rate": 1e-3}, method, adapted, names, seed=0
    )
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


def merged_query(
    case: str, sparsify: bool = False, **changes: object
) -> tuple[torch.Tensor, torch.Tensor]:
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
        adapted = adapt(
            {"module": "shira", "options": {"rank": 4, "targets": QV, "seed": 7}}, model, names
        )[1]
        return next(
            m.shira_indices["default"] for m in adapted.modules() if hasattr(m, "shira_indices")
        )

    assert torch.equal(pinned(1), pinned(2))


def test_ia3_scales_keys_and_values_after_and_the_feed_forward_before() -> None:
    found = trainable(prepare("ia3", "minilm", "classification")[1])
    vectors = {
        name.split("layer.0.")[1].removesuffix(".ia3_l.default"): shape
        for name, shape in found.items()
        if "layer.0" in name
    }
    assert vectors == {
        "attention.self.key": (48, 1),
        "attention.self.value": (48, 1),
        "output.dense": (1, 96),
    }


def test_vera_shares_two_frozen_matrices() -> None:
    adapted = prepare("vera", "stories260k", "language_modelling")[1]
    shared = {
        id(layer.vera_A["default"])
        for layer in adapted.modules()
        if hasattr(layer, "vera_A") and hasattr(layer, "base_layer")
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
        torch.testing.assert_close(
            change[:, start : start + rank], change[:, :rank], atol=1e-6, rtol=0
        )
    assert change.abs().max() > 1e-3
    if case == "mini":
        torch.testing.assert_close(change[:8], change[8:16], atol=1e-6, rtol=0)


# BitFit ---------------------------------------------------------------------------------------------------------------


def test_bitfit_trains_the_biases_and_the_new_head() -> None:
    found = trainable(prepare("bitfit", "distilbert", "classification", "meta")[1])
    biases = 768 + 6 * (
        4 * 768 + 3072 + 768 + 2 * 768
    )  # the embeddings' norm; attention, feed-forward and two norms a layer
    assert sum(shape.numel() for shape in found.values()) == biases + 592_130
    assert {name for name, shape in found.items() if len(shape) > 1} == {
        "pre_classifier.weight",
        "classifier.weight",
    }
