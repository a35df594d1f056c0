"""Profiles at a dataset's own lengths: what their jobs read, and what they cannot be asked for."""

import re
from pathlib import Path

import pytest

from helpers import file_inputs
from helpers.profiling import profile_plan, profile_request
from helpers.repository import ROOT
from rankwise.core import dataset_defaults, paths
from rankwise.core.config import ConfigError
from rankwise.core.schemas import check
from rankwise.study.jobs import cell_jobs
from rankwise.study.plan import Plan

OWN = {"model": "tiny", "dataset": "generated_reviews", "sequence_length_tokens": "dataset"}
CANNOT_READ = {
    "a measurement of one length": (
        ("flops", {}),
        "profile.0.sequence_length_tokens: got 'dataset', allowed: a number with flops; or a grid "
        "with ledger and fits alone",
    ),
    "a model without weights": (
        ("ledger", {"model": "llama_3_2_1b", "dataset": "wikitext2"}),
        "profile.0.sequence_length_tokens: got 'dataset', allowed: a number with llama_3_2_1b, which "
        "has no weights and so no tokenizer",
    ),
    "lengths of its own": (
        ("fits", {"lengths_tokens": [32]}),
        "profile.0.lengths_tokens: got [32], allowed: nothing with sequence_length_tokens: dataset",
    ),
    "padding that the data decide": (
        ("ledger", {"padded": True}),
        "profile.0.padded: got True, allowed: false with sequence_length_tokens: dataset",
    ),
    "an order without data": (
        ("ledger", {"sequence_length_tokens": 32, "group_by_length": True}),
        "profile.0.group_by_length: got True, allowed: nothing without sequence_length_tokens: "
        "dataset",
    ),
    "another word": (
        ("ledger", {"sequence_length_tokens": "longest"}),
        "profile.0.sequence_length_tokens: got 'longest', allowed: tokens per text",
    ),
}


@pytest.mark.parametrize(("case", "message"), CANNOT_READ.values(), ids=CANNOT_READ)
def test_lengths_of_a_dataset_that_cannot_be_had(case: tuple[str, dict], message: str) -> None:
    measurement, changes = case
    with pytest.raises(ConfigError, match=re.escape(message)):
        profile_request(measurement, "lora", **{**OWN, **changes})


def test_a_profile_of_own_lengths_reads_the_prepared_data() -> None:
    """Its job reads what it names, and inputs of a profile alone are prepared, too."""
    plan = profile_plan("ledger", "lora", **OWN, seed=3)
    (job,) = cell_jobs(plan, "ledger")
    named = [("dataset", "generated_reviews"), ("model", "tiny")]
    assert set(job.inputs) == {plan.input_path(*one) for one in named}
    assert set(named) < set(plan.inputs())
    assert job.request["lengths"] == {"seed": 3, "group_by_length": False, "epochs": 1}
    (plain,) = cell_jobs(
        profile_plan("ledger", "lora", **{**OWN, "sequence_length_tokens": 32}), "ledger"
    )
    assert plain.inputs == ()
    assert {"lengths", "dataset", "inputs"}.isdisjoint(plain.request)


def test_an_edited_data_file_reruns_the_profile_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the content of the file differs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    file_inputs.write_dataset(tmp_path / "data")
    entry = dataset_defaults.filled({"mine": file_inputs.DATASET})
    added = {"datasets": check(entry, paths.SCHEMAS / "datasets.schema.yaml", "mine")}

    def digests() -> list[str]:
        grid = {
            "models": ["tiny"],
            "datasets": ["mine"],
            "methods": ["lora"],
            "measurements": ["ledger"],
        }
        lengths = [{**grid, "sequence_length_tokens": "dataset"}]
        study = {"name": "t", "question": "?", "device": "cpu", "profile": lengths}
        plan = Plan(study, ROOT, added=added)
        return [plan.cell_digest("ledger", cell) for cell in plan.cells("ledger")]

    before = digests()
    assert digests() == before
    file_inputs.flip_labels(tmp_path / "data/train.tsv")
    assert digests() != before
