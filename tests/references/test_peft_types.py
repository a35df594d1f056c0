"""Types of peft: a matrix answers and learns by the paper's formula, written out in helpers/peft_formulas.py."""

import pytest
import torch
import yaml
from peft import PeftType
from torch import Tensor, nn

from helpers.lockstep import (
    DECAY,
    EPS,
    AdamW,
    by_weights,
    check_gradients,
    check_training,
    pair,
    plain_name,
)
from helpers.peft_formulas import FORMULAS
from helpers.repository import ROOT
from rankwise.methods.parts.base import Method, adapt
from references.registry import entries

ADAMW = {"weight_decay": DECAY, "eps": EPS}

ENTRIES = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
RANK = 4
ORDER = {"query": 0, "value": 1}
# Settings that a matrix of eight to sixteen rows needs.
SETTINGS = {
    "road": {"group_size": 4},
    "supertuning": {"sparsity": 0.9},
    "vblora": {"num_vectors": 6, "vector_length": 4},
    "unilora": {"theta_d_length": 24},
}
# Types of peft that a file of Rankwise's own stands for, by the entry that shows it.
OWN_FILES = {
    "ADALORA": "adalora",
    "HIRA": "hira",
    "IA3": "ia3",
    "LORA": "lora",
    "MISS": "miss",
    "OFT": "oft",
    "PREFIX_TUNING": "prefix_tuning",
    "PROMPT_TUNING": "prompt_tuning",
    "P_TUNING": "p_tuning",
    "SHIRA": "shira",
    "VERA": "vera",
}


class Two(nn.Module):
    """A wide and a tall matrix beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(12, 8), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.query(x), self.value(x)


def adapted(name: str, seed: int = 1) -> tuple[Method, nn.Module, Two, dict]:
    """Method, adapted model, the model before, and the entry's options; in float64 and in evaluation."""
    options = {"rank": RANK, **ENTRIES[name]["options"]}
    options["targets"] = ["query", "value"]
    options = {key: RANK if value == "rank" else value for key, value in options.items()}
    if name in SETTINGS:
        options["settings"] = SETTINGS[name]
    torch.manual_seed(0)
    base, plain = Two(), Two()
    plain.load_state_dict(base.state_dict())
    names = {
        "task": "classification",
        "hidden_size": 12,
        "modules": {role: {"name": role} for role in ("query", "value")},
        "head": [],
        "new_head": [],
    }
    torch.manual_seed(seed)
    method, model = adapt({"module": ENTRIES[name]["module"], "options": options}, base, names)
    return method, model.double().eval(), plain.double(), options


def move(model: nn.Module) -> dict[str, Tensor]:
    """Move what trains away from its start, and copy it."""
    generator = torch.Generator().manual_seed(5)
    copies = {}
    for name, param in model.named_parameters():
        if param.requires_grad:
            with torch.no_grad():
                param.add_(0.3 * torch.randn(param.shape, generator=generator))
            copies[name] = param.detach().clone().requires_grad_()
    return copies


