"""The page in a real browser, built by its rule from real runs."""

import html
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import vl_convert
import yaml

from helpers.packed import unpacked
from helpers.repository import CLEAN, copy_repository, edit, run_snakemake
from helpers.stored import made
from rankwise.report.html import losses, quality, trials
from rankwise.study import outputs
from rankwise.study.captions import CAPTIONS
from rankwise.study.plan import Plan

STUDY = "tests/studies/report.yaml"
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1440)]
# Each scheme and each width once: what a control does depends on no pair of them.
TWO_VIEWS = [("light", 1440), ("dark", 390)]
LARGEST = 6_000_000  # bytes of the page of a small study
# For each colour of a text on a background: the lowest contrast (WCAG 2.2, 1.4.3), lowest first.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let node = element; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const lowest = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.data.trim();
    const isCode = element.closest("script, style, noscript, title");
    if (!text || isCode || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    if (colour === "none") continue;
    let opacity = 1;
    for (let node = element; node; node = node.parentElement) {
      opacity *= Number(getComputedStyle(node).opacity);
    }
    const paper = background(element).slice(0, 3);
    const ink = paper.map((part, i) => rgba(colour)[i] * opacity + part * (1 - opacity));
    const [dark, light] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    const key = `${colour} on ${paper}`;
    const isLower = !(lowest.get(key)?.ratio <= ratio);
    if (isLower) lowest.set(key, { ratio, key, text: text.slice(0, 40) });
  }
  return [...lowest.values()].sort((a, b) => a.ratio - b.ratio);
}"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the study's page, built by its rule; the tiny model had two updates."""
    root = copy_repository(tmp_path_factory.mktemp("report") / "clone")
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, "--configfile", STUDY, "--cores", "2", "results/report/report.html")
    assert done.returncode == 0, done.stderr[-5000:]
    return root


def view_name(view: tuple[str, int]) -> str:
    return f"{view[0]}-{view[1]}"


