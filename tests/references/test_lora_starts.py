"""Starts of LoRA by their papers, in float64 with numpy; quantization is bitsandbytes'."""

import copy

import bitsandbytes
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import EvaConfig
from peft.tuners.lora.eva import initialize_lora_eva_weights
from torch import Tensor, nn

from helpers.lockstep import Pair, pair
from rankwise.methods.parts.base import Start
from references.registry import entries

# With twice or four times the rank as wide as the matrices, peft's and the authors' randomised
# decompositions are exact.
RANKS = {"lora_eva": 32, "lora_ga": 16}
SCALE = 2.0


def entry(name: str, model: str) -> Pair:
    rank = RANKS.get(name, 4)
    return pair(name, model, options={"rank": rank, "alpha": SCALE * rank}, double=False)


def targets(found: Pair) -> list[str]:
    endings = [found.names["modules"][role]["name"] for role in found.entry["options"]["targets"]]
    names = dict(found.plain.named_modules())
    return [name for name in names if any(name.endswith(f".{ending}") for ending in endings)]


def batches(found: Pair, count: int) -> list[dict[str, Tensor]]:
    """Batches of which the second and every other text is padded by three tokens."""
    made = []
    for number in range(count):
        batch = {name: value.clone() for name, value in found.batch.items()}
        generator = torch.Generator().manual_seed(number)
        ids = batch["input_ids"]
        batch["input_ids"] = torch.randint(3, 90, ids.shape, generator=generator)
        batch["attention_mask"][1::2, -3:] = 0
        if batch["labels"].shape == ids.shape:
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        made.append(batch)
    return made


def started(found: Pair, given: list[dict[str, Tensor]]) -> Start:
    torch.manual_seed(0)
    kind = found.entry["weights"]
    return found.method.start(copy.deepcopy(found.plain), found.names, given, kind)


