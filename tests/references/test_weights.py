"""Methods that change weights: the plain model with the weights of the paper's formula answers and learns alike."""

import pytest
import torch
from torch import Tensor, nn

from helpers.formulas import formula_of
from helpers.lockstep import DECAY, EPS, AdamW, Pair, check_gradients, check_training, pair
from references.registry import entries

both_models = pytest.mark.parametrize("model", ["tiny", "stories260k"])
ADAMW = {"weight_decay": DECAY, "eps": EPS}


@both_models
@pytest.mark.parametrize(
    "name", entries("test_weights.py::test_gradients_and_steps_are_those_of_the_formula")
)
def test_gradients_and_steps_are_those_of_the_formula(name: str, model: str) -> None:
    found = pair(name, model, optimizer=ADAMW)
    answer = formula_of(found)
    found.randomise()
    check_gradients(found, answer)
    ratio = found.entry["options"].get("plus_ratio", 1.0)

    def rates(
        parameter: str,
    ) -> float:  # LoRA+ (Hayou et al. 2024): B, and the authors' vectors too
        is_fast = "lora_B" in parameter or found.theirs[parameter].ndim < 2
        return ratio if is_fast else 1.0

    check_training(found, answer, AdamW(rates))


@both_models
@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_the_start_of_the_factors_is_the_papers(name: str, model: str) -> None:
    """PiSSA, eq. 2-3: U sqrt(S) and sqrt(S) V of rank r. OLoRA: r columns of Q and r rows of R."""
    found = pair(name, model)
    factors = lora_factors(found)
    assert len(factors) == 2 * len(
        found.plain.base_model.transformer.layer if model == "tiny" else found.plain.model.layers
    )
    for path, (a, b) in factors.items():
        w, rank = found.plain.get_submodule(path).weight.detach(), a.shape[0]
        if name == "pissa":
            u, s, vt = torch.linalg.svd(w)
            product = (u[:, :rank] * s[:rank]) @ vt[:rank]
            torch.testing.assert_close(a @ a.mT, s[:rank].diag(), atol=1e-5, rtol=0)
            torch.testing.assert_close(b.mT @ b, s[:rank].diag(), atol=1e-5, rtol=0)
        else:
            q, r = torch.linalg.qr(w)
            product = q[:, :rank] @ r[:rank]
            torch.testing.assert_close(b.mT @ b, torch.eye(rank, dtype=w.dtype), atol=1e-5, rtol=0)
            torch.testing.assert_close(a, a.triu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(b @ a, product, atol=1e-5, rtol=0)


def lora_factors(found: Pair) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every adapted matrix, by the plain model's name of the matrix."""
    factors = {}
    for name, value in found.trainable().items():
        if name.endswith("lora_A.default.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
            other = found.trainable()[name.replace("lora_A", "lora_B")]
            factors[path] = value.detach(), other.detach()
    return factors


@both_models
def test_weight_reduction_starts_from_the_singular_triplets(model: str) -> None:
    """Where the spectrum falls the randomised decomposition is the exact one."""

    def let_spectra_fall(base: nn.Module) -> None:
        with torch.no_grad():
            for param in base.parameters():
                if param.ndim == 2:
                    u, s, vt = torch.linalg.svd(param, full_matrices=False)
                    param.copy_((u * 0.3 ** torch.arange(len(s))) @ vt)

    found = pair("weight_reduction", model, change=let_spectra_fall)
    theirs = {name: value for name, value in found.theirs.items() if name.endswith(".c")}
    assert len(theirs) == 3 * (2 if model == "tiny" else 5)
    for name, values in theirs.items():
        path = name.removesuffix(".c")
        u, s, vt = torch.linalg.svd(found.plain.get_submodule(path).weight.detach())
        a, b = (found.theirs[f"{path}.{factor}"].detach() for factor in "ab")
        rank = len(values)
        torch.testing.assert_close(values.detach(), s[:rank], atol=1e-6, rtol=0)
        product = (u[:, :rank] * s[:rank]) @ vt[:rank]
        torch.testing.assert_close((a * values.detach()) @ b, product, atol=1e-6, rtol=0)
        eye = torch.eye(rank, dtype=a.dtype)
        torch.testing.assert_close(a.mT @ a, eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(b @ b.mT, eye, atol=1e-5, rtol=0)
