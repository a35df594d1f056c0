"""The page of 3,060 generated runs in a real browser: size, filters, axes, comparison of runs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from helpers.packed import unpacked
from helpers.repository import CLEAN, ROOT

pytestmark = pytest.mark.slow
LARGEST = 15_000_000  # bytes
CURVES = 2 * 3 * (20 * 5 + 2)  # models, datasets, methods with five ranks, full and BitFit
LORA = ["lora", "lora_qkv", "rslora", "lora_plus", "dora", "pissa"]  # of the study's methods


class Study(NamedTuple):
    """The page, and the study's tables of runs, memory and estimates."""

    page: Path
    runs: pd.DataFrame
    memory: pd.DataFrame
    estimates: pd.DataFrame


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("many") / "study"
    command = [sys.executable, str(ROOT / "benchmarks/generated_study.py"), str(folder)]
    done = subprocess.run(command, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = Path(done.stdout.partition(": ")[0])
    frames = []
    for name in ("runs", "memory", "estimates"):
        path = page.parent / f"tables/{name}.csv"
        frames.append(pd.read_csv(path, dtype={"request_digest": str}))
    return Study(page, *frames)


@pytest.fixture
def view(study: Study, browser) -> Iterator:
    """The page; a complaint of the browser fails the test."""
    page, complaints = browser.new_page(viewport={"width": 1440, "height": 900}), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.goto(study.page.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()
    assert complaints == []


def wait_for_chart(view, key: str) -> None:
    """Scroll to a chart, and wait until its first drawing is there."""
    drawing = view.locator(f"#chart-{key} .drawing").first
    drawing.scroll_into_view_if_needed()
    view.wait_for_selector(f"#chart-{key} .drawing[data-drawn]")


def test_it_is_small_and_has_every_run(study: Study) -> None:
    assert study.page.stat().st_size <= LARGEST
    assert len(study.runs) == 5 * CURVES == 3060
    runs = unpacked(study.page.read_text(), "details-data")["runs"]
    measured = [run["measurement"] for run in runs.values()]
    assert measured.count("train") == len(study.runs)
    assert measured.count("memory") == CURVES
    assert set(study.runs["request_digest"]) <= set(runs)


def test_filters_act_on_charts_and_tables_and_are_kept_in_the_address(view, study: Study) -> None:
    remaining = view.locator("#filters output")
    assert remaining.inner_text() == "all 3,060 runs"
    view.locator("#filters [data-facet=family][data-value=LoRA]").press("Enter")
    view.locator("#filters [data-facet=rank][data-value='8']").press("Space")
    wanted = study.runs[study.runs["method"].isin(LORA) & (study.runs["rank"] == 8)]
    assert remaining.inner_text() == f"{len(wanted)} of 3,060 runs"
    assert view.evaluate("location.hash") == "#?family=LoRA&rank=8"
    view.locator("#sheet-runs").scroll_into_view_if_needed()
    view.wait_for_selector("#sheet-runs[data-ready]")
    assert f"of {len(wanted)} of 3,060 rows" in view.locator("#runs .dt-foot").inner_text()
    links = view.locator("#sheet-runs tbody a").evaluate_all("all => all.map(one => one.hash)")
    assert links == [f"#run/{digest}" for digest in wanted["request_digest"][:25]]
    numbers = view.locator("#sheet-runs tbody tr").first.locator("td.number:visible")
    accuracy = f"{100 * wanted['accuracy_fraction'].iloc[0]:.2f}"
    assert accuracy in numbers.all_inner_texts()
    wait_for_chart(view, "by-rank")
    legend = view.locator("#chart-by-rank .legend button:visible")
    assert legend.evaluate_all("all => all.map(one => one.dataset.focus)") == LORA
    means = view.locator("#chart-by-rank .drawing").first.locator("path[aria-label*='rank: 8']")
    assert means.count() > 0
    assert view.locator("#chart-by-rank path[aria-label*='rank: 16']").count() == 0
    view.reload()
    view.wait_for_selector("html[data-ready]")
    assert remaining.inner_text() == f"{len(wanted)} of 3,060 runs"
    view.locator("nav a[href='#charts']").click()
    view.wait_for_function("location.hash === '#charts?family=LoRA&rank=8'")
    view.locator(".remaining .clear").click()
    assert remaining.inner_text() == "all 3,060 runs"
    assert view.evaluate("location.hash") == "#charts"


def test_a_filter_of_a_model_hides_the_other_panels(view) -> None:
    view.locator("#filters [data-facet=model][data-value=generated_b]").click()
    titles = view.locator("#chart-front figcaption:visible").all_inner_texts()
    assert titles == [f"generated_b on generated_{name}" for name in "xyz"]


def test_the_axes_of_the_front_are_chosen(view, study: Study) -> None:
    wait_for_chart(view, "front")
    cost = view.locator("#chart-front select[data-axis=x]")
    assert cost.locator("option").all_inner_texts() == [
        "memory kept between steps",
        "trainable parameters",
        "optimizer state",
        "peak memory, predicted",
        "compute of a step",
        "time of an update",
        "time of a step in the runs",
    ]
    cost.select_option("optimizer_state_bytes")
    view.locator("#chart-front input[data-log=x]").check()
    wait_for_chart(view, "front")
    drawing = view.locator("#chart-front .drawing").first
    drawing.get_by_text("optimizer state (MiB)").wait_for()
    lines = drawing.locator(".mark-line path")
    steps = lines.first.get_attribute("d").count("L")  # two for each further point of the front
    assert steps == 2 * (front_length(study) - 1) > 0


def front_length(study: Study) -> int:
    """Curves of the first model and dataset that no curve beats in accuracy and optimizer state."""
    keys = ["model", "dataset", "method", "rank"]
    curves = study.estimates.merge(study.memory, on=keys)
    is_first = (curves["model"] == "generated_a") & (curves["dataset"] == "generated_x")
    curves = curves[is_first]
    amounts, values = curves["optimizer_state_bytes"], curves["estimate"]
    beaten = [
        ((amounts <= amount) & (values >= value) & ((amounts < amount) | (values > value))).any()
        for amount, value in zip(amounts, values, strict=True)
    ]
    return beaten.count(False)


def test_two_runs_are_compared(view, study: Study) -> None:
    ended = study.runs[study.runs["status"] == "ok"]
    first = ended[(ended["method"] == "lora") & (ended["rank"] == 8)].iloc[0]
    second = ended[(ended["method"] == "galore") & (ended["rank"] == 16)].iloc[0]
    form = view.locator("form.pair")
    form.locator("input[name=first]").fill(first["request_digest"])
    form.locator("input[name=second]").fill("no such run")
    form.locator("button").click()
    form.locator("output", has_text="No single run is named").wait_for()
    form.locator("input[name=second]").fill(second["request_digest"])
    form.locator("button").click()
    view.wait_for_selector("#compare:not([hidden]) .drawing[data-drawn]")
    text = view.locator("#compare").inner_text()
    difference = second["accuracy_fraction"] - first["accuracy_fraction"]
    row = re.search(r"accuracy fraction\t(\S+)\t(\S+)\t(\S+)", text)
    shown = [float(number.replace("\N{MINUS SIGN}", "-")) for number in row.groups()]
    wanted = [first["accuracy_fraction"], second["accuracy_fraction"], difference]
    assert shown == pytest.approx(wanted, rel=1e-3, abs=2e-5)
    settings = view.locator("#compare table", has_text="Settings that differ").inner_text()
    for line in ("cell.method\tlora\tgalore", "cell.rank\t8\t16", "method.module\tlora\tfull"):
        assert line in settings
    assert "schedule.batch_size" not in settings  # it is the same in both
    assert view.locator("#compare .mark-line path").count() == 2
