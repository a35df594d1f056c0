"""Entries of config/models.yaml, derived from folders of small models of seventeen families."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from helpers.model_folders import (
    FAMILIES,
    HEADS_BY_TASK,
    LAYERS,
    LONGEST,
    OTHERS,
    ROLES,
    WIDTH,
    entry_name,
    save,
)
from rankwise.checks.model_entries import problems
from rankwise.core import entry_files
from rankwise.core.paths import SCHEMAS
from rankwise.core.schemas import check
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.account import peak_columns
from rankwise.measure.memory.ledger import track
from rankwise.methods.parts.base import Method, adapt, build_optimizer
from rankwise.methods.parts.peft_base import modules_of
from rankwise.models import build, storage
from rankwise.models.derive import Choices, Derived, derive
from rankwise.models.tasks import classification
from rankwise.study.plan import Plan

AUTO_CLASSES = {
    "classification": transformers.AutoModelForSequenceClassification,
    "language_modelling": transformers.AutoModelForCausalLM,
    "masked_language_modelling": transformers.AutoModelForMaskedLM,
    "token_classification": transformers.AutoModelForTokenClassification,
}
NEW_HEADS = ("classification", "token_classification")
BATCH, LENGTH = 4, 16
FAST_PREDICTIONS = {"bert", "phi3", "deberta-v2"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a folder of each family."""
    root = tmp_path_factory.mktemp("project")
    for family in FAMILIES:
        save(family, root / "models" / family)
    return root


@pytest.fixture(scope="module")
def derived(project: Path) -> dict[str, Derived]:
    """What is derived from each folder, added to the project's entries."""
    answers = {}
    for family in FAMILIES:
        answers[family] = derive(f"models/{family}", Choices(entry_name(family)), project)
        entry_files.append(project, "models", answers[family].name, answers[family].entry)
    return answers


@pytest.mark.parametrize("family", FAMILIES)
def test_an_entry_has_the_roles_heads_and_sizes_of_its_model(
    family: str, derived: dict[str, Derived]
) -> None:
    answer = derived[family]
    file = "config/models.yaml"
    check({answer.name: answer.entry}, SCHEMAS / "models.schema.yaml", file)
    found = {role: (m.module, tuple(m.shape), m.count) for role, m in answer.roles.items()}
    assert found == {role: (*place, LAYERS) for role, place in ROLES[family].items()}
    assert {m.module for m in answer.others} == OTHERS.get(family, set())
    entry = answer.entry
    assert (entry["family"], entry["hidden_size"]) == (family, WIDTH)
    assert entry["head"] == HEADS_BY_TASK[family]
    assert entry["max_positions_tokens"] == LONGEST[family]
    assert entry["weights"]["files"] == f"models/{family}"
    assert entry["licence"] == "unknown, ask its author"
    assert entry["note"] == "weights stored in fp32"


