"""`rankwise fits`: the model, the task and the options that the numbers are for."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.own_lengths import Project
from helpers.repository import ROOT
from rankwise.cli.main import main, parser
from rankwise.measure.memory import fits as measure

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


# A row with numbers, and the row of a method that the model cannot do.
TABLE = """\
| method | rank | length | batch in 1 GiB |
| --- | ---: | ---: | ---: |
| lora | 8 | 512 | 10 |
| prefix_tuning | 8 | this model takes no keys and values from outside |
"""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The requests that the command makes, in place of their prediction."""
    made: list[dict] = []

    def table(given: list[dict], _: object) -> str:
        made.extend(given)
        return TABLE

    monkeypatch.setattr(measure, "table", table)
    monkeypatch.chdir(ROOT)
    return made


def asked(*arguments: str) -> int:
    return main(["fits", "--memory", "1GiB", "--methods", "lora", *arguments])


@pytest.mark.parametrize(
    ("model", "task", "classes"),
    [
        ("llama_3_2_3b", "language_modelling", 0),
        ("gpt2", "language_modelling", 0),
        ("bert-base", "classification", 2),
    ],
)
def test_the_task_is_the_usual_one_of_the_model(
    model: str, task: str, classes: int, requests: list, capsys: pytest.CaptureFixture
) -> None:
    methods = ["--methods", "full"]
    assert asked("--model", model, *methods) == 0
    assert requests[0]["shapes"]["task"] == task
    assert requests[0]["shapes"]["classes"] == classes
    assert f": {task}" in capsys.readouterr().out


def test_it_says_which_head_and_vocabulary_it_assumed(
    requests: list, capsys: pytest.CaptureFixture
) -> None:
    assert asked("--model", "llama_3_2_3b") == 0
    assert asked("--model", "llama_3_2_3b", "--task", "classification") == 0
    first, second = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("llama_3_2_3b")
    )
    assert first.startswith(
        "llama_3_2_3b: language_modelling, head lm_head, vocabulary 128,256; others: --task "
    )
    assert second.startswith(
        "llama_3_2_3b: classification with 2 classes, head score, vocabulary 128,256; others: --task "
    )
    assert requests[1]["shapes"]["task"] == "classification"


def test_a_reason_widens_no_column_and_a_zero_is_explained(
    requests: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked() == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "method         rank  length  batch in 1 GiB",
        "lora              8     512              10",
        "prefix_tuning     8  this model takes no keys and values from outside",
    ]
    monkeypatch.setattr(measure, "table", lambda *_: TABLE.replace("10", "0"))
    assert asked() == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "0: not even one text of this length, or of any length, fits"
    )


def test_a_folder_needs_its_configuration_alone(
    tmp_path: Path, requests: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "My-Llama").mkdir()
    (tmp_path / "My-Llama/config.json").write_text(json.dumps(LLAMA))
    monkeypatch.chdir(tmp_path)
    assert asked("--model", "./My-Llama") == 0
    assert requests[0]["cell"]["model"] == "my_llama"
    assert requests[0]["shapes"]["task"] == "language_modelling"
    assert requests[0]["model"]["architecture"]["vocab_size"] == 96
    assert requests[0]["model"]["modules"]["key"] == {"name": "k_proj", "shape": [16, 32]}


