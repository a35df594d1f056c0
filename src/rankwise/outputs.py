"""What a study writes from its results: the names of its tables, figures and page, what each needs, and their requests."""

from rankwise.plan import MEASUREMENTS, RESULTS, Plan
from rankwise.profiles import TIMED

# Table -> the measurement whose results it gathers.
TABLE_SOURCES = {"runs": "train", **{name: name for name in MEASUREMENTS}}
# Table -> the same, for lists that lie in a result beside its numbers.
LISTS = {"history": "train", "timeline": "ledger", "state": "ledger", "groups": "throughput"}
TABLE_SOURCES |= LISTS
EXAMPLES = f"{RESULTS}/tables/examples.parquet"  # a row an example and run
# Figure -> the tables that it is drawn from.
FIGURE_TABLES = {
    "loss": ("history", "runs"),
    "accuracy_memory": ("runs", "memory"),
    "memory": ("memory",),
    "ledger": ("ledger",),
    "predicted": ("ledger",),
    "timeline": ("timeline",),
    "fits": ("fits",),
    "flops": ("flops",),
    "latency": ("forward",),
    "throughput": ("throughput",),
}
PAGE_TABLES = ("summary", "claims", "memory", "ledger", "fits", "flops", "forward", "throughput")
# Tables that hold what the layouts of published systems ask for.
EXPORT_TABLES = ("runs", "history", "memory", "flops", "forward", "ledger", "state")
EXPORTS = f"{RESULTS}/exports/README.md"  # stands for the files beside it


def tables(plan: Plan) -> list[str]:
    """Names of the tables that the study can fill."""
    return [name for name, measurement in TABLE_SOURCES.items() if plan.cells(measurement)]


def figures(plan: Plan) -> list[str]:
    """Names of the figures that the study has the data for."""
    have = tables(plan)
    groups = [{(cell.model, cell.dataset) for cell in plan.cells(kind)} for kind in ("train", "memory")]
    ready = [name for name, needed in FIGURE_TABLES.items() if set(needed) <= set(have)]
    measured = any(plan.request("ledger", cell)["measured"] for cell in plan.cells("ledger"))
    lacking = {"accuracy_memory": not groups[0] & groups[1], "predicted": not measured}
    return [name for name in ready if not lacking.get(name)]


def page_tables(plan: Plan) -> list[str]:
    """Names of the tables on the page."""
    derived = {"summary": plan.cells("train"), "claims": claim_tables(plan)}
    have = [*tables(plan), *(name for name, needed in derived.items() if needed)]
    return [name for name in PAGE_TABLES if name in have]


def targets(plan: Plan) -> list[str]:
    """Every file that can be asked for by name."""
    results = [plan.path(measurement, cell) for measurement in ("train", *MEASUREMENTS) for cell in plan.cells(measurement)]
    inputs = [plan.input_path(kind, name) for kind, name in plan.inputs()]
    written = dict.fromkeys([*page_tables(plan), *tables(plan)])
    tabled = [f"{RESULTS}/tables/{name}.{end}" for name in written for end in ("csv", "md", "tex", "parquet")]
    drawn = [f"{RESULTS}/figures/{name}.{end}" for name in figures(plan) for end in ("png", "svg")]
    examples = [EXAMPLES] if plan.cells("train") else []
    return [f"{RESULTS}/index.html", EXPORTS, *examples, *drawn, *tabled, *inputs, *results]


def labels(plan: Plan) -> list[list[str]]:
    """[method, its name in figures and tables], in the order of config/methods.yaml, which also gives its colour."""
    return [[name, entry.get("label", name)] for name, entry in plan.library["methods"].items()]


def _request(plan: Plan, script: str, *modules: str, **settings: object) -> dict:
    return {**settings, "code": plan.digests(script, *modules), "environment": plan.environment("report")}


def _relevant_study(plan: Plan, measurement: str) -> dict:
    """The part of the study that decides the cells and requests of one measurement."""
    kind = "train" if measurement == "train" else "profile"
    keys = ("device", "environment", "cpu_threads", "schedule", "override") if kind == "train" else ("device", "override")
    grids = [grid for grid in plan.study[kind] if measurement in ("train", *grid.get("measurements", []))]
    if measurement in TIMED:
        keys += ("cpu_threads", "environment")
    if measurement == "ledger":
        keys += ("environment",)
    return {"name": kind, "question": "", **{key: plan.study[key] for key in keys}, kind: grids}


def table_request(plan: Plan, table: str) -> dict:
    """A tidy table: the study's part that decides its rows, and the digest of every planned request."""
    measurement = TABLE_SOURCES.get(table, "train")
    settings = {"table": table, "listed": table in LISTS, "measurement": measurement, "planned": plan.digest(measurement)}
    return _request(plan, "collect", **settings, study=_relevant_study(plan, measurement))


def summary_request(plan: Plan) -> dict:
    """The paper's table."""
    return _request(plan, "summary", labels=labels(plan), tables=["runs", *(["memory"] if plan.cells("memory") else [])])


def claim_tables(plan: Plan) -> list[str]:
    """Names of the tables that decide some claim and that the study can fill."""
    named = {claim["table"] for claim in plan.library["claims"].values()}
    return [name for name in tables(plan) if name in named]


def claims_request(plan: Plan) -> dict:
    """The verdicts on published numbers."""
    return _request(plan, "claims", claims=plan.library["claims"], tables=claim_tables(plan))


def export_tables(plan: Plan) -> list[str]:
    """Names of the tables that are exported and that the study can fill."""
    return [name for name in tables(plan) if name in EXPORT_TABLES]


def exports_request(plan: Plan) -> dict:
    """The files for users of published systems; an epoch's FLOPs need the size of a dataset's train split."""
    flops = dict.fromkeys(cell.dataset for cell in plan.cells("flops"))
    sizes = {name: size for name in flops if (size := plan.library["datasets"][name].get("train_samples"))}
    return _request(plan, "exports", tables=export_tables(plan), train_samples=sizes)


def figure_request(plan: Plan, figure: str) -> dict:
    """One figure."""
    settings = {"figure": figure, "tables": FIGURE_TABLES[figure], "labels": labels(plan)}
    return _request(plan, "figure", f"rankwise.report.{figure}", **settings)


def page_request(plan: Plan) -> dict:
    """The page that shows the study."""
    settings = {"name": plan.study["name"], "question": plan.study["question"], "study": plan.file, "labels": labels(plan)}
    counts = {kind: len(plan.cells(kind)) for kind in ("train", *MEASUREMENTS)}
    parts = {"figures": figures(plan), "tables": page_tables(plan), "counts": counts}
    return _request(plan, "index", **settings, **parts, lock=plan.environment(plan.study["environment"]))
