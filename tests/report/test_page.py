"""The report in a real browser, made by the real rule from real runs: it opens, sorts, filters, hovers and follows."""

import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import vl_convert
import yaml

from helpers.repository import CLEAN, copy_repository, edit, run_snakemake
from rankwise.report.html import losses, quality, trials
from rankwise.study import outputs
from rankwise.study.captions import CAPTIONS
from rankwise.study.plan import Plan

STUDY = "tests/studies/report.yaml"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1440)]
LARGEST = 6_000_000  # bytes of the page of a small study
# Every text that is seen: its colour's contrast to the paper behind it (WCAG 2, 1.4.3), the lowest first.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (let one = node; one; one = one.parentElement) {
    const found = rgba(getComputedStyle(one).backgroundColor); if (found[3] === 255) return found; } return [255, 255, 255, 255]; };
  const found = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest("script, style, noscript, title") || !node.checkVisibility()) continue;
    const style = getComputedStyle(node), paper = behind(node);
    const drawn = node instanceof SVGElement ? style.fill : style.color;
    if (drawn === "none") continue;
    let alpha = 1;
    for (let one = node; one; one = one.parentElement) alpha *= Number(getComputedStyle(one).opacity);
    const ink = rgba(drawn).map((v, i) => v * alpha + paper[i] * (1 - alpha));
    const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), key = `${drawn} on ${paper}`;
    if (!(found.get(key)?.ratio <= ratio)) found.set(key, { ratio, key, text: walk.currentNode.data.trim().slice(0, 40) });
  }
  return [...found.values()].sort((a, b) => a.ratio - b.ratio);
}"""


def browser_path() -> str:
    """A Chromium; its absence is an error in CI and a skip elsewhere."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"no browser: none of {', '.join(NAMES)}")
    return found or pytest.skip(f"no browser: none of {', '.join(NAMES)}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the study's page has been built by its rule; the tiny model is pre-trained for two updates."""
    root = copy_repository(tmp_path_factory.mktemp("report") / "clone")
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, "--configfile", STUDY, "--cores", "2", "results/report.html")
    assert done.returncode == 0, done.stderr[-5000:]
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    path = browser_path()
    with sync_playwright() as played:
        opened = played.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def view(request, browser, study: Path) -> Iterator:
    """The report in one colour scheme and width; whatever the browser complains about fails the test."""
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda one: said.append(f"failed: {one.url[:200]}"))
    page.on(
        "request",
        lambda one: (
            said.append(f"loaded: {one.url[:200]}")
            if not one.url.startswith(("file:", "data:"))
            else None
        ),
    )
    page.goto((study / "results/report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert said == []


def scroll_through(page) -> None:
    """Down the whole page, so that every chart is drawn."""
    for chart in page.query_selector_all(".drawing"):
        chart.scroll_into_view_if_needed()
        page.wait_for_function("one => one.dataset.drawn", arg=chart)


def column(page, table: str, name: str) -> list[str]:
    """The texts of a column in the order in which they stand."""
    place = page.eval_on_selector_all(
        f"{table} thead th", "(heads, name) => heads.findIndex(h => h.dataset.name === name)", name
    )
    return [
        one.strip()
        for one in page.locator(f"{table} tbody tr > :nth-child({place + 1})").all_text_contents()
    ]


# Snakemake's own -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_snakemakes_report_has_every_figure_with_its_caption(study: Path, browser) -> None:
    done = run_snakemake(
        study, "--configfile", STUDY, "--report", "workflow.html", "results/report.html"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plan = Plan(yaml.safe_load((study / STUDY).read_text()), study, STUDY)
    wanted = [CAPTIONS[name] for name in outputs.page_figures(plan)]
    assert {"Quality", "Memory", "Training", "Claims"} <= {one.category for one in wanted}
    page = browser.new_page()
    page.goto((study / "workflow.html").as_uri())
    folders = {
        name: page.get_by_text(name, exact=True) for name in {one.category for one in wanted}
    }
    assert all(folder.is_visible() for folder in folders.values())
    text = " ".join((study / "workflow.html").read_text().replace("\\n", " ").split())
    assert [
        one.title
        for one in wanted
        if f"<strong>{html.escape(one.title, quote=False)}.</strong>" not in text
    ] == []
    page.close()


# In the browser ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_reads_well(view, study: Path) -> None:
    """No sideways scrolling, contrast of every text, headings in order, every figure described."""
    scroll_through(view)
    width = view.viewport_size["width"]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        view.evaluate(
            "(one => one.scrollWidth - one.clientWidth)(document.querySelector('.themes'))"
        )
        == 0
    )  # nothing is cut off
    assert (
        view.locator("h1").inner_text() == yaml.safe_load((study / STUDY).read_text())["question"]
    )
    lowest = view.evaluate(CONTRASTS)
    assert len(lowest) > 4
    assert lowest[0]["ratio"] >= 4.5, lowest[:3]
    levels = view.eval_on_selector_all(
        "h1, h2, h3, h4",
        "all => all.filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]))",
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    figures = view.locator("#report img")
    assert figures.count() >= 5
    assert all(len(text) > 20 for text in figures.evaluate_all("all => all.map(one => one.alt)"))
    drawings = view.locator(".drawing svg")
    assert drawings.count() >= 5
    assert all(
        drawings.evaluate_all(
            "all => all.map(one => one.getAttribute('aria-label') ?? one.parentElement.getAttribute('aria-label'))"
        )
    )


def sorts(head, order: str) -> None:
    """DataTables sorts after the key has been handled: wait for it, as a reader would."""
    from playwright.sync_api import expect

    expect(head).to_have_attribute("aria-sort", order, timeout=30_000)


@pytest.mark.slow
def test_a_table_sorts_by_keyboard_and_filters(view, study: Path) -> None:
    runs = pd.read_csv(study / "results/tables/runs.csv")
    head = view.locator("#sheet-runs th[data-name=eval_loss_nats]")
    head.locator("[role=button]").focus()
    view.keyboard.press("Enter")
    sorts(head, "ascending")
    losses = [float(text) for text in column(view, "#sheet-runs", "eval_loss_nats")]
    assert len(losses) == len(runs)
    assert losses == sorted(losses)
    view.keyboard.press("Enter")
    sorts(head, "descending")
    assert [float(text) for text in column(view, "#sheet-runs", "eval_loss_nats")] == losses[::-1]
    view.locator("#runs input[type=search]").fill("full")
    assert set(column(view, "#sheet-runs", "method")) == {"Full AdamW"}
    assert (
        view.locator("#runs .dt-foot").inner_text()
        == f"{(runs['method'] == 'full').sum()} of {len(runs)} rows"
    )
    more = view.locator("#runs button.columns")
    more.click()
    assert view.locator("#sheet-runs th[data-name=total_parameters]").is_visible()
    chip = view.locator("#claims .chips button").first
    chip.click()
    assert {text.lstrip("✓✗○ ") for text in column(view, "#sheet-claims", "verdict")} == {
        chip.get_attribute("data-value")
    }


def hovered(view, chart: str) -> tuple[object, dict[str, str]]:
    """The last mark of a chart, and what hovering it says."""
    drawing = view.locator(f"#chart-{chart} .drawing")
    drawing.scroll_into_view_if_needed()
    view.wait_for_function("one => one.dataset.drawn", arg=drawing.element_handle())
    mark = drawing.locator(".mark-symbol path").last
    mark.hover(force=True)
    tip = view.locator("#vg-tooltip-element.visible")
    return mark, dict(
        zip(
            *(tip.locator(f"td.{kind}").all_text_contents() for kind in ("key", "value")),
            strict=True,
        )
    )


@pytest.mark.slow
def test_hovering_says_which_run_and_clicking_follows_it(view, study: Path) -> None:
    runs = pd.read_csv(study / "results/tables/runs.csv", dtype={"request_digest": str}).set_index(
        "request_digest"
    )
    mark, said = hovered(view, "loss")
    run = said["run"]
    assert run in runs.index
    assert int(said["seed"]) == runs.loc[run, "seed"]
    assert f"r{runs.loc[run, 'rank']}/seed{runs.loc[run, 'seed']}/train.json" in said["command"]
    mark.click(force=True)
    view.wait_for_selector("#run:not([hidden])")
    assert view.evaluate("location.hash") == f"#run/{run}"
    assert view.evaluate("document.activeElement.id") == "run"
    text = view.locator("#run").inner_text()
    assert f"--request @results/runs/tiny/generated_reviews/{runs.loc[run, 'method']}/" in text
    assert all(
        part in text
        for part in (
            run,
            "Loss by epoch",
            "Where it ran",
            "torch",
            "What it was asked",
            "method.module",
            "Chosen by its search",
        )
    )
    chosen = dict(
        line.split("\t")
        for line in text.splitlines()
        if line.startswith(("learning_rate\t", "trial\t"))
    )
    assert float(chosen["learning_rate"]) == runs.loc[run, "learning_rate"]
    assert chosen["trial"] == f"lr{runs.loc[run, 'learning_rate']:g}"
    view.wait_for_selector("#run .drawing[data-drawn]")
    assert view.evaluate("document.documentElement.scrollWidth") <= view.viewport_size["width"]
    lowest = view.evaluate(CONTRASTS)[0]
    assert lowest["ratio"] >= 4.5, lowest
    view.go_back()
    view.wait_for_selector("#report:not([hidden])")
    assert view.locator("#run").is_hidden()


@pytest.mark.slow
def test_a_search_is_a_chart_that_rings_what_was_chosen_and_leads_to_trials(
    view, study: Path
) -> None:
    search = pd.read_csv(
        study / "results/tables/search.csv", dtype={"request_digest": str}
    ).set_index("request_digest")
    mark, said = hovered(view, "search")
    trial = search.loc[said["run"]]
    assert (said["trial"], float(said["learning rate"])) == (trial["trial"], trial["learning_rate"])
    drawn = view.locator("#chart-search .drawing .mark-symbol")
    assert [drawn.nth(i).locator("path").count() for i in range(2)] == [
        search["selected"].sum(),
        len(search),
    ]
    mark.click(force=True)
    view.wait_for_selector("#run:not([hidden])")
    text = view.locator("#run").inner_text()
    assert f"trial of a search · tiny on generated_reviews · {said['run']}" in text
    assert f"--request @results/search/tiny/generated_reviews/{trial['method']}/" in text
    view.locator("#run .others a", has_text="seed 1").first.click()
    view.wait_for_function(
        "document.querySelector('#run .facts').textContent.startsWith('training run')"
    )
    assert f"{len(search)} trials" in view.evaluate(
        "document.querySelector('#report .facts').textContent"
    )


@pytest.mark.slow
def test_a_run_is_a_link_and_shows_its_ledger(view, study: Path) -> None:
    run = view.locator("#sheet-ledger tbody a").first.get_attribute("href").removeprefix("#run/")
    view.goto(f"{view.url.partition('#')[0]}#run/{run}")
    view.wait_for_selector("#run:not([hidden])")
    found = json.loads(
        (study / "results/profiles/tiny/generated_reviews/lora/r2/ledger.json").read_text()
    )["metrics"]
    assert f"{found['peak_bytes']:,} in all" in view.locator("#run").inner_text()
    sizes = [
        int(text.replace(",", ""))
        for text in view.locator("#run .bars td.number").all_inner_texts()
    ]
    assert sum(sizes) == found["peak_bytes"]
    view.locator("#run .back a").click()
    view.wait_for_selector("#report:not([hidden])")
    assert view.locator("#runs").is_visible()


@pytest.mark.slow
def test_the_command_of_a_run_makes_it_again(study: Path) -> None:
    text = (study / "results/report.html").read_text()
    runs = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )["runs"]
    run = next(one for one in runs.values() if one["measurement"] == "train")
    environment = {**CLEAN, "PYTHONPATH": str(study / "src")}
    command = [sys.executable, *run["command"].split()[1:]]
    done = subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again, first = (json.loads((study / path).read_text()) for path in (command[-1], run["path"]))
    assert again["metrics"] == first["metrics"] == run["metrics"]


@pytest.mark.slow
def test_colours_are_chosen_and_kept(view) -> None:
    """The toggle wins over the system, redraws the charts, and is there after a reload; a legend singles out; data are a table."""
    scroll_through(view)
    paper = "getComputedStyle(document.body).backgroundColor"
    first = view.evaluate(paper)
    other = (
        "light" if view.locator(".drawing").first.get_attribute("data-drawn") == "dark" else "dark"
    )
    view.locator(f".themes [data-theme={other}]").click()
    assert view.evaluate(paper) != first
    view.wait_for_function(
        f"[...document.querySelectorAll('#report .drawing')].every(one => one.dataset.drawn === '{other}')"
    )
    view.reload()
    view.wait_for_selector("html[data-ready]")
    assert view.locator(f".themes [data-theme={other}]").get_attribute("aria-pressed") == "true"
    scroll_through(view)
    lowest = view.evaluate(CONTRASTS)[0]
    assert lowest["ratio"] >= 4.5, lowest
    button = view.locator("#chart-loss .legend button").first
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    faint = "#chart-loss .mark-symbol path[opacity='0.07']"
    assert view.locator(faint).count() > 0
    view.locator("#chart-loss details.data summary").press("Enter")
    rows = view.locator("#chart-loss details.data tbody tr")
    rows.first.wait_for()
    assert rows.count() == view.locator("#chart-loss .mark-symbol path").count()
    assert rows.first.locator("a[href^='#run/']").count() == 1


@pytest.mark.slow
def test_one_file_that_reads_without_scripts(study: Path, browser) -> None:
    """Nothing is loaded from anywhere, scripts run by their digests only, and without them the tables are there."""
    text = (study / "results/report.html").read_text()
    assert len(text.encode()) < LARGEST
    markup = re.sub(r"(<(script|style)[^>]*>).*?</\2>", r"\1", text, flags=re.DOTALL)
    assert not re.search(
        r"""<(?:script|img|iframe|link|source|video|audio)[^>]*\s(?:src|href)=["']?(?!["']?data:)""",
        markup,
    )
    assert "default-src 'none'" in html.unescape(markup)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((study / "results/report.html").as_uri())
    rows = page.locator("#sheet-runs tbody tr").count()
    assert rows == len(pd.read_csv(study / "results/tables/runs.csv"))
    assert page.locator("#sheet-runs caption").is_visible()
    assert page.locator("#chart-loss").is_hidden()
    context.close()


@pytest.mark.slow
def test_the_charts_are_sound_vega_lite(study: Path) -> None:
    """Every specification compiles, and draws, with the rows that the page carries."""
    frames = {
        name: pd.read_csv(study / f"results/tables/{name}.csv", dtype={"request_digest": str})
        for name in ("runs", "history", "memory", "search")
    }
    made = [
        chart
        for part in (quality, losses, trials)
        for chart in part.charts(frames, {"full": "Full AdamW", "lora": "LoRA"})
    ]
    assert [chart.key for chart in made] == ["against-memory", "by-rank", "loss", "search"]
    for chart in made:
        for panel in chart.panels:
            drawn = vl_convert.vegalite_to_svg({**panel.spec, "width": 400})
            assert drawn.count("mark-symbol") >= 1, chart.key