def test_options_change_the_step_and_the_entries(requests: list) -> None:
    step = ["--accumulation", "4", "--precision", "bf16", "--attention", "eager", "--checkpointing"]
    entry = ["--targets", "query", "output", "--optimizer", "adafactor", "--weights", "bf16"]
    loss = ["--model", "llama_3_2_3b", "--loss", "chunked"]
    assert asked(*loss, *step, *entry, "--methods", "lora", "galore", "qlora") == 0
    lora, galore, qlora = requests
    for request in requests:
        picked = [request[name] for name in ("accumulation_steps", "precision", "attention")]
        assert picked == [4, "bf16", "eager"]
        assert (request["checkpointing"], request["loss"]) == (True, "chunked")
    assert lora["method"]["options"]["targets"] == ["query", "output"]
    assert lora["method"]["optimizer"]["module"] == "adafactor"
    assert lora["method"]["weights"] == galore["method"]["weights"] == "bf16"
    assert galore["method"]["optimizer"]["module"] == "projected_adam"  # an optimizer of its own
    assert qlora["method"]["weights"] == "nf4_double"  # bf16 is for dense bases


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "language_modelling"], "--task: got 'language_modelling', allowed: classification, "),
        (["--dataset", "sst2", "--task", "regression"], "--task: got 'regression', allowed: classification, the task of the dataset sst2"),
        (["--methods", "full", "--targets", "query"], "--targets: got 'query', allowed: nothing with full: none of them has targets"),
        (["--model", "lama"], "config/models.yaml: model: got 'lama', allowed: "),
        (["--length", "4096"], "rankwise: --length: got 4096, allowed: at most 512, the positions of distilbert"),
        (["--methods", "loora"], "got 'loora', allowed: "),
        (["--targets", "quarry"], "rankwise: --targets: got 'quarry', allowed: "),
        (["--accumulation", "0"], "rankwise: --accumulation: got 0, allowed: at least 1"),
        (["--target-length", "8"], "rankwise: --target-length: got 8, allowed: nothing with the task classification, whose labels have no length of their own"),
        (["--model", "no/such/folder"], "no/such/folder: got no such folder, allowed: a folder with config.json, or a repository on the hub"),
        (["--optimizer", "adam"], "rankwise: --optimizer: got 'adam', allowed: "),
        (["--weights", "nf4", "--methods", "full"], "rankwise: --weights: got 'nf4', allowed: fp32 or bf16 under full"),
        (["--rank", "0"], "rankwise: --rank: got 0, allowed: ranks of lora from 1 to 768"),
        (["--memory", "0GiB"], "rankwise: --memory: got 0.0, allowed: above 0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(
    arguments: list[str], message: str, requests: list, capsys: pytest.CaptureFixture
) -> None:
    assert asked(*arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert requests == []


# The lengths of a dataset ---------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with entries of a model and a dataset, both prepared."""
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MY_MODEL", str(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    (tmp_path / "config").mkdir()
    for kind, entries in made.added.items():
        (tmp_path / f"config/{kind}.yaml").write_text(yaml.safe_dump(entries))
    return made


def test_the_longest_text_of_a_prepared_dataset(
    project: Project, capsys: pytest.CaptureFixture
) -> None:
    """The table of the command is that of a study's profile, and of the length by hand."""
    mine = ["--model", "mine", "--dataset", "mine", "--device", "cpu", "--rank", "4"]
    arguments = ["fits", "--memory", "16MiB", "--methods", "lora", *mine, "--length"]
    assert main([*arguments, "dataset"]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("lora "))
    profile = {"measurements": ["fits"], "memory_gib": [1 / 64]}
    found = measure.fits(project.ledger_request("lora", **profile))["rows"]
    named = {"sequence_length_tokens": 62, "padded": True}  # 60 words and what a tokenizer adds
    assert found == measure.fits(project.ledger_request("lora", **profile, **named))["rows"]
    assert str(found[0]["largest_batch_size"]) in row.split()
    assert "62" in row.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny"], "rankwise fits: --length: got 'dataset', allowed: numbers without --dataset; or dataset with --dataset NAME"),
        (["--model", "tiny", "--dataset", "sst2", "--length", "dataset", "64"], "rankwise fits: --length: got 'dataset 64', allowed: dataset"),
        (["--model", "tiny", "--dataset", "generated_reviews"], "lengths are read from prepared data: those of a study that trains tiny on generated_reviews"),
    ],
)  # fmt: skip
def test_lengths_that_cannot_be_had_are_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked_length = [] if "--length" in arguments else ["--length", "dataset"]
    assert asked(*arguments, *asked_length) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize(
    ("text", "gib"), [("24GiB", 24.0), ("24", 24.0), ("512MiB", 0.5), ("1073741824GB", 1e9)]
)
def test_a_size_of_memory(text: str, gib: float) -> None:
    given = parser().parse_args(["fits", "--memory", text])
    assert given.memory == [pytest.approx(gib)]
