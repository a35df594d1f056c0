"""The algebra of LoRA, HiRA, SHiRA, IA3, VeRA, OFT and MiSS, and the biases that BitFit trains."""

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from helpers.peft_cases import CASES, QKV, QV, build, prepare, train, trainable
from rankwise.methods.parts.base import adapt, build_optimizer


def trainable_count(adapted: nn.Module) -> int:
    return sum(shape.numel() for shape in trainable(adapted).values())


# LoRA -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "rank", "alpha", "published"), [
    (QV, 8, 16, 739_586), (QKV, 4, 4, 702_722), (QKV, 8, 8, 813_314), (QKV, 16, 16, 1_034_498), (QKV, 64, 64, 2_361_602),
    (QKV, 128, 128, 4_131_074), (QV, 32, 64, 1_181_954),
])  # fmt: skip
def test_parameter_counts_on_distilbert_are_the_published_ones(
    targets: tuple, rank: int, alpha: int, published: int
) -> None:
    """Systems A (query, key, value), B and C (query, value). System B calls the last case HiRA."""
    adapted = prepare(
        "lora", "distilbert", "classification", "meta", targets=targets, rank=rank, alpha=alpha
    )[1]
    assert trainable_count(adapted) == published


def test_a_masked_language_model_has_no_head_to_train() -> None:
    adapted = prepare("lora", "distilbert", "masked_language_modelling", "meta", rank=8)[1]
    assert trainable_count(adapted) == 147_456  # published for system B


def rates(groups: list[dict]) -> dict[int, float]:
    """The learning rate of every parameter, by the parameter's id."""
    return {id(param): group["lr"] for group in groups for param in group["params"]}


@pytest.mark.parametrize("dora", [False, True])
def test_the_parameter_groups_of_lora_plus_are_pefts(dora: bool) -> None:
    method, adapted, names = prepare("lora", "tiny", "classification", plus_ratio=16.0, dora=dora)
    entry = {"optimizer": {"module": "adamw"}, "learning_rate": 1e-3}
    optimizer = build_optimizer(entry, method, adapted, names, seed=0)
    expected = create_loraplus_optimizer(
        adapted, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0
    )
    assert rates(optimizer.param_groups) == rates(expected.param_groups)
    assert set(rates(optimizer.param_groups).values()) == {1e-3, 1.6e-2}


# HiRA, SHiRA, IA3, VeRA, OFT, MiSS ------------------------------------------------------------------------------------


def query(model: nn.Module) -> torch.Tensor:
    """The query matrix of the first layer of a tiny model without adapters."""
    return model.distilbert.transformer.layer[0].attention.q_lin.weight


def merged_query(
    case: str, sparsify: bool = False, **changes: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """A query matrix before and after training and merging.

    Args:
        case: The method's entry in `CASES`.
        sparsify: Set every fourth column of the matrix to zero before training.
        **changes: Options that replace the entry's.
    """
    model, names = build("tiny", "classification")
    if sparsify:
        with torch.no_grad():
            query(model)[:, ::4] = 0
    before = query(model).detach().clone()
    module, options = CASES[case]
    method, adapted = adapt({"module": module, "options": {**options, **changes}}, model, names)
    train(adapted, "classification")
    return before, query(method.merge(adapted)).detach()


def test_hira_changes_a_matrix_at_high_rank_and_leaves_zeros() -> None:
    before, after = merged_query("hira", sparsify=True)
    assert torch.linalg.matrix_rank((after - before).double() * 1e3) > 4
    assert torch.equal(after[:, ::4], torch.zeros(64, 16))
    assert (after != before)[:, 1::4].any()


def test_shira_changes_r_times_m_plus_n_entries() -> None:
    before, after = merged_query("shira")
    assert (after != before).sum() == 4 * (64 + 64)


def shira_indices(adapted: nn.Module) -> list[torch.Tensor]:
    """The indices of the trained entries of every adapted matrix."""
    layers = [module for module in adapted.modules() if hasattr(module, "shira_indices")]
    return [layer.shira_indices["default"] for layer in layers]


def test_shira_draws_the_entries_of_every_matrix_from_the_seed() -> None:
    first = shira_indices(prepare("shira", "tiny", "classification")[1])
    other_seed = shira_indices(prepare("shira", "tiny", "classification", seed=2)[1])
    assert not torch.equal(first[0], first[1])  # of query and value, which have one shape
    assert not torch.equal(first[0], other_seed[0])


def test_an_option_pins_the_entries_of_shira() -> None:
    entry = {"module": "shira", "options": {"rank": 4, "targets": QV, "seed": 7}}
    first_indices = []
    for global_seed in (1, 2):
        model, names = build("tiny", "classification")
        torch.manual_seed(global_seed)
        adapted = adapt(entry, model, names)[1]
        first_indices.append(shira_indices(adapted)[0])
    assert torch.equal(*first_indices)


def test_ia3_scales_keys_and_values_after_and_the_feed_forward_before() -> None:
    prefix, suffix = "layer.0.", ".ia3_l.default"
    vectors = {}
    for name, shape in trainable(prepare("ia3", "minilm", "classification")[1]).items():
        if "layer.0" in name:
            vectors[name.split(prefix)[1].removesuffix(suffix)] = shape
    assert vectors == {
        "attention.self.key": (48, 1),
        "attention.self.value": (48, 1),
        "output.dense": (1, 96),
    }


def test_vera_shares_two_frozen_matrices() -> None:
    adapted = prepare("vera", "stories260k", "language_modelling")[1]
    identities = set()
    for layer in adapted.modules():
        if hasattr(layer, "vera_A") and hasattr(layer, "base_layer"):
            identities.add(id(layer.vera_A["default"]))
    assert len(identities) == 1
    assert adapted.base_model.vera_A["default"].shape == (8, 64)


def test_oft_keeps_lengths_and_angles_of_the_rows() -> None:
    before, after = merged_query("oft")
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("case", "rank"), [("miss", 4), ("miss", 6), ("mini", 4)])
def test_miss_repeats_one_block(case: str, rank: int) -> None:
    before, after = merged_query(case, rank=rank)
    change = after - before
    first_block = change[:, :rank]
    for start in range(0, 64 - rank, rank):
        block = change[:, start : start + rank]
        torch.testing.assert_close(block, first_block, atol=1e-6, rtol=0)
    assert change.abs().max() > 1e-3
    if case == "mini":
        torch.testing.assert_close(change[:8], change[8:16], atol=1e-6, rtol=0)


# BitFit ---------------------------------------------------------------------------------------------------------------


def test_bitfit_trains_the_biases_and_the_new_head() -> None:
    adapted = prepare("bitfit", "distilbert", "classification", "meta")[1]
    embedding_norm, attention, feed_forward, norms = 768, 4 * 768, 3072 + 768, 2 * 768
    biases = embedding_norm + 6 * (attention + feed_forward + norms)
    assert trainable_count(adapted) == biases + 592_130
    matrices = {name for name, shape in trainable(adapted).items() if len(shape) > 1}
    assert matrices == {"pre_classifier.weight", "classifier.weight"}