@pytest.fixture(params=TWO_VIEWS, ids=view_name)
def view(request, browser, study: Path) -> Iterator:
    """The page in one colour scheme and width; a complaint of the browser fails the test."""
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, complaints = context.new_page(), []

    def on_request(sent) -> None:
        if not sent.url.startswith(("file:", "data:")):
            complaints.append(f"loaded: {sent.url[:200]}")

    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda sent: complaints.append(f"failed: {sent.url[:200]}"))
    page.on("request", on_request)
    page.goto((study / "results/report/report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert complaints == []


def draw_all(page) -> None:
    """Scroll down the whole page, so that every chart is drawn."""
    for drawing in page.query_selector_all(".drawing"):
        drawing.scroll_into_view_if_needed()
        page.wait_for_function("element => element.dataset.drawn", arg=drawing)


def column(page, table: str, name: str) -> list[str]:
    """The texts of a column, from the top down."""
    find = "(heads, name) => heads.findIndex(head => head.dataset.name === name)"
    place = page.eval_on_selector_all(f"{table} thead th", find, name)
    cells = page.locator(f"{table} tbody tr > :nth-child({place + 1})")
    return [text.strip() for text in cells.all_text_contents()]


def wait_for_table(page, name: str) -> None:
    """Scroll to a table: its rows are unpacked when it comes near the window."""
    page.locator(f"#sheet-{name}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#sheet-{name}[data-ready]")


def lowest_contrast(page) -> dict:
    return page.evaluate(CONTRASTS)[0]


# Snakemake's own report ------------------------------------------------------------------------


@pytest.mark.slow
def test_snakemakes_report_has_every_figure_with_its_caption(study: Path, browser) -> None:
    arguments = ("--configfile", STUDY, "--report", "workflow.html", "results/report/report.html")
    done = run_snakemake(study, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    plan = Plan(yaml.safe_load((study / STUDY).read_text()), study, STUDY)
    wanted = [CAPTIONS[name] for name in outputs.page_figures(plan)]
    categories = {caption.category for caption in wanted}
    assert {"Quality", "Memory", "Training", "Claims"} <= categories
    page = browser.new_page()
    page.goto((study / "workflow.html").as_uri())
    for category in categories:
        assert page.get_by_text(category, exact=True).is_visible(), category
    text = " ".join((study / "workflow.html").read_text().replace("\\n", " ").split())
    for caption in wanted:
        assert f"<strong>{html.escape(caption.title, quote=False)}.</strong>" in text
    page.close()


# In the browser --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS, indirect=True, ids=view_name)
def test_it_reads_well(view, study: Path) -> None:
    """No sideways scrolling, contrast of every text, headings in order, every figure described."""
    draw_all(view)
    width = view.viewport_size["width"]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    cut_off = "(element => element.scrollWidth - element.clientWidth)"
    assert view.evaluate(f"{cut_off}(document.querySelector('.themes'))") == 0
    question = yaml.safe_load((study / STUDY).read_text())["question"]
    assert view.locator("h1").inner_text() == question
    contrasts = view.evaluate(CONTRASTS)
    assert len(contrasts) > 4
    assert contrasts[0]["ratio"] >= 4.5, contrasts[:3]
    visible_levels = "all => all.filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]))"
    levels = view.eval_on_selector_all("h1, h2, h3, h4", visible_levels)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    figures = view.locator("#report img")
    assert figures.count() >= 5
    assert all(len(text) > 20 for text in figures.evaluate_all("all => all.map(one => one.alt)"))
    drawings = view.locator(".drawing svg")
    assert drawings.count() >= 5
    label = "one.getAttribute('aria-label') ?? one.parentElement.getAttribute('aria-label')"
    assert all(drawings.evaluate_all(f"all => all.map(one => {label})"))


def wait_for_order(head, order: str) -> None:
    """DataTables sorts after the key has been handled: wait for it, as a reader would."""
    from playwright.sync_api import expect

    expect(head).to_have_attribute("aria-sort", order, timeout=30_000)


@pytest.mark.slow
def test_a_table_sorts_by_keyboard_and_filters(view, study: Path) -> None:
    runs = pd.read_csv(study / "results/report/tables/runs.csv")
    wait_for_table(view, "runs")
    head = view.locator("#sheet-runs th[data-name=eval_loss_nats]")
    head.locator("[role=button]").focus()
    view.keyboard.press("Enter")
    wait_for_order(head, "ascending")
    losses = [float(text) for text in column(view, "#sheet-runs", "eval_loss_nats")]
    assert len(losses) == len(runs)
    assert losses == sorted(losses)
    view.keyboard.press("Enter")
    wait_for_order(head, "descending")
    assert [float(text) for text in column(view, "#sheet-runs", "eval_loss_nats")] == losses[::-1]
    assert set(runs["schedule_loss"]) == {"full"}  # in a hidden column, which is not searched
    view.locator("#runs input[type=search]").fill("full")
    count = (runs["method"] == "full").sum()
    assert 0 < count < len(runs)
    view.locator("#runs .dt-foot", has_text=f"{count} of {len(runs)} rows").wait_for()
    assert set(column(view, "#sheet-runs", "method")) == {"Full AdamW"}
    view.locator("#runs button.columns").click()
    assert view.locator("#sheet-runs th[data-name=total_parameters]").is_visible()
    view.locator("#runs .dt-foot", has_text=f"{len(runs)} rows").wait_for()  # its column is shown
    wait_for_table(view, "claims")
    chip = view.locator("#claims .chips button").first
    chip.click()
    shown = {text.lstrip("✓✗○ ") for text in column(view, "#sheet-claims", "verdict")}
    assert shown == {chip.get_attribute("data-value")}


def hover_last(view, chart: str) -> tuple[object, dict[str, str]]:
    """Hover the last mark of a chart; returns the mark and the rows of its tooltip."""
    drawing = view.locator(f"#chart-{chart} .drawing")
    drawing.scroll_into_view_if_needed()
    drawn = "element => element.dataset.drawn"
    view.wait_for_function(drawn, arg=drawing.element_handle())
    view.wait_for_selector("html[data-detailed]")  # then tooltips show the commands of runs
    mark = drawing.locator(".mark-symbol path").last
    mark.hover(force=True)
    tip = view.locator("#vg-tooltip-element.visible")
    names = tip.locator("td.key").all_text_contents()
    values = tip.locator("td.value").all_text_contents()
    return mark, dict(zip(names, values, strict=True))


@pytest.mark.slow
def test_hovering_says_which_run_and_clicking_follows_it(view, study: Path) -> None:
    runs = pd.read_csv(study / "results/report/tables/runs.csv", dtype={"request_digest": str})
    runs = runs.set_index("request_digest")
    mark, tooltip = hover_last(view, "loss")
    digest = tooltip["run"]
    run = runs.loc[digest]
    assert int(tooltip["seed"]) == run["seed"]
    assert f"r{run['rank']}/seed{run['seed']}/{digest}/train.json" in tooltip["command"]
    mark.click(force=True)
    view.wait_for_selector("#run:not([hidden])")
    assert view.evaluate("location.hash") == f"#run/{digest}"
    assert view.evaluate("document.activeElement.id") == "run"
    text = view.locator("#run").inner_text()
    assert f"--request @results/report/runs/tiny/generated_reviews/{run['method']}/" in text
    for part in (digest, "Loss by epoch", "Where it ran", "torch", "Settings", "method.module"):
        assert part in text
    assert "Chosen by its search" in text
    rows = [line.split("\t") for line in text.splitlines()]
    chosen = {row[0]: row[1] for row in rows if row[0] in ("learning_rate", "trial")}
    assert float(chosen["learning_rate"]) == run["learning_rate"]
    assert chosen["trial"] == f"lr{run['learning_rate']:g}"
    view.wait_for_selector("#run .drawing[data-drawn]")
    assert view.evaluate("document.documentElement.scrollWidth") <= view.viewport_size["width"]
    assert lowest_contrast(view)["ratio"] >= 4.5, lowest_contrast(view)
    view.go_back()
    view.wait_for_selector("#report:not([hidden])")
    assert view.locator("#run").is_hidden()


@pytest.mark.slow
def test_the_chart_of_a_search_rings_the_chosen_and_leads_to_trials(view, study: Path) -> None:
    search = pd.read_csv(study / "results/report/tables/search.csv", dtype={"request_digest": str})
    search = search.set_index("request_digest")
    mark, tooltip = hover_last(view, "search")
    trial = search.loc[tooltip["run"]]
    assert tooltip["trial"] == trial["trial"]
    assert float(tooltip["learning rate"]) == trial["learning_rate"]
    layers = view.locator("#chart-search .drawing .mark-symbol")
    rings, dots = (layers.nth(i).locator("path").count() for i in range(2))
    assert (rings, dots) == (search["selected"].sum(), len(search))
    mark.click(force=True)
    view.wait_for_selector("#run:not([hidden])")
    text = view.locator("#run").inner_text()
    assert f"trial of a search · tiny on generated_reviews · {tooltip['run']}" in text
    assert f"--request @results/report/search/tiny/generated_reviews/{trial['method']}/" in text
    view.locator("#run .others a", has_text="seed 1").first.click()
    facts = "document.querySelector('#run .facts').textContent"
    view.wait_for_function(f"{facts}.startsWith('training run')")
    counts = view.evaluate("document.querySelector('#report .facts').textContent")
    assert f"{len(search)} trials" in counts


@pytest.mark.slow
def test_a_run_is_a_link_and_shows_its_ledger(view, study: Path) -> None:
    link = view.locator("#sheet-ledger tbody a").first.get_attribute("href")
    view.goto(f"{view.url.partition('#')[0]}{link}")
    view.wait_for_selector("#run:not([hidden])")
    path = made(study, "results/report/profiles/tiny/generated_reviews/lora/r2/ledger.json")
    peak_bytes = json.loads(path.read_text())["metrics"]["peak_bytes"]
    assert f"{peak_bytes:,} in all" in view.locator("#run").inner_text()
    sizes = view.locator("#run .bars td.number").all_inner_texts()
    assert sum(int(text.replace(",", "")) for text in sizes) == peak_bytes
    view.locator("#run .back a").click()
    view.wait_for_selector("#report:not([hidden])")
    assert view.locator("#runs").is_visible()


@pytest.mark.slow
def test_the_command_of_a_run_makes_it_again(study: Path) -> None:
    text = (study / "results/report/report.html").read_text()
    runs = unpacked(text, "details-data")["runs"].values()
    run = next(run for run in runs if run["measurement"] == "train")
    environment = {**CLEAN, "PYTHONPATH": str(study / "src")}
    command = [sys.executable, *run["command"].split()[1:]]
    done = subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again, first = (json.loads((study / path).read_text()) for path in (command[-1], run["path"]))
    assert again["metrics"] == first["metrics"] == run["metrics"]


@pytest.mark.slow
def test_colours_are_chosen_and_kept(view) -> None:
    """The choice overrides the system's, redraws the charts, and is there after a reload."""
    draw_all(view)
    paper = "getComputedStyle(document.body).backgroundColor"
    first_paper = view.evaluate(paper)
    first = view.locator(".drawing").first.get_attribute("data-drawn")
    other = "light" if first == "dark" else "dark"
    view.locator(f".themes [data-theme={other}]").click()
    assert view.evaluate(paper) != first_paper
    all_drawings = "[...document.querySelectorAll('#report .drawing')]"
    view.wait_for_function(f"{all_drawings}.every(one => one.dataset.drawn === '{other}')")
    view.reload()
    view.wait_for_selector("html[data-ready]")
    assert view.locator(f".themes [data-theme={other}]").get_attribute("aria-pressed") == "true"
    draw_all(view)
    assert lowest_contrast(view)["ratio"] >= 4.5, lowest_contrast(view)


@pytest.mark.slow
def test_a_legend_singles_out_and_the_data_are_a_table(view) -> None:
    draw_all(view)
    button = view.locator("#chart-loss .legend button").first
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert view.locator("#chart-loss .mark-symbol path[opacity='0.07']").count() > 0
    view.locator("#chart-loss details.data summary").press("Enter")
    rows = view.locator("#chart-loss details.data tbody tr")
    rows.first.wait_for()
    assert rows.count() == view.locator("#chart-loss .mark-symbol path").count()
    assert rows.first.locator("a[href^='#run/']").count() == 1


@pytest.mark.slow
def test_one_file_that_reads_without_scripts(study: Path, browser) -> None:
    """Nothing is loaded, scripts run by their digests only, and tables need no scripts."""
    text = (study / "results/report/report.html").read_text()
    assert len(text.encode()) < LARGEST
    markup = re.sub(r"(<(script|style)[^>]*>).*?</\2>", r"\1", text, flags=re.DOTALL)
    loading = r"<(?:script|img|iframe|link|source|video|audio)[^>]*\s(?:src|href)="
    assert not re.search(loading + r"""["']?(?!["']?data:)""", markup)
    assert "default-src 'none'" in html.unescape(markup)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((study / "results/report/report.html").as_uri())
    row_count = page.locator("#sheet-runs tbody tr").count()
    assert row_count == len(pd.read_csv(study / "results/report/tables/runs.csv"))
    assert page.locator("#sheet-runs caption").is_visible()
    assert page.locator("#chart-loss .panels").is_hidden()
    png = page.locator("#chart-loss .files a").first
    assert png.get_attribute("href") == "figures/loss.png"
    context.close()


@pytest.mark.slow
def test_the_charts_are_sound_vega_lite(study: Path) -> None:
    """Every specification compiles, and draws the rows that the page carries.

    The chart of quality against cost has its axes from the page alone: see test_page_of_many_runs.
    """
    frames = {}
    for name in ("runs", "history", "search"):
        path = study / f"results/report/tables/{name}.csv"
        frames[name] = pd.read_csv(path, dtype={"request_digest": str})
    labels = {"full": "Full AdamW", "lora": "LoRA"}
    charts = []
    for module in (quality, losses, trials):
        charts += module.charts(frames, labels)
    assert [chart.key for chart in charts] == ["by-rank", "loss", "search"]
    for chart in charts:
        for panel in chart.panels:
            drawn = vl_convert.vegalite_to_svg({**panel.spec, "width": 400})
            assert drawn.count("mark-symbol") >= 1, chart.key
