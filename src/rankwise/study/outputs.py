"""What a study writes from its results: names of tables, figures and page, what each is made from,
their requests.

Paths are relative to the study's folder; `Plan.output` makes them relative to the project.
"""

from collections.abc import Iterable

from rankwise.core import provenance
from rankwise.core.config import without
from rankwise.study import captions, claims, dataset_entries, own_metrics, variants
from rankwise.study.describe import about
from rankwise.study.measurements import EVALUATE, MEASUREMENTS
from rankwise.study.plan import Cell, Plan
from rankwise.study.resolve import observes

# Table -> the measurement whose results it gathers, where it has a row for each entry of a list in
# the result.
LISTS = {"history": "train", "timeline": "ledger", "state": "ledger", "groups": "throughput"}
# Table -> the measurement whose results it gathers.
TABLE_SOURCES = {
    "runs": "train",
    "search": "trial",
    "evaluations": EVALUATE,
    **{name: name for name in MEASUREMENTS},
    **LISTS,
}
# Values of projected_adam's option `rank_rule` with which it reports how many basis vectors are in
# use.
ADAPTIVE_RANK_RULES = ("energy", "svt")
# Columns of the ledger that published peaks are compared with.
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
FEWEST_PEAKS = 10  # with which a study has the figure of published peaks
EXAMPLES = "tables/examples.parquet"  # a row for each run and example
# Figure -> the tables that it is drawn from.
FIGURE_TABLES = {
    "metric_by_rank": ("estimates", "runs"),
    "heatmap": ("estimates", "comparisons", "runs"),
    "critical_difference": ("estimates", "comparisons", "runs"),
    "evaluations": ("evaluations_summary", "evaluations_comparisons", "evaluations"),
    "accuracy_memory": ("runs", "memory"),
    "loss": ("history", "runs"),
    "gradient_norms": ("history", "runs"),
    "spectra": ("history", "runs"),
    "memory": ("memory",),
    "ledger": ("ledger",),
    "predicted": ("ledger",),
    "published_memory": ("claims", "ledger"),
    "timeline": ("timeline", "ledger"),
    "fits": ("fits",),
    "flops": ("flops",),
    "latency": ("forward",),
    "throughput": ("throughput",),
    "sensitivity": ("search",),
}
WITH_REFERENCE = ("evaluations",)  # figures that compare curves with the study's reference
# Table -> the tables that it is made from, as far as the study has them. Scores by example are not
# named here: they come from the same runs as the table of runs.
DERIVED = {
    "estimates": ("runs",),
    "comparisons": ("runs",),
    "summary": ("runs", "search", "estimates", "comparisons", "memory", "ledger", "throughput"),
    "fronts": ("runs", "estimates", "comparisons", "memory", "ledger", "flops", "throughput"),
}
DERIVED["views"] = DERIVED["fronts"]
# Tables of the evaluations of kept weights: what each curve reaches on a task, and every pair.
EVALUATED = ("evaluations_summary", "evaluations_comparisons")
DERIVED |= dict.fromkeys(EVALUATED, ("evaluations",))
# Tables that the page shows.
PAGE_TABLES = (
    "summary",
    "comparisons",
    *EVALUATED,
    "fronts",
    "views",
    "search",
    "claims",
    "memory",
    "ledger",
    "fits",
    "flops",
    "forward",
    "throughput",
)
# Tables that the page draws its charts from, whether it shows them or not.
PAGE_DATA = ("runs", "history", "estimates", "comparisons", "evaluations", *MEASUREMENTS)
REPORT = "report.html"
DRAWN = ("png", "svg", "pdf")  # endings of a figure's files
# Tables with the columns that the layouts of published systems need.
EXPORT_TABLES = ("runs", "history", "memory", "flops", "forward", "ledger", "state")
EXPORTS = "exports/README.md"  # stands for the files beside it
CLAIMS = "claims"  # the stem of the verdicts' table and figure
ARTIFACT = "artifact.md"
NUMBERS = ("numbers.json", "numbers.tex")


# Tables -------------------------------------------------------------------------------------------


def tables(plan: Plan) -> list[str]:
    """Names of the gathered tables that the study has results for."""
    return [name for name, measurement in TABLE_SOURCES.items() if plan.cells(measurement)]


def derived(plan: Plan) -> list[str]:
    """Names of the tables that are made from other tables; none if the study does not train."""
    names = list(DERIVED) if plan.cells("train") else []
    return [name for name in names if name not in EVALUATED or plan.cells(EVALUATE)]


def made_from(plan: Plan, table: str) -> list[str]:
    """Names of the tables that one of `DERIVED` is made from, as far as the study has them.

    Args:
        plan: The plan of the study.
        table: A key of `DERIVED`.
    """
    available = {"runs", *DERIVED, *tables(plan)}
    return [name for name in DERIVED[table] if name in available]