@pytest.mark.parametrize("family", FAMILIES)
def test_planning_finds_nothing_wrong_with_a_derived_entry(
    family: str, derived: dict[str, Derived], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    entry = derived[family].entry
    assert problems(derived[family].name, entry, list(entry["head"])) == []
    halved = {**entry, "hidden_size": WIDTH // 2}
    assert problems(derived[family].name, halved, list(entry["head"])) != []


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_an_entry_find_the_matrices_of_their_role_in_every_tasks_model(
    family: str, derived: dict[str, Derived]
) -> None:
    entry = derived[family].entry
    for task in entry["head"]:
        model = build.from_shapes(entry, task, 2 if task in NEW_HEADS else 0)
        names = build.names(entry, task)
        for role, (place, shape) in ROLES[family].items():
            modules = modules_of(model, (role,), names)
            prefix = f"{model.base_model_prefix}."
            places = [re.sub(r"\.\d+\.", ".*.", name.removeprefix(prefix)) for name in modules]
            assert places == [place] * LAYERS
            assert {tuple(module.weight.shape) for module in modules.values()} == {shape}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_of_an_entry_is_the_folders_model(
    family: str, derived: dict[str, Derived], project: Path
) -> None:
    entry = derived[family].entry
    folder = project / "models" / family
    plain = transformers.AutoModel.from_pretrained(folder)
    assert derived[family].parameters == sum(p.numel() for p in plain.parameters())
    for task in entry["head"]:
        classes = {"num_labels": 3} if task in NEW_HEADS else {}
        loaded = AUTO_CLASSES[task].from_pretrained(folder, **classes)
        made = build.from_shapes(entry, task, classes.get("num_labels", 0))
        assert _shapes(made) == _shapes(loaded)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_takes_its_longest_input_and_no_longer_one_by_a_table(
    family: str, derived: dict[str, Derived], project: Path
) -> None:
    longest = derived[family].entry["max_positions_tokens"]
    model = transformers.AutoModel.from_pretrained(project / "models" / family).eval()
    with torch.no_grad():
        ids = torch.full((1, longest), 5)
        assert torch.isfinite(model(input_ids=ids)[0]).all()
        if family in ("gpt2", "opt", "bert", "roberta", "distilbert"):  # learnt positions
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, longest + 1), 5))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_lora_on_all_matrices_trains_the_adapters_and_a_new_head_and_reloads(
    family: str, derived: dict[str, Derived], project: Path
) -> None:
    entry = derived[family].entry
    folder = project / "models" / family
    names = build.names(entry, "classification")
    method = _request(project, derived, family)["method"]
    assert method["options"]["targets"] == list(ROLES[family])
    adapter, trained = _adapted(method, folder, names)
    before = {name: param.detach().clone() for name, param in trained.named_parameters()}
    batch = {"input_ids": torch.arange(5, 25).reshape(2, 10), "labels": torch.tensor([0, 1])}
    optimizer = build_optimizer({**method, "learning_rate": 1e-2}, adapter, trained, names, seed=0)
    for _ in range(2):  # B starts at zero, so A's first gradient is zero
        optimizer.zero_grad()
        trained(**batch).loss.backward()
        optimizer.step()
    changed = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
    head = {n for n in before if set(n.split(".")) & set(names["head"]) and "modules_to_save" in n}
    adapters = {n for n in before if ".lora_A." in n or ".lora_B." in n}
    assert changed == head | adapters
    assert len(adapters) == 2 * LAYERS * len(ROLES[family])

    _, reloaded = _adapted(method, folder, names)
    state = {name: tensor.clone() for name, tensor in storage.learnt(trained).items()}
    assert set(reloaded.load_state_dict(state, strict=False).unexpected_keys) == set()
    with torch.no_grad():
        logits = [
            model.eval()(input_ids=batch["input_ids"]).logits for model in (trained, reloaded)
        ]
    assert torch.equal(*logits)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=[] if family in FAST_PREDICTIONS else pytest.mark.slow)
        for family in FAMILIES
    ],
)
def test_the_predicted_peak_is_the_tracked_peak(
    family: str, derived: dict[str, Derived], project: Path
) -> None:
    request = _request(project, derived, family)
    predicted, tracked = (peak_columns(track(request, device)[0]) for device in ("meta", "cpu"))
    assert predicted["peak_bytes"] == tracked["peak_bytes"]


def test_a_configuration_without_a_padding_token_is_profiled(tmp_path: Path) -> None:
    """Llama's and GPT-NeoX's have none, and a classification asks for one."""
    save("gpt_neox", tmp_path / "models/no_padding", pad_token_id=None)
    answer = derive("models/no_padding", Choices("no_padding"), tmp_path)
    assert answer.entry["architecture"].get("pad_token_id") is None
    entry_files.append(tmp_path, "models", answer.name, answer.entry)
    request = _request(tmp_path, {"gpt_neox": answer}, "gpt_neox")
    predicted, tracked = (peak_columns(track(request, device)[0]) for device in ("meta", "cpu"))
    assert predicted["peak_bytes"] == tracked["peak_bytes"] > 0


