"""Wrong configurations are refused before any job starts.

The message is one line that names the file, the key, the value that was got, and what is allowed.
"""

import copy
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT, edit, run_snakemake
from rankwise.core.config import ConfigError, named_model, read_yaml
from rankwise.study.plan import Plan

METHODS = "config/methods.yaml"
MODELS = "config/models.yaml"
DATASETS = "config/datasets.yaml"
DEMO = "config/demo.yaml"


def overridden(method: str, override: str) -> tuple[str, str]:
    """An edit of the demo's `train` (old text, new text).

    It adds a method and overrides a part of the method's entry.
    """
    methods = "methods: [{}full, head_only, lora, rsvd]\n"
    rest = "    ranks: [2, 8]\n    seeds: [0, 1, 2]\n    override:\n"
    old = methods.format("") + rest
    new = methods.format(f"{method}, ") + rest + f"      {method}: {{{override}}}\n"
    return old, new


# Mistake -> (file, right text, wrong text, parts of the message).
WRONG = {
    "unknown key": (DEMO, "disk_gib: 1", "disc_gib: 1", ["config/demo.yaml: top level: got 'disc_gib'", "nearest: 'disk_gib'"]),
    "unknown key inside": (METHODS, "learning_rate: 2.0e-5", "learnin_rate: 2.0e-5", ["config/methods.yaml: full", "learning_rate"]),
    "wrong type": (DEMO, "cpu_threads: 1", "cpu_threads: one", ["config/demo.yaml: cpu_threads: got 'one', allowed: an integer"]),
    "half a row": (DATASETS, "selection_rows: 400", "selection_rows: 400.5", ["config/datasets.yaml: ", ".selection_rows: got 400.5, allowed: an integer"]),
    "no column of texts": (DATASETS, "text: sentence", "text: []", ["config/datasets.yaml: sst2.text: got []"]),
    "a number that YAML reads as text": (METHODS, "2.0e-5", "2e-5", ["full.learning_rate: got '2e-5'", "write 2.0e-4"]),
    "missing key": (DEMO, "device: cpu\n", "", ["config/demo.yaml: device: got 'nothing'"]),
    "not one of the allowed": (DEMO, "device: cpu", "device: gpu", ["device: got 'gpu', allowed: cpu, cuda", "nearest: 'cpu'"]),
    "unknown method": (DEMO, "[full, head_only, lora, rsvd]", "[full, lorra]", ["train.0.methods: got 'lorra'", "nearest: 'lora'"]),
    "unknown model": (DEMO, "models: [tiny]", "models: [tinny]", ["train.0.models: got 'tinny'", "nearest: 'tiny'"]),
    "unknown dataset": (DEMO, "datasets: [generated_reviews]", "datasets: [generated]", ["train.0.datasets: got 'generated'"]),
    "rank 0": (DEMO, "ranks: [2, 8]\n    seeds", "ranks: [0]\n    seeds", ["config/demo.yaml: train.0.ranks: got 0", "from 1 to 64"]),
    "rank above the matrix": (DEMO, "ranks: [2, 8]\n    seeds", "ranks: [65]\n    seeds", ["train.0.ranks: got 65", "from 1 to 64"]),
    "method without its options": (METHODS, "  options: {targets: [query, value], alpha: rank, dropout: 0.1}\n", "",
                                   ["config/methods.yaml: lora.options.targets: got 'nothing', allowed: a list of names"]),
    "option of another method": (METHODS, "dropout: 0.1}\n  learning_rate: 2.0e-4\n  label: LoRA\n",
                                 "dropout: 0.1, interval_steps: 5}\n  learning_rate: 2.0e-4\n  label: LoRA\n",
                                 ["lora.options: got 'interval_steps', allowed: alpha, dora, dropout"]),
    "rank above the matrix, pinned": (DEMO, *overridden("apollo_mini", "optimizer: {rank: 900}"), ["apollo_mini.optimizer.rank: got 900", "from 1 to 64"]),
    "odd granularity": (DEMO, *overridden("vlorp", "optimizer: {granularity: 5}"),
                        ["vlorp.optimizer.granularity: got 5", "divides both sides of query, 64 x 64"]),
    "no projection to be exempt from": (METHODS, "full: {module: full, ", "full: {module: full, dense: [head], ",
                                        ["full.dense: got ['head']", "adamw projects no"]),
    "bits under a method that trains them": (METHODS, "full: {module: full, ", "full: {module: full, weights: nf4, ",
                                             ["full.weights: got 'nf4', allowed: fp32 or bf16 under full"]),
    "unknown storage": (METHODS, "weights: int8", "weights: int4", ["lora_int8.weights: got 'int4'", "nearest: 'int8'"]),
    "accumulation inside backward": (DEMO, "methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                     "methods: [lomo]\n    schedule: {accumulation_steps: 2, max_gradient_norm: null}\n    ranks: [2, 8]\n    seeds",
                                     ["train.0.schedule.accumulation_steps: got 2, allowed: 1 with lomo"]),
    "clipping inside backward": (DEMO, "methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                 "methods: [lomo]\n    ranks: [2, 8]\n    seeds", ["schedule.max_gradient_norm: got 1.0, allowed: null with lomo"]),
    "clipping without gradients": (DEMO, "methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                   "methods: [mezo]\n    ranks: [2, 8]\n    seeds",
                                   ["schedule.max_gradient_norm: got 1.0, allowed: null with mezo, which computes no gradient"]),
    "more layers at a time than there are": (DEMO, *overridden("lisa", "optimizer: {active_layers: 3}"),
                                             ["lisa.optimizer.active_layers: got 3, allowed: 1 to 2, the layers of the model"]),
    "more virtual tokens than positions": (DEMO, "methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                           "methods: [prompt_tuning]\n    ranks: [33]\n    seeds",
                                           ["train.0.ranks: got 33, allowed: 1 to 32 virtual tokens"]),
    "misspelt option": (METHODS, "oversample: 4", "oversampel: 4", ["rsvd.optimizer: got 'oversampel'", "nearest: 'oversample'"]),
    "option of the wrong type": (METHODS, "dropout: 0.1", "dropout: some", ["lora.options.dropout: got 'some', allowed: a number"]),
    "option outside its choice": (METHODS, "side: left", "side: top", ["rsvd.optimizer.side: got 'top', allowed: short, long, left, right, both"]),
    "target that no module has": (METHODS, "targets: [query, value]", "targets: [query, valeu]",
                                  ["lora.options.targets: got 'valeu'", "nearest: 'value'"]),
    "unknown module": (METHODS, "{module: head_only", "{module: head_onyl", ["head_only.module: got 'head_onyl'", "'head_only'"]),
    "short revision": (DATASETS, "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb", "main", ["sst2.hub.revision: got 'main'", "40 hexadecimal"]),
    "unknown task": (DATASETS, "task: classification\n  hub", "task: clasification\n  hub", ["nearest: 'classification'"]),
    "key twice": (METHODS, "label: Frozen", "label: Frozen, label: Ice", ["config/methods.yaml: line 9", "'label' stands twice"]),
    "not YAML": (MODELS, "family: distilbert", "family: [distilbert", ["config/models.yaml: line "]),
    "a cell in two grids": (DEMO, "profile:\n", "  - {models: [tiny], datasets: [generated_reviews], methods: [full], seeds: [0]}\nprofile:\n",
                            ["train.1: got 'tiny/generated_reviews/full/r0/seed0'", "one grid only; train.0 has it"]),
    "override of no method": (DEMO, "      lora: {", "      lorra: {", ["override: got 'lorra'", "nearest: 'lora'"]),
    "an override that nothing uses": (DEMO, "      lora: {", "      dora: {", ["config/demo.yaml: train.0.override: got 'dora'", "methods of this grid (full, head_only, lora, rsvd)", "changes nothing"]),
    "an override of the study that no grid uses": (DEMO, "train:\n", "override: {dora: {learning_rate: 1.0e-3}}\ntrain:\n", ["config/demo.yaml: override: got 'dora', allowed: methods of a grid of the study"]),
    "a misspelt option in an override": (DEMO, "rsvd: {learning_rate: 2.0e-3, optimizer: {interval_steps: 100}}", "rsvd: {optimizer: {intervall_steps: 100}}",
                                         ["config/demo.yaml: train.0.override.rsvd.optimizer: got 'intervall_steps'", "nearest: 'interval_steps'"]),
    "an option of the wrong type in an override": (DEMO, "lora: {learning_rate: 5.0e-3}", "lora: {options: {alpha: much}}", ["config/demo.yaml: train.0.override.lora.options.alpha: got 'much'"]),
    "an option in an entry that is overridden elsewhere": (METHODS, "oversample: 4", "oversampel: 4", ["config/methods.yaml: rsvd.optimizer: got 'oversampel'"]),
    "an unknown optimizer in an override": (DEMO, "full: {learning_rate: 1.0e-3}", "full: {optimizer: {module: adam_w}}", ["config/demo.yaml: train.0.override.full.optimizer.module: got 'adam_w'", "nearest: 'adamw'"]),
    "another optimizer under options of the former": (DEMO, "rsvd: {learning_rate: 2.0e-3, optimizer: {interval_steps: 100}}", "rsvd: {optimizer: {module: adamw}}",
                                                      ["config/demo.yaml: train.0.override.rsvd.optimizer.module: got 'adamw'", "which config/methods.yaml: rsvd.optimizer.", " sets"]),
    "weights in an override": (DEMO, "full: {learning_rate: 1.0e-3}", "full: {weights: nf4}", ["config/demo.yaml: train.0.override.full.weights: got 'nf4', allowed: fp32 or bf16"]),
    "one rank for all ranks": (DEMO, "lora: {learning_rate: 5.0e-3}", "lora: {options: {rank: 4}}", ["config/demo.yaml: train.0.override.lora.options.rank: got 4", "the grid's ranks"]),
    "a seed twice": (DEMO, "seeds: [0, 1, 2]", "seeds: [0, 1, 0, 1, 2]", ["config/demo.yaml: train.0.seeds: got '0 twice, 1 twice', allowed: each value once"]),
    "a method twice": (DEMO, "methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds", "methods: [full, lora, lora, lora]\n    ranks: [2, 8]\n    seeds", ["train.0.methods: got 'lora 3 times'"]),
    "no number": (METHODS, "learning_rate: 2.0e-5", "learning_rate: .nan", ["full.learning_rate: got nan, allowed: a number that is finite"]),
    "a name that YAML reads as nothing": (METHODS, "full: {module: full, ", "null: {module: full, ", ["config/methods.yaml: top level: got None, allowed: a text (in quotes"]),
    "a name with a slash": (METHODS, "full: {module: full, ", "full/2: {module: full, ", ["config/methods.yaml: top level: got 'full/2', allowed: a name of letters"]),
    "training a model of shapes": (DEMO, "models: [tiny]\n    datasets: [generated_reviews]\n    methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                   "models: [llama_3_2_1b]\n    datasets: [sst2]\n    methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                                   ["train.0.models: got 'llama_3_2_1b'", "weights"]),
    "head for no such task": (DEMO, "datasets: [generated_reviews]\n    methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                              "datasets: [wikitext2]\n    methods: [full, head_only, lora, rsvd]\n    ranks: [2, 8]\n    seeds",
                              ["train.0: got 'language_modelling'", "tiny"]),
    "longer than the model's positions": (DATASETS, "max_length_tokens: 32\n  max_unknown_fraction: 0.2", "max_length_tokens: 65\n  max_unknown_fraction: 0.2",
                                          ["generated_reviews.max_length_tokens: got 65", "64"]),
    "claim on no method": ("config/claims.yaml", "dataset: sst2, method: rsvd}", "dataset: sst2, method: rsdv}",
                           ["config/claims.yaml: a_optimizer_memory_rsvd_r4.cell.method: got 'rsdv'", "nearest: 'rsvd'"]),
    "two sources": (DATASETS, "  generated: {kind: reviews", "  files: {folder: x, format: tsv}\n  generated: {kind: reviews",
                    ["config/datasets.yaml: generated_reviews: got 'files, generated'", "exactly one of hub, files, generated"]),
    "labels without classes": (DATASETS, "  classes: [negative, positive]\n  max_length_tokens: 32", "  max_length_tokens: 32",
                               ["generated_reviews.classes: got 'nothing'"]),
    "a split that is not there": (DATASETS, "report_split: validation\n  text: sentence", "report_split: test\n  text: sentence",
                                  ["sst2.report_split: got 'test', allowed: validation"]),
    "a report on what is trained on": (DATASETS, "report_split: validation\n  text: sentence", "report_split: train\n  text: sentence",
                                       ["sst2.report_split: got 'train', allowed: validation: runs train on train and select on selection"]),
    "a report on what is selected on": (DATASETS, "rows: {train: 2400, validation: 600}}\n  report_split: validation",
                                        "rows: {train: 2400, selection: 600}}\n  report_split: selection",
                                        ["generated_reviews.report_split: got 'selection', allowed: another split: runs train on train and select on"]),
    "a split that is called selection": (DATASETS, "rows: {train: 2400, validation: 600}", "rows: {train: 2400, validation: 600, selection: 9}",
                                         ["generated_reviews.generated.rows: got 'selection', allowed: other names: selection is the slice"]),
    "a text with the label": (DATASETS, "text: text\n  label: label\n  classes: [negative, positive]\n  max_length_tokens: 32",
                              "text: [text, label]\n  label: label\n  classes: [negative, positive]\n  max_length_tokens: 32",
                              ["generated_reviews.text: got 'label', allowed: columns without the label"]),
    "no train": (DATASETS, "rows: {train: 2400, validation: 600}", "rows: {training: 2400, validation: 600}",
                 ["generated_reviews.generated.rows: got 'no train', allowed: train and a reported split"]),
    "a split in another folder": (DATASETS, "rows: {train: 2400, validation: 600}}\n  report_split: validation",
                                  "rows: {train: 2400, ../validation: 600}}\n  report_split: ../validation",
                                  ["generated_reviews.generated.rows: got '../validation', allowed: a name of letters, digits"]),
    "a reading of labels": (DATASETS, "label: label\n  classes: [negative, positive]\n  max_length_tokens: 32",
                            "label: label\n  labels: name\n  classes: [negative, positive]\n  max_length_tokens: 32",
                            ["generated_reviews.labels: got 'name', allowed: names, numbers", "nearest: 'names'"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_explained_in_one_line(mistake: str, clone: Path) -> None:
    file, right, wrong, expected_parts = WRONG[mistake]
    edit(clone / file, right, wrong)
    with pytest.raises(ConfigError) as caught:
        Plan(read_yaml(clone / DEMO, DEMO), clone, DEMO)
    message = str(caught.value)
    assert all(part in message for part in expected_parts), message
    assert "\n" not in message


@pytest.mark.parametrize("mistake", ["unknown method"])
def test_the_workflow_prints_the_message_and_changes_nothing(mistake: str, clone: Path) -> None:
    file, right, wrong, expected_parts = WRONG[mistake]
    report = clone / "results/demo/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("the last good one")
    edit(clone / file, right, wrong)
    done = run_snakemake(clone, "--configfile", DEMO, "--cores", "1")
    assert done.returncode != 0
    assert all(part in done.stderr for part in expected_parts), done.stderr
    assert "Traceback" not in done.stderr
    assert report.read_text() == "the last good one"


def test_the_message_about_a_misspelt_target_names_the_nearest(clone: Path) -> None:
    done = run_snakemake(clone, "--configfile", DEMO, "-n", "results/demo/figures/memroy.png")
    assert done.returncode != 0
    assert "target: got 'results/demo/figures/memroy.png'" in done.stderr
    assert "nearest: results/demo/figures/memory.png" in done.stderr


def test_of_a_long_list_the_names_most_like_it_are_shown() -> None:
    like = [f"lora_{letter}" for letter in "abcdefgh"]
    others = [f"name_{number:02}" for number in range(23)]
    message = str(ConfigError("config/mine.yaml", "methods", "lora_", reversed(like + others)))
    said = message.partition(" (nearest:")[0]
    expected = f"config/mine.yaml: methods: got 'lora_', allowed: {', '.join(like)} and 23 more"
    assert said == expected


def test_a_list_of_thirty_names_is_shown_whole() -> None:
    names = [f"name_{number:02}" for number in range(30)]
    message = str(ConfigError("config/mine.yaml", "methods", "z", names))
    assert message == f"config/mine.yaml: methods: got 'z', allowed: {', '.join(names)}"


def test_every_study_in_config_is_valid() -> None:
    for file in sorted((ROOT / "config").glob("*.yaml")):
        study = yaml.safe_load(file.read_text())
        if "question" in study:
            plan = Plan(study, ROOT, f"config/{file.name}")
            for measurement in ("train", "memory", "flops", "forward"):
                for cell in plan.cells(measurement):
                    assert plan.request(measurement, cell)["measurement"] == measurement


def test_a_study_without_a_grid_is_refused(demo: dict) -> None:
    with pytest.raises(
        ConfigError, match=r"config/x\.yaml: train, profile: got 'nothing', allowed: a grid"
    ):
        Plan({**demo, "train": [], "profile": []}, ROOT, "config/x.yaml")


def test_a_study_of_included_profiles_alone_is_one() -> None:
    study = {"name": "x", "question": "?", "device": "cpu", "include": ["config/demo.yaml"]}
    assert Plan(study, ROOT).cells("memory")


def test_defaults_come_from_the_schema(demo: dict) -> None:
    plan = Plan(demo, ROOT)
    schedule = plan.request("train", plan.cells("train")[0])["schedule"]
    assert schedule["max_gradient_norm"] == 1.0
    assert schedule["epochs"] == demo["schedule"]["epochs"]


def test_a_grid_without_ranks_has_the_schemas_default(demo: dict) -> None:
    del demo["train"][0]["ranks"], demo["profile"][0]["ranks"]
    plan = Plan(demo, ROOT)
    for measurement in ("train", "memory"):
        cells = [cell for cell in plan.cells(measurement) if cell.model == "tiny"]
        assert {cell.rank for cell in cells if cell.method == "lora"} == {8}


def test_planning_does_not_change_the_study(demo: dict) -> None:
    before = copy.deepcopy(demo)
    plan = Plan(demo, ROOT)
    assert all(plan.request("train", cell) for cell in plan.cells("train"))
    assert demo == before


def test_a_model_is_named_as_it_is_or_with_dashes_in_place_of_underscores() -> None:
    models = ["bert_base", "my-bert"]
    assert named_model("my-bert", models) == "my-bert"
    assert named_model("bert-base", models) == "bert_base"