def claim_tables(plan: Plan) -> list[str]:
    """Names of the study's tables that decide some claim."""
    deciding = {claim["table"] for claim in plan.library["claims"].values() if "table" in claim}
    return [name for name in tables(plan) if name in deciding]


def claim_inputs(plan: Plan) -> list[str]:
    """Names of the tables that verdicts are made from.

    These are the tables that decide claims, and the intervals of runs.
    """
    names = claim_tables(plan)
    intervals = {"runs": "estimates", "evaluations": "evaluations_summary"}
    return [*names, *(intervals[name] for name in names if name in intervals)]


def export_tables(plan: Plan) -> list[str]:
    """Names of the study's tables that are exported."""
    return [name for name in tables(plan) if name in EXPORT_TABLES]


def table_stem(name: str) -> str:
    """The path of a table, without its ending."""
    return CLAIMS if name == "claims" else f"tables/{name}"


def selected(plan: Plan, cell: Cell) -> list[str]:
    """The choice that a training run reads, if a search chooses its settings.

    Args:
        plan: The plan of the study.
        cell: The cell of the training run.

    Returns:
        One path, relative to the project; empty without a search.
    """
    return [plan.choice_path(cell.curve)] if plan.is_searched(cell.curve) else []


def evaluated(plan: Plan, cell: Cell) -> list[str]:
    """The paths that an evaluation reads: the run, its base model, and a prepared dataset if any.

    Args:
        plan: The plan of the study.
        cell: A cell of the evaluations.
    """
    files = [plan.path("train", cell.run), plan.input_path("model", cell.model)]
    dataset = plan.evaluations.cells[cell].get("dataset")
    return [*files, plan.input_path("dataset", dataset)] if dataset else files


# Figures ------------------------------------------------------------------------------------------


def figures(plan: Plan) -> list[str]:
    """Names of the figures that the study has the data for."""
    available = {*tables(plan), *derived(plan), CLAIMS}
    names = [name for name, needed in FIGURE_TABLES.items() if available.issuperset(needed)]
    return [name for name in names if _has_data(plan, name)]


def _has_data(plan: Plan, figure: str) -> bool:  # noqa: PLR0911 - one return a figure
    """Whether the figure would show something, where having its tables is not enough."""
    runs = plan.cells("train")
    match figure:
        case "accuracy_memory":  # some model and dataset must be both trained and profiled
            trained = {(cell.model, cell.dataset) for cell in runs}
            profiled = {(cell.model, cell.dataset) for cell in plan.cells("memory")}
            return not trained.isdisjoint(profiled)
        case "predicted":  # some ledger must be measured
            cells = plan.cells("ledger")
            return any(plan.request("ledger", cell)["measured"] for cell in cells)
        case "published_memory":  # a median of a few peaks says nothing
            return _published_peaks(plan) >= FEWEST_PEAKS
        case "critical_difference":  # there must be two curves to compare
            return len({cell.curve for cell in runs}) >= 2
        case "gradient_norms":  # some method must train
            return any(plan.method("train", cell)["learning_rate"] for cell in runs)
        case "spectra":
            return any(_has_spectrum(plan, cell) for cell in runs)
    return True


def _published_peaks(plan: Plan) -> int:
    """How many peaks that somebody published are of a cell of the study's ledger."""
    cells = set(plan.cells("ledger"))
    published = claims.expand(plan.library["claims"]).values() if cells else ()
    return sum(
        claim.get("table") == "ledger"
        and claim["column"][0] in PEAKS
        and Cell.of_columns(claim["cell"]) in cells
        for claim in published
    )


def _has_spectrum(plan: Plan, cell: Cell) -> bool:
    """Whether a run's history has sparsity or effective ranks.

    They come from its method, or from an optimizer with adaptive ranks.
    """
    method = plan.method("train", cell)
    rank_rule = method["optimizer"].get("rank_rule")
    return observes(method["module"]) or rank_rule in ADAPTIVE_RANK_RULES


def figure_stem(name: str) -> str:
    """The path of a figure, without its ending."""
    return CLAIMS if name == "claims" else f"figures/{name}"


# The page -----------------------------------------------------------------------------------------


def page_tables(plan: Plan) -> list[str]:
    """Names of the tables that the page shows."""
    available = {*tables(plan), *derived(plan)}
    if claim_tables(plan):
        available.add("claims")
    return [name for name in PAGE_TABLES if name in available]


def page_data(plan: Plan) -> list[str]:
    """Names of the tables that the page draws from, compares in, and links to."""
    return [name for name in [*tables(plan), *derived(plan)] if name in PAGE_DATA]


def page_figures(plan: Plan) -> dict[str, list[str]]:
    """Figures on the page: name -> title and caption."""
    names = figures(plan)
    if claim_tables(plan):
        names.append("claims")
    return {name: list(captions.shown(name, labels(plan))) for name in names}


def labels(plan: Plan) -> list[list[str]]:
    """[method, its name in figures and tables] of every method, and of the study's variants.

    The order is that of config/methods.yaml, which gives a method its colour; a variant follows
    right after its method.
    """
    return variants.labels(plan.library["methods"], plan.grids.variant_labels)