def factors(start: Start, name: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = (start.adapted[f"base_model.model.{name}.lora_{x}.default.weight"] for x in "AB")
    return a.double().numpy(), b.double().numpy()


def inputs_of(found: Pair, names: list[str], batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What goes into each layer for a batch, (tokens, n), in float64 without padding."""
    model, seen = copy.deepcopy(found.plain).double().eval(), {}
    mask = batch["attention_mask"].bool()
    for name in names:

        def see(_module: nn.Module, given: tuple, name: str = name) -> None:
            seen[name] = given[0][mask].detach().numpy()

        model.get_submodule(name).register_forward_pre_hook(see)
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return seen


def eva(found: Pair, start: Start, given: list[dict[str, Tensor]]) -> None:
    """Paischer et al. 2024: the first components of the inputs' principal component analysis."""
    seen = inputs_of(found, targets(found), given[0])
    for name, x in seen.items():
        a, b = factors(start, name)
        _, _, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
        np.testing.assert_allclose(np.abs(a @ vt[: len(a)].T), np.eye(len(a)), atol=2e-3)
        assert (b == 0).all()
    assert not start.base


def corda(found: Pair, start: Start, given: list[dict[str, Tensor]], is_largest: bool) -> None:
    """Yang et al. 2024: SVD(W C) C^-1, the first or the last r; scaled and damped as by the authors."""
    covariances: dict[str, list[np.ndarray]] = {}
    for batch in given:
        for row in range(len(batch["input_ids"])):
            one = {key: value[row : row + 1] for key, value in batch.items()}
            for name, x in inputs_of(found, targets(found), one).items():
                covariances.setdefault(name, []).append(x.T @ x / x.max() ** 2)
    for name, seen in covariances.items():
        c = sum(seen) / len(seen)
        c += 0.01 * np.diag(c).mean() * np.eye(len(c))
        w = found.plain.get_submodule(name).weight.detach().double().numpy()
        u, s, vt = np.linalg.svd(w @ c, full_matrices=False)
        rank = found.entry["options"]["rank"]
        part = slice(None, rank) if is_largest else slice(-rank, None)
        product = (u[:, part] * s[part]) @ vt[part] @ np.linalg.inv(c)
        a, b = factors(start, name)
        size = np.linalg.norm(product)
        assert np.linalg.norm(SCALE * b @ a - product) <= 1e-3 * size, name
        np.testing.assert_allclose(SCALE * (b * b).sum(0), s[part], rtol=1e-3)
        residual = start.base[f"{name}.weight"].double().numpy()
        np.testing.assert_allclose(residual, w - product, atol=1e-3 * abs(w).max())


def lora_ga(found: Pair, start: Start, given: list[dict[str, Tensor]]) -> None:
    """Wang et al. 2024: right singular vectors 1 to r of the gradient, left ones r + 1 to 2 r."""
    model = copy.deepcopy(found.plain).double().train()
    for batch in given:
        (model(**batch).loss / len(given)).backward()
    rank = found.entry["options"]["rank"]
    for name in targets(found):
        u, s, vt = np.linalg.svd(model.get_submodule(name).weight.grad.numpy())
        a, b = factors(start, name)
        scale = len(b) ** 0.25 / 16**0.5
        # The classifier reads one token a text, so the last query's gradient has rank 12.
        first = (s > 1e-5 * s[0])[:rank]
        second = (s > 1e-5 * s[0])[rank : 2 * rank]
        right = np.abs(a @ vt[:rank].T) / scale
        left = np.abs(u[:, rank : 2 * rank].T @ b) / scale
        np.testing.assert_allclose(right[first][:, first], np.eye(first.sum()), atol=2e-3)
        np.testing.assert_allclose(left[second][:, second], np.eye(second.sum()), atol=2e-3)
        np.testing.assert_allclose(a @ a.T, scale**2 * np.eye(rank), atol=1e-3)
        np.testing.assert_allclose(b.T @ b, scale**2 * np.eye(rank), atol=1e-3)
        w = found.plain.get_submodule(name).weight.detach().double().numpy()
        residual = start.base[f"{name}.weight"].double().numpy()
        np.testing.assert_allclose(residual + SCALE * b @ a, w, atol=1e-5)


def loftq(found: Pair, start: Start, given: list[dict[str, Tensor]]) -> None:
    """Li et al. 2023, algorithm 1, with five alternations; a weight half way may get another code."""
    for name in targets(found):
        w = found.plain.get_submodule(name).weight.detach().double()
        product, errors = torch.zeros_like(w), []
        for _ in range(5):
            codes, state = bitsandbytes.functional.quantize_4bit(
                (w - product).float(), blocksize=64, quant_type="nf4"
            )
            q = bitsandbytes.functional.dequantize_4bit(codes, state).double()
            u, s, vt = torch.linalg.svd(w - q, full_matrices=False)
            product = (u[:, :4] * s[:4]) @ vt[:4]
            errors.append((w - q - product).norm())
        a, b = (torch.from_numpy(factor) for factor in factors(start, name))
        assert (SCALE * b @ a - product).norm() <= 2e-2 * product.norm(), name
        torch.testing.assert_close(SCALE * b.square().sum(0), s[:4], atol=0, rtol=2e-2)
        codes, state = bitsandbytes.functional.quantize_4bit(
            start.base[f"{name}.weight"].float(), blocksize=64, quant_type="nf4"
        )
        q = bitsandbytes.functional.dequantize_4bit(codes, state).double()
        assert (w - q - SCALE * b @ a).norm() <= 1.01 * errors[-1]
        assert (w - q - SCALE * b @ a).norm() < 0.99 * (w - plain_nf4(w)).norm()


def plain_nf4(weight: Tensor) -> Tensor:
    codes, state = bitsandbytes.functional.quantize_4bit(
        weight.float(), blocksize=64, quant_type="nf4"
    )
    return bitsandbytes.functional.dequantize_4bit(codes, state).double()


@pytest.mark.parametrize("model", ["tiny", "stories260k"])
@pytest.mark.parametrize("name", entries("test_lora_starts.py::test_a_start_is_the_papers"))
def test_a_start_is_the_papers(name: str, model: str) -> None:
    found = entry(name, model)
    given = batches(found, 1 if name == "lora_eva" else 2)
    given[0]["attention_mask"][:] = 1 if name == "lora_eva" else given[0]["attention_mask"]
    start = started(found, given)
    expected = {
        f"base_model.model.{path}.lora_{x}.default.weight" for path in targets(found) for x in "AB"
    }
    assert set(start.adapted) == expected
    if name == "lora_eva":
        eva(found, start, given)
    elif name == "lora_ga":
        lora_ga(found, start, given)
    elif name == "lora_loftq":
        loftq(found, start, given)
    else:
        corda(found, start, given, is_largest=name == "lora_corda")


def test_eva_is_pefts() -> None:
    """Two batches at a low rank: peft's own call, with a threshold that every component passes at once."""
    found = pair("lora_eva", "stories260k", double=False)
    given = batches(found, 2)
    start = started(found, given)
    config = LoraConfig(
        r=4,
        init_lora_weights="eva",
        target_modules=targets(found),
        eva_config=EvaConfig(rho=1.0),
    )
    config.eva_config.tau = -1.0
    theirs = get_peft_model(copy.deepcopy(found.plain), config)
    initialize_lora_eva_weights(theirs, given, show_progress_bar=False)
    params = dict(theirs.named_parameters())
    for name, value in start.adapted.items():
        torch.testing.assert_close(value, params[name].detach(), atol=1e-6, rtol=0)