def test_a_decoder_classifies_by_its_last_token_whatever_its_configuration_pads_with(
    tmp_path: Path,
) -> None:
    """The tokenizer pads with 0, config.json names another token."""
    folder = save("llama", tmp_path / "other_padding", pad_token_id=9)
    model = build.from_snapshot(folder, "classification", 2, ["score"]).eval()
    collate = classification.Collate(build.tokenizer(folder), seed=0)
    examples = [
        {"input_ids": [7, 8, 11], "labels": 0},
        {"input_ids": [7, 8, 11, 12, 13], "labels": 0},
    ]
    with torch.no_grad():
        alone, padded = (model(**collate(batch)).logits[0] for batch in (examples[:1], examples))
    torch.testing.assert_close(padded, alone)


def test_layers_that_share_their_weights_are_those_of_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALBERT runs one layer's weights several times."""
    monkeypatch.chdir(tmp_path)
    sizes = {"vocab_size": 65, "embedding_size": 16, "hidden_size": WIDTH, "intermediate_size": 64}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 32}
    save("bert", tmp_path / "models/albert")  # for its tokenizer
    config = transformers.AlbertConfig(**sizes)
    transformers.AlbertForMaskedLM(config).save_pretrained(tmp_path / "models/albert")
    answer = derive("models/albert", Choices("my_albert"), tmp_path)
    entry = answer.entry
    assert {role: found.count for role, found in answer.roles.items()} == dict.fromkeys(
        ("query", "key", "value", "output", "up", "down"), 1
    )
    assert problems("my_albert", entry, list(entry["head"])) == []
    entry_files.append(tmp_path, "models", answer.name, entry)
    request = _request(tmp_path, {"albert": answer}, "albert")
    predicted, tracked = (peak_columns(track(request, device)[0]) for device in ("meta", "cpu"))
    assert predicted["peak_bytes"] == tracked["peak_bytes"] > 0


def test_a_key_that_all_heads_read_is_predicted(tmp_path: Path) -> None:
    """Falcon broadcasts it, so torch takes plain products, which keep the scores of all heads.

    The difference that is left is 16 bytes a layer; the scores are 8,192 bytes a layer.
    """
    save("bert", tmp_path / "models/falcon")  # for its tokenizer
    config = transformers.FalconConfig(
        vocab_size=65,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        new_decoder_architecture=False,
        multi_query=True,
    )
    transformers.FalconForCausalLM(config).save_pretrained(tmp_path / "models/falcon")
    answer = derive("models/falcon", Choices("my_falcon"), tmp_path)
    entry_files.append(tmp_path, "models", answer.name, answer.entry)
    request = _request(tmp_path, {"falcon": answer}, "falcon")
    predicted, tracked = (peak_columns(track(request, device)[0]) for device in ("meta", "cpu"))
    assert abs(predicted["peak_bytes"] - tracked["peak_bytes"]) <= 16 * LAYERS


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "opt", "phi3"])
def test_flops_from_shapes_are_those_of_a_real_forward_pass(
    family: str, derived: dict[str, Derived], project: Path
) -> None:
    """The first three read the mask for more than attention."""
    request = _request(project, derived, family, "flops")
    entry, task = derived[family].entry, "classification"
    base = build.from_shapes(entry, task, request["shapes"]["classes"], "cpu", "eager")
    _, model = adapt(request["method"], base, build.names(entry, task))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.full((BATCH, LENGTH), 5))
    assert flops(request)["metrics"]["forward_flops"] == counter.get_total_flops() > 0


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: param.shape for name, param in model.named_parameters()}


def _request(
    project: Path, derived: dict[str, Derived], family: str, measurement: str = "ledger"
) -> dict:
    """A profile's request of LoRA on all matrices, as the workflow makes it."""
    grid = {
        "models": [derived[family].name],
        "datasets": ["generated_reviews"],
        "methods": ["lora"],
        "ranks": [4],
        "batch_size": BATCH,
        "sequence_length_tokens": LENGTH,
        "measurements": [measurement],
    }
    override = {"lora": {"options": {"targets": "all"}}}
    study = {"name": "t", "question": "?", "device": "cpu", "cpu_threads": 1}
    plan = Plan({**study, "override": override, "profile": [grid]}, project)
    return plan.request(measurement, plan.cells(measurement)[0])


def _adapted(method: dict, folder: Path, names: dict) -> tuple[Method, torch.nn.Module]:
    torch.manual_seed(0)
    return adapt(method, build.from_snapshot(folder, "classification", 2, names["new_head"]), names)