# Requests -----------------------------------------------------------------------------------------


def _request(plan: Plan, script: str, modules: Iterable[str] = (), **settings: object) -> dict:
    """A request of the report: settings, digests of the script's sources, and the report's lock."""
    code = plan.digests(script, *modules)
    return {**settings, "code": code, "environment": plan.environment("report")}


def table_request(plan: Plan, table: str) -> dict:
    """The request of a gathered table.

    Args:
        plan: The plan of the study.
        table: A key of `TABLE_SOURCES`, or `examples`, which is gathered from training runs.
    """
    measurement = TABLE_SOURCES.get(table, "train")
    of_variants = [cell for cell in plan.cells(measurement) if cell.variant]
    names = {plan.path(measurement, cell): cell.method_name for cell in of_variants}
    settings = {"metrics": _metrics(plan)} if table == "runs" else {}
    modules = own_metrics.modules(plan, [table])
    if table == "evaluations":
        settings = _of_evaluations(plan)
        modules = [*modules, "rankwise.analysis.evaluations"]
    return _request(
        plan,
        "collect",
        modules,
        table=table,
        listed=table in LISTS,
        variants=names,
        **settings,
    )


def _of_evaluations(plan: Plan) -> dict[str, dict]:
    """The further inputs of tables of evaluations: their main metrics, and the means."""
    return {"metrics": plan.evaluations.main_metrics(), "means": plan.evaluations.means}


def evaluated_request(plan: Plan) -> dict:
    """The scores of curves on the evaluations' tasks, and every pair compared."""
    return _request(
        plan,
        "evaluated",
        variants=table_request(plan, "evaluations")["variants"],
        equivalence=own_metrics.margins(plan),
        **_of_evaluations(plan),
    )


def _metrics(plan: Plan) -> dict[str, str]:
    """Dataset -> the metric by which its runs are compared."""
    names = dict.fromkeys(cell.dataset for cell in plan.cells("train"))
    return {name: dataset_entries.metric(plan.library["datasets"][name]) for name in names}


def evidence_request(plan: Plan) -> dict:
    """Estimates and comparisons."""
    modules = own_metrics.modules(plan, DERIVED["estimates"])
    return _request(plan, "evidence", modules, equivalence=own_metrics.margins(plan))


def summary_request(plan: Plan) -> dict:
    """The paper's table."""
    return _request(
        plan,
        "summary",
        own_metrics.modules(plan, made_from(plan, "summary")),
        labels=labels(plan),
        tables=made_from(plan, "summary"),
        equivalence=own_metrics.margins(plan),
    )


def views_request(plan: Plan) -> dict:
    """Fronts, and what is best at equal cost."""
    tables = made_from(plan, "views")
    return _request(plan, "views", own_metrics.modules(plan, tables), tables=tables)


def claims_request(plan: Plan) -> dict:
    """The verdicts on published numbers.

    Claims are a list of pairs, because their order is that of the table.
    """
    families = list(plan.library["claims"].items())
    tables = claim_inputs(plan)
    modules = own_metrics.modules(plan, tables)
    return _request(plan, "claims", modules, families=families, tables=tables)


def claims_figure_request(plan: Plan) -> dict:
    """The figure of the verdicts; from the tables it takes the runs' ids."""
    return _request(plan, "claims_figure", tables=claim_tables(plan))


def exports_request(plan: Plan) -> dict:
    """The files for users of published systems.

    FLOPs of an epoch need the size of a dataset's train split.
    """
    sizes = {}
    for name in dict.fromkeys(cell.dataset for cell in plan.cells("flops")):
        size = plan.library["datasets"][name].get("train_samples")
        if size:
            sizes[name] = size
    command = f"snakemake exports --cores all --configfile {plan.file}"  # `exports` is a rule
    tables = export_tables(plan)
    return _request(plan, "exports", tables=tables, train_samples=sizes, command=command)


def figure_request(plan: Plan, figure: str) -> dict:
    """The request of one figure.

    Args:
        plan: The plan of the study.
        figure: A key of `FIGURE_TABLES`.
    """
    tables = FIGURE_TABLES[figure]
    named = plan.study.get("reference") if figure in WITH_REFERENCE else None
    return _request(
        plan,
        "figure",
        modules=[f"rankwise.report.{figure}", *own_metrics.modules(plan, tables)],
        figure=figure,
        tables=tables,
        labels=labels(plan),
        **({"reference": named} if named else {}),
    )


def page_request(plan: Plan) -> dict:
    """The page that shows the study. What it says about methods and data is there as a digest."""
    return _request(
        plan,
        "report",
        own_metrics.modules(plan, page_data(plan)),
        study=without(plan.study, ("tracker", "share")),
        file=plan.file,
        labels=labels(plan),
        figures=page_figures(plan),
        tables=page_tables(plan),
        data=page_data(plan),
        about=provenance.digest(about(plan)),
    )