def of_matrix(role: str, layer: nn.Module, copies: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of a matrix by peft's names, and what was drawn or shared for it.

    peft registers a parameter that matrices share with the first of them.
    """
    found = {}
    for own in (False, True):
        for name, value in copies.items():
            owner, _, rest = name.removeprefix("base_model.model.").partition(".")
            if (owner == role) == own:
                found[rest.removesuffix(".default").replace(".default", "")] = value
    for name in ("indices", "waveft_indices", "pvera_A", "pvera_B", "randlora_A", "randlora_B", "tinylora_P",
                 "unilora_indices_A", "unilora_indices_B"):  # fmt: skip
        if hasattr(layer, name):
            found[name] = getattr(layer, name)["default"]
    if f"tinylora_v.{ORDER[role]}" in found:
        found["tinylora_v"] = found[f"tinylora_v.{ORDER[role]}"]
    return found


@pytest.mark.parametrize(
    "name", entries("test_peft_types.py::test_a_matrix_answers_and_learns_as_its_formula")
)
def test_a_matrix_answers_and_learns_as_its_formula(name: str) -> None:
    _, model, plain, options = adapted(name)
    copies = move(model)
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    layers = {role: model.base_model.model.get_submodule(role) for role in ("query", "value")}
    by_role = {role: of_matrix(role, layer, copies) for role, layer in layers.items()}
    if name == "unilora":
        places = [
            by_role[role][f"unilora_indices_{key}"].flatten() for role in layers for key in "AB"
        ]
        counts = torch.cat(places).long().bincount(minlength=24).double()
        for found in by_role.values():
            found["counts"] = counts
    loss, expected_loss = 0, 0
    for answer, role in zip(model(x), layers, strict=True):
        matrix = plain.get_submodule(role)
        expected = FORMULAS[name](
            x, matrix.weight.detach(), matrix.bias.detach(), by_role[role], options
        )
        torch.testing.assert_close(answer, expected, atol=1e-6, rtol=1e-5)
        # Cubes, because a rotation keeps the sum of squares.
        loss, expected_loss = loss + answer.pow(3).sum(), expected_loss + expected.pow(3).sum()
    loss.backward()
    expected_gradients = torch.autograd.grad(expected_loss, list(copies.values()))
    if name == "osf":
        expected_gradients = outside_of_what_stays(plain, copies, expected_gradients)
    for (key, gradient), expected in zip(trained(model).items(), expected_gradients, strict=True):
        scale = expected.abs().max()
        assert scale > 0, key
        assert (gradient.grad - expected).abs().max() <= 1e-5 * scale, key


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: param for name, param in model.named_parameters() if param.requires_grad}


def outside_of_what_stays(
    plain: Two, copies: dict[str, Tensor], gradients: tuple[Tensor, ...]
) -> list[Tensor]:
    """OSF, eq. 3: gradients of U and V lose their part in the directions that stay."""
    projected = []
    for name, gradient in zip(copies, gradients, strict=True):
        weight = plain.get_submodule(name.split(".")[2]).weight.detach()
        u, _, vh = torch.linalg.svd(weight)
        stays = torch.zeros_like(gradient)
        if name.endswith("U_low"):
            stays = u[:, :RANK] @ u[:, :RANK].mT @ gradient
        elif name.endswith("V_low"):
            stays = gradient @ vh[:RANK].mT @ vh[:RANK]
        projected.append(gradient - stays)
    return projected


def test_every_type_of_peft_has_an_entry() -> None:
    """A new peft brings new types; this says which."""
    types = {entry["options"]["type"] for entry in ENTRIES.values() if entry["module"] == "peft"}
    assert not types & set(OWN_FILES)
    assert types | set(OWN_FILES) == {kind.name for kind in PeftType}
    for kind, entry in OWN_FILES.items():
        assert ENTRIES[entry]["module"] == kind.lower()


def test_norms_train_and_nothing_else() -> None:
    """Zhao et al. 2023: gains and biases of every norm, beside a new head."""
    found = pair("ln_tuning", "tiny", optimizer=ADAMW)

    def weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        changed = {}
        for name, value in theirs.items():
            changed[plain_name(name.replace("ln_tuning_layers.default.", ""))] = value
        return changed

    norms = 1 + 2 * 2  # of the embeddings, and two of each layer
    assert len(weights(found.theirs)) == 2 * norms + 4
    found.randomise()
    answer = by_weights(found, weights)
    check_gradients(found, answer)
    check_training(found, answer, AdamW())


def test_the_first_rows_of_the_embedding_train() -> None:
    """As many rows as the rank says; the head, which is tied to them, computes with them."""
    found = pair("trainable_tokens", "stories260k", optimizer=ADAMW)
    found.batch["input_ids"][:, :RANK] = torch.arange(RANK)
    ((name, rows),) = found.theirs.items()
    assert rows.shape == (RANK, 64)
    assert torch.equal(rows, found.plain.model.embed_tokens.weight[:RANK])
    found.randomise()
    whole = found.plain.model.embed_tokens.weight.detach()

    def weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"model.embed_tokens.weight": torch.cat([theirs[name], whole[RANK:]])}

    answer = by_weights(found, weights)
    check_gradients(found, answer)
    check_training(found, answer, AdamW())


def test_llama_adapter_attends_to_its_prompts() -> None:
    """Zhang et al. 2023, eq. 6-9: a gate times attention to the prompts, beside the attention to the text."""
    found = pair("adaption_prompt", "stories260k", optimizer=ADAMW)
    attentions = [layer.self_attn for layer in found.plain.model.layers]
    assert len(found.theirs) == 2 * len(attentions)
    found.randomise()
    values: dict[str, Tensor] = {}

    def with_prompts(number: int):
        def add(attention: nn.Module, _args: tuple, inputs: dict, output: tuple) -> tuple:
            prefix = f"base_model.model.model.layers.{number}.self_attn.adaption_"
            prompt, gate = values[f"{prefix}prompt"][0], values[f"{prefix}gate"]
            width, heads = attention.head_dim, attention.config.num_attention_heads
            groups = heads // attention.config.num_key_value_heads
            states = inputs["hidden_states"]
            queries = attention.q_proj(states).unflatten(-1, (heads, width))
            cosines, sines = (part[:, :, None] for part in inputs["position_embeddings"])
            half = width // 2
            turned = torch.cat([-queries[..., half:], queries[..., :half]], -1)
            queries = queries * cosines + turned * sines
            keys, content = (
                matrix(prompt).unflatten(-1, (-1, width)).repeat_interleave(groups, 1)
                for matrix in (attention.k_proj, attention.v_proj)
            )
            scores = torch.einsum("btha,kha->bthk", queries, keys) / width**0.5
            shares = scores.softmax(-1, dtype=torch.float32).double()  # peft's precision
            mixed = torch.einsum("bthk,kha->btha", shares, content)
            return (output[0] + gate * attention.o_proj(mixed.flatten(2)), *output[1:])

        return add

    for number, attention in enumerate(attentions):
        attention.register_forward_hook(with_prompts(number), with_kwargs=True)

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        values.update(theirs)
        output = found.plain(**found.batch)
        return output.logits, output.loss

    check_gradients(found, answer)
    check_training(found, answer, AdamW())
