"""What a study writes from its results: the names of its tables, figures and page, what each needs, and their requests."""

from rankwise.core import provenance
from rankwise.core.config import without
from rankwise.study.captions import TITLES
from rankwise.study.describe import about
from rankwise.study.measurements import PREDICT, TIMED
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Cell, Plan
from rankwise.study.resolve import observes

# Table -> the measurement whose results it gathers.
TABLE_SOURCES = {"runs": "train", "search": "trial", **{name: name for name in MEASUREMENTS}}
# Table -> the same, for lists that lie in a result beside its numbers.
LISTS = {"history": "train", "timeline": "ledger", "state": "ledger", "groups": "throughput"}
TABLE_SOURCES |= LISTS
ADAPTIVE = (
    "energy",
    "svt",
)  # rank rules of projected_adam that tell how many basis vectors are in use
EXAMPLES = f"{RESULTS}/tables/examples.parquet"  # a row an example and run
# Figure -> the tables that it is drawn from.
FIGURE_TABLES = {
    "metric_by_rank": ("estimates", "runs"),
    "heatmap": ("estimates", "comparisons", "runs"),
    "critical_difference": ("estimates", "comparisons", "runs"),
    "accuracy_memory": ("runs", "memory"),
    "loss": ("history", "runs"),
    "gradient_norms": ("history", "runs"),
    "spectra": ("history", "runs"),
    "memory": ("memory",),
    "ledger": ("ledger",),
    "predicted": ("ledger",),
    "timeline": ("timeline", "ledger"),
    "fits": ("fits",),
    "flops": ("flops",),
    "latency": ("forward",),
    "throughput": ("throughput",),
    "sensitivity": ("search",),
}
# Table made from other tables -> those that it is made from, where the study can fill them; examples come from the same runs.
DERIVED = {
    "estimates": ("runs",),
    "comparisons": ("runs",),
    "summary": ("runs", "estimates", "comparisons", "memory", "ledger", "throughput"),
    "fronts": ("runs", "estimates", "comparisons", "memory", "ledger", "flops", "throughput"),
}
DERIVED["views"] = DERIVED["fronts"]
PAGE_TABLES = (
    "summary",
    "comparisons",
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
# Tables that the page draws from, whether it shows them or not.
PAGE_DATA = ("runs", "history", "estimates", "comparisons", *MEASUREMENTS)
REPORT = f"{RESULTS}/report.html"
DRAWN = ("png", "svg", "pdf")  # what a figure is written as
# Tables that hold what the layouts of published systems ask for.
EXPORT_TABLES = ("runs", "history", "memory", "flops", "forward", "ledger", "state")
EXPORTS = f"{RESULTS}/exports/README.md"  # stands for the files beside it
CLAIMS = f"{RESULTS}/claims"  # the stem of the verdicts' table and figure
ARTIFACT = f"{RESULTS}/artifact.md"
NUMBERS = (f"{RESULTS}/numbers.json", f"{RESULTS}/numbers.tex")


def tables(plan: Plan) -> list[str]:
    """Names of the tables that the study can fill."""
    return [name for name, measurement in TABLE_SOURCES.items() if plan.cells(measurement)]


def derived(plan: Plan) -> list[str]:
    """Names of the tables that are made from tables of runs."""
    return list(DERIVED) if plan.cells("train") else []


def made_from(plan: Plan, table: str) -> list[str]:
    """Names of the tables that one of `DERIVED` is made from."""
    return [
        name for name in DERIVED[table] if name in DERIVED or name == "runs" or name in tables(plan)
    ]


def figures(plan: Plan) -> list[str]:
    """Names of the figures that the study has the data for."""
    have = [*tables(plan), *derived(plan)]
    groups = [
        {(cell.model, cell.dataset) for cell in plan.cells(kind)} for kind in ("train", "memory")
    ]
    ready = [name for name, needed in FIGURE_TABLES.items() if set(needed) <= set(have)]
    measured = any(plan.request("ledger", cell)["measured"] for cell in plan.cells("ledger"))
    lacking = {
        "accuracy_memory": not groups[0] & groups[1],
        "predicted": not measured,
        "critical_difference": len({cell.curve for cell in plan.cells("train")}) < 2,
        "gradient_norms": not any(
            plan.library["methods"][cell.method]["learning_rate"] for cell in plan.cells("train")
        ),
        "spectra": not any(_has_spectrum(plan, cell) for cell in plan.cells("train")),
    }
    return [name for name in ready if not lacking.get(name)]


def _has_spectrum(plan: Plan, cell: Cell) -> bool:
    """Whether a run's history tells sparsity or effective ranks: its method observes them, or its optimizer chooses ranks."""
    entry = plan.method("train", cell)
    return observes(entry["module"]) or entry["optimizer"].get("rank_rule") in ADAPTIVE


def page_tables(plan: Plan) -> list[str]:
    """Names of the tables on the page."""
    have = [*tables(plan), *derived(plan), *(["claims"] if claim_tables(plan) else [])]
    return [name for name in PAGE_TABLES if name in have]


def page_data(plan: Plan) -> list[str]:
    """Names of the tables that the page draws, compares and links from."""
    return [name for name in [*tables(plan), *derived(plan)] if name in PAGE_DATA]


def table_stem(name: str) -> str:
    """The path of a table, without its ending."""
    return CLAIMS if name == "claims" else f"{RESULTS}/tables/{name}"


def targets(plan: Plan) -> list[str]:
    """Every file that can be asked for by name."""
    results = [
        plan.path(name, cell)
        for name in (*FOLDERS, *MEASUREMENTS, PREDICT)
        for cell in plan.cells(name)
    ]
    results += dict.fromkeys(file for cell in plan.cells("train") for file in selected(plan, cell))
    inputs = [plan.input_path(kind, name) for kind, name in plan.inputs()]
    stems = dict.fromkeys(
        table_stem(name) for name in [*page_tables(plan), *tables(plan), *derived(plan)]
    )
    tabled = [f"{stem}.{end}" for stem in stems for end in ("csv", "md", "tex", "parquet")]
    pictures = [
        *(f"{RESULTS}/figures/{name}" for name in figures(plan)),
        *([CLAIMS] if claim_tables(plan) else []),
    ]
    drawn = [f"{stem}.{end}" for stem in pictures for end in DRAWN]
    examples = [EXAMPLES] if plan.cells("train") else []
    texts = [ARTIFACT, *(NUMBERS if plan.cells("train") else [])]
    return [REPORT, EXPORTS, *texts, *examples, *drawn, *tabled, *inputs, *results]


def selected(plan: Plan, cell: Cell) -> list[str]:
    """What a training reads of its search, if its grid has one."""
    searched = "search" in plan.request("train", cell)["inputs"]
    return [f"{RESULTS}/{FOLDERS['trial']}/{cell.curve.folder}/selected.json"] if searched else []


def labels(plan: Plan) -> list[list[str]]:
    """[method, its name in figures and tables], in the order of config/methods.yaml, which also gives its colour."""
    return [[name, entry.get("label", name)] for name, entry in plan.library["methods"].items()]


def _request(plan: Plan, script: str, *modules: str, **settings: object) -> dict:
    return {
        **settings,
        "code": plan.digests(script, *modules),
        "environment": plan.environment("report"),
    }


def _relevant_study(plan: Plan, measurement: str) -> dict:
    """The part of the study that decides the cells and requests of one measurement."""
    kind = "train" if measurement in FOLDERS else "profile"
    keys = (
        ("device", "environment", "cpu_threads", "schedule", "override")
        if kind == "train"
        else ("device", "override")
    )
    own = {"train": lambda _: True, "trial": lambda grid: "search" in grid}
    grids = [
        *filter(
            own.get(measurement, lambda grid: measurement in grid["measurements"]), plan.study[kind]
        )
    ]
    if measurement in TIMED:
        keys += ("cpu_threads", "environment")
    if measurement == "ledger":
        keys += ("environment",)
    return {"name": kind, "question": "", **{key: plan.study[key] for key in keys}, kind: grids}


def table_request(plan: Plan, table: str) -> dict:
    """A tidy table: the study's part that decides its rows, and the digest of every planned request."""
    measurement = TABLE_SOURCES.get(table, "train")
    settings = {
        "table": table,
        "listed": table in LISTS,
        "measurement": measurement,
        "planned": plan.digest(measurement),
    }
    return _request(plan, "collect", **settings, study=_relevant_study(plan, measurement))


def evidence_request(plan: Plan) -> dict:
    """Estimates and comparisons."""
    return _request(plan, "evidence", equivalence=plan.study["equivalence"])


def summary_request(plan: Plan) -> dict:
    """The paper's table."""
    settings = {
        "labels": labels(plan),
        "tables": made_from(plan, "summary"),
        "equivalence": plan.study["equivalence"],
    }
    return _request(plan, "summary", **settings)


def views_request(plan: Plan) -> dict:
    """Fronts, and what is best at equal cost."""
    return _request(plan, "views", tables=made_from(plan, "views"))


def claim_tables(plan: Plan) -> list[str]:
    """Names of the tables that decide some claim and that the study can fill."""
    named = {family["table"] for family in plan.library["claims"].values() if "table" in family}
    return [name for name in tables(plan) if name in named]


def claim_inputs(plan: Plan) -> list[str]:
    """Names of the tables that verdicts are made from: those that decide, and the intervals of runs."""
    found = claim_tables(plan)
    return [*found, *(["estimates"] if "runs" in found else [])]


def claims_request(plan: Plan) -> dict:
    """The verdicts on published numbers."""
    return _request(
        plan, "claims", families=list(plan.library["claims"].items()), tables=claim_inputs(plan)
    )


def claims_figure_request(plan: Plan) -> dict:
    """The figure of the verdicts; the tables give it the runs' ids."""
    return _request(plan, "claims_figure", tables=claim_tables(plan))


def export_tables(plan: Plan) -> list[str]:
    """Names of the tables that are exported and that the study can fill."""
    return [name for name in tables(plan) if name in EXPORT_TABLES]


def exports_request(plan: Plan) -> dict:
    """The files for users of published systems; an epoch's FLOPs need the size of a dataset's train split."""
    flops = dict.fromkeys(cell.dataset for cell in plan.cells("flops"))
    sizes = {
        name: size
        for name in flops
        if (size := plan.library["datasets"][name].get("train_samples"))
    }
    return _request(plan, "exports", tables=export_tables(plan), train_samples=sizes)


def figure_request(plan: Plan, figure: str) -> dict:
    """One figure."""
    settings = {"figure": figure, "tables": FIGURE_TABLES[figure], "labels": labels(plan)}
    return _request(plan, "figure", f"rankwise.report.{figure}", **settings)


def page_figures(plan: Plan) -> dict[str, list[str]]:
    """Figures on the page: name -> title and caption."""
    drawn = [*figures(plan), *(["claims"] if claim_tables(plan) else [])]
    return {
        name: list(TITLES.get(name, (name.replace("_", " ").capitalize(), ""))) for name in drawn
    }


def figure_stem(name: str) -> str:
    """The path of a figure, without its ending."""
    return CLAIMS if name == "claims" else f"{RESULTS}/figures/{name}"


def page_request(plan: Plan) -> dict:
    """The page that shows the study; what its methods section says is in the request as a digest."""
    settings = {
        "study": without(plan.study, ("tracker", "share")),
        "file": plan.file,
        "labels": labels(plan),
    }
    planned = {name: plan.digest(name) for name in ("train", *MEASUREMENTS) if plan.cells(name)}
    shown = {"figures": page_figures(plan), "tables": page_tables(plan), "data": page_data(plan)}
    return _request(
        plan, "report", **settings, **shown, planned=planned, about=provenance.digest(about(plan))
    )
