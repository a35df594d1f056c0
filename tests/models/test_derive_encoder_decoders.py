"""Entries of encoder-decoders: one role for the matrices of both stacks, and a head that may be apart."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from helpers.encoder_decoders import WORDS
from rankwise.checks.model_entries import problems
from rankwise.core import entry_files
from rankwise.core.paths import SCHEMAS
from rankwise.core.schemas import check as check_schema
from rankwise.measure.memory.account import peak_columns
from rankwise.measure.memory.ledger import track
from rankwise.models import build, check
from rankwise.models.derive import Choices, Derived, derive
from rankwise.study.plan import Plan
from rankwise.training.pretrain import word_tokenizer

TASK = "sequence_to_sequence"
WIDTH, INNER, VOCABULARY, POSITIONS = 32, 48, 99, 64
ENCODERS, DECODERS = 1, 2  # layers
T5 = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_layers": ENCODERS,
    "num_decoder_layers": DECODERS, "num_heads": 4, "n_positions": POSITIONS, "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": ENCODERS, "decoder_layers": DECODERS,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
SQUARE, UP, DOWN = [WIDTH, WIDTH], [INNER, WIDTH], [WIDTH, INNER]
ATTENTIONS, FEED_FORWARDS = ENCODERS + 2 * DECODERS, ENCODERS + DECODERS
# model: (family, configuration, role -> name of its modules and shape of their weights)
MODELS = {
    "t5": (
        "t5",
        T5,
        {
            "query": ("q", SQUARE), "key": ("k", SQUARE), "value": ("v", SQUARE), "output": ("o", SQUARE),
            "up": ("wi", UP), "down": ("wo", DOWN),
        },
    ),
    "flan": (  # gated, with a head of its own
        "t5",
        {**T5, "feed_forward_proj": "gated-gelu"},
        {
            "query": ("q", SQUARE), "key": ("k", SQUARE), "value": ("v", SQUARE), "output": ("o", SQUARE),
            "gate": ("wi_0", UP), "up": ("wi_1", UP), "down": ("wo", DOWN),
        },
    ),
    "bart": (
        "bart",
        BART,
        {
            "query": ("q_proj", SQUARE), "key": ("k_proj", SQUARE), "value": ("v_proj", SQUARE),
            "output": ("out_proj", SQUARE), "up": ("fc1", UP), "down": ("fc2", DOWN),
        },
    ),
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """A folder with random weights and a tokenizer, as transformers saves a model."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    family, arguments, _ = MODELS[name]
    config = transformers.AutoConfig.for_model(family, **arguments)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    word_tokenizer(list(WORDS)).save_pretrained(folder)
    if name == "flan":
        give_own_head(folder)
    return folder


def give_own_head(folder: Path) -> None:
    """Files as of Flan-T5: `tie_word_embeddings: false`, and a head among the weights."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["scale_decoder_outputs"]  # of a newer transformers than Flan-T5's
    file.write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(VOCABULARY, WIDTH)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name in MODELS:
        save(name, root / "models" / name)
    return root


@pytest.fixture(scope="module")
def derived(project: Path) -> dict[str, Derived]:
    """What is derived from each folder, added to the project's entries."""
    answers = {}
    for name in MODELS:
        answers[name] = derive(f"models/{name}", Choices(f"my_{name}"), project)
        entry_files.append(project, "models", f"my_{name}", answers[name].entry)
    return answers


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_has_the_roles_of_both_stacks(name, derived, project, monkeypatch):
    answer, (family, _, roles) = derived[name], MODELS[name]
    check_schema({"x": answer.entry}, SCHEMAS / "models.schema.yaml", "config/models.yaml")
    found = {role: (m["name"], m["shape"]) for role, m in answer.entry["modules"].items()}
    assert found == roles
    counts = {role: matrices.count for role, matrices in answer.roles.items()}
    is_of_attention = dict.fromkeys(("query", "key", "value", "output"), ATTENTIONS)
    assert counts == {role: is_of_attention.get(role, FEED_FORWARDS) for role in roles}
    assert answer.others == []
    assert answer.entry["head"] == {TASK: ["lm_head"]}
    assert (answer.entry["family"], answer.entry["hidden_size"]) == (family, WIDTH)
    assert answer.entry["max_positions_tokens"] == POSITIONS
    monkeypatch.chdir(project)
    assert problems("x", answer.entry, [TASK]) == []
    if name == "bart":  # its table of positions has two rows more
        longer = {**answer.entry, "max_positions_tokens": POSITIONS + 1}
        assert "allowed: at most 64" in problems("x", longer, [TASK])[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_model_of_an_entry_is_the_folders_model(name, derived, project):
    entry, folder = derived[name].entry, project / "models" / name
    loaded = build.from_snapshot(folder, TASK, 0)
    check.same_model(loaded, build.checked_from_shapes(entry, TASK, 0), "x")
    own = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in own.parameters())
    stored = load_file(folder / "model.safetensors")
    if name == "flan":
        assert torch.equal(loaded.lm_head.weight, stored["lm_head.weight"])
    else:
        assert loaded.lm_head.weight is loaded.get_input_embeddings().weight


@pytest.mark.parametrize(("name", "method"), [("flan", "lora"), ("bart", "full")])
def test_the_predicted_peak_is_the_tracked_peak(name, method, derived, project):
    shapes = {"task": TASK, "batch_size": 3, "sequence_length_tokens": 10}
    grid = {"methods": [method], "ranks": [4], "measurements": ["ledger"], "models": [f"my_{name}"]}
    data = {
        "task": TASK, "files": {"folder": str(project), "format": "jsonl"}, "report_split": "test",
        "splits": {split: {"path": "rows.jsonl"} for split in ("train", "test")}, "text": "text", "label": "copy",
        "max_length_tokens": 10,
    }  # fmt: skip
    (project / "config/datasets.yaml").write_text(json.dumps({"copies": data}))
    (project / "rows.jsonl").write_text('{"text": "good film", "copy": "good"}\n')
    study = {
        "name": "peaks", "question": "?", "device": "cpu", "schedule": {"updates": 1, "batch_size": 3},
        "profile": [{**grid, "datasets": ["copies"]}],
    }  # fmt: skip
    plan = Plan(study, project)
    request = plan.request("ledger", plan.cells("ledger")[0])
    request["shapes"] |= shapes
    predicted, tracked = (peak_columns(track(request, device)[0]) for device in ("meta", "cpu"))
    assert predicted["peak_bytes"] == tracked["peak_bytes"]


def test_a_decoder_without_a_first_token_is_refused(tmp_path, derived, monkeypatch):
    folder = save("t5", tmp_path / "t5")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["decoder_start_token_id"]
    file.write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"t5/config\.json: decoder_start_token_id: got nothing, allowed"
    ):
        derive("t5", Choices("my_t5"), tmp_path)
    monkeypatch.chdir(tmp_path)
    entry = {**derived["t5"].entry, "weights": {"files": "t5", "sha256": "?"}}
    sentence = "t5/config.json: decoder_start_token_id: got nothing, allowed: the id of the token"
    assert sentence in "\n".join(problems("x", entry, [TASK]))
