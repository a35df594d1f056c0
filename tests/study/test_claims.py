"""The registry of published numbers: its names stay, and the studies that it names have the cells that decide."""

import json
import math

import pytest

from helpers.claims import REGISTRY, cells_of, decisive, plan_of
from rankwise.study import claims, jobs, outputs
from rankwise.study.plan import Cell, Plan

STUDIES = ("config/shapes.yaml", "config/published.yaml", "config/published_memory.yaml")
RANKS = (4, 8, 16, 64, 128)


def test_enough_are_registered_and_old_names_stay() -> None:
    assert len(REGISTRY) >= 60
    systems = {claim["system"] for claim in REGISTRY.values()}
    assert systems >= {"A", "B", "C", "D", "E", "GaLore", "HiRA", "QLoRA"}
    names = {"a_optimizer_memory_adamw"}
    for rank in RANKS:
        names.add(f"a_optimizer_memory_rsvd_r{rank}")
        for kind in ("lora_qkv", "weight_reduction"):
            names.add(f"a_peak_allocated_{kind}_r{rank}")
    assert names <= set(REGISTRY)
    flops = [name for name in REGISTRY if name.startswith("a_step_flops")]
    assert sum("mislabelled" not in name for name in flops) == 30


@pytest.mark.parametrize("file", STUDIES)
def test_the_study_of_the_command_has_the_cells_that_decide(file: str) -> None:
    plan = plan_of(file)
    missing = []
    for name, claim in decisive().items():
        if claim["command"].endswith(file):
            measurement = outputs.TABLE_SOURCES[claim["table"]]
            planned = {cell._replace(seed=None) for cell in plan.cells(measurement)}
            missing += [name for cell in cells_of(claim) if Cell.of_columns(cell) not in planned]
    assert not missing


def test_shapes_need_nothing_else_and_the_paper_study_has_them_too() -> None:
    shapes, paper = plan_of("config/shapes.yaml"), plan_of("config/config.yaml")
    assert not shapes.cells("train")
    assert not shapes.inputs()
    for measurement in ("memory", "flops", "ledger"):
        for cell in shapes.cells(measurement):
            assert not shapes.needs_gpu(measurement, cell)
            assert paper.request(measurement, cell) == shapes.request(measurement, cell)
    for name, claim in decisive().items():
        if claim["command"].endswith("config/shapes.yaml"):
            assert not claim["needs"], name


def test_settings_of_runs_are_those_of_the_study_that_runs_them() -> None:
    plan = plan_of("config/published.yaml")
    planned = {cell._replace(seed=None): cell for cell in plan.cells("train")}
    for name, claim in decisive().items():
        if claim["table"] != "runs":
            continue
        cell = planned[Cell(**claim["cell"])]
        request = plan.request("train", cell)
        schedule, settings = request["schedule"], claim["settings"]
        batch = schedule["batch_size"] * schedule["accumulation_steps"]
        assert batch == settings["effective_batch_size"], name
        assert request["method"]["learning_rate"] == settings["learning_rate"], name
        train_rows = 25000 if "imdb" in cell.dataset else 67349  # as published: IMDb, SST-2
        rows = train_rows - plan.library["datasets"][cell.dataset]["selection_rows"]
        updates = math.ceil(rows / batch) * schedule["epochs"]
        assert abs(updates - settings["updates"]) <= 0.05 * settings["updates"], name


def test_the_verdicts_are_a_table_and_a_figure_of_every_study(plan: Plan) -> None:
    targets = jobs.targets(plan)
    endings = ("csv", "md", "tex", "parquet", "png", "svg")
    assert {f"{plan.results}/claims.{ending}" for ending in endings} <= set(targets)
    assert not any(target.startswith("results/tables/claims") for target in targets)


def test_the_families_in_a_request_give_the_same_claims_in_the_same_order() -> None:
    request = outputs.claims_request(plan_of("config/published.yaml"))
    families = dict(json.loads(json.dumps(request, sort_keys=True))["families"])
    assert list(claims.expand(families)) == list(REGISTRY)
