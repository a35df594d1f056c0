"""What a study writes from its results: the names of its tables, figures and page, what each needs, and their requests."""

from rankwise.plan import MEASUREMENTS, RESULTS, Plan

# Table -> the measurement whose results it gathers.
TABLE_SOURCES = {"runs": "train", "history": "train", **{name: name for name in MEASUREMENTS}}
# Figure -> the tables that it is drawn from.
FIGURE_TABLES = {"memory": ("memory",), "loss": ("history", "runs"), "accuracy_memory": ("runs", "memory")}
PAGE_TABLES = ("summary", "claims", "memory", "flops", "forward")


def tables(plan: Plan) -> list[str]:
    """Names of the tables that the study can fill."""
    return [name for name, measurement in TABLE_SOURCES.items() if plan.cells(measurement)]


def figures(plan: Plan) -> list[str]:
    """Names of the figures that the study has the data for."""
    have = tables(plan)
    groups = [{(cell.model, cell.dataset) for cell in plan.cells(kind)} for kind in ("train", "memory")]
    ready = [name for name, needed in FIGURE_TABLES.items() if set(needed) <= set(have)]
    return [name for name in ready if name != "accuracy_memory" or groups[0] & groups[1]]


def page_tables(plan: Plan) -> list[str]:
    """Names of the tables on the page."""
    derived = {"summary": plan.cells("train"), "claims": plan.cells("memory")}
    have = [*tables(plan), *(name for name, cells in derived.items() if cells)]
    return [name for name in PAGE_TABLES if name in have]


def targets(plan: Plan) -> list[str]:
    """Every file that can be asked for by name."""
    results = [plan.path(measurement, cell) for measurement in ("train", *MEASUREMENTS) for cell in plan.cells(measurement)]
    inputs = [plan.input_path(kind, name) for kind, name in plan.inputs()]
    written = dict.fromkeys([*page_tables(plan), *tables(plan)])
    tabled = [f"{RESULTS}/tables/{name}.{end}" for name in written for end in ("csv", "md", "tex")]
    drawn = [f"{RESULTS}/figures/{name}.{end}" for name in figures(plan) for end in ("png", "svg")]
    return [f"{RESULTS}/index.html", *drawn, *tabled, *inputs, *results]


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
    threads = {"cpu_threads": plan.study["cpu_threads"]} if measurement == "forward" else {}
    return {"name": kind, "question": "", **{key: plan.study[key] for key in keys}, **threads, kind: grids}


def table_request(plan: Plan, table: str) -> dict:
    """A tidy table: the study's part that decides its rows, and the digest of every planned request."""
    measurement = TABLE_SOURCES[table]
    settings = {"table": table, "measurement": measurement, "planned": plan.digest(measurement)}
    return _request(plan, "collect", **settings, study=_relevant_study(plan, measurement))


def summary_request(plan: Plan) -> dict:
    """The paper's table."""
    return _request(plan, "summary", labels=labels(plan), tables=["runs", *(["memory"] if plan.cells("memory") else [])])


def claims_request(plan: Plan) -> dict:
    """The verdicts on published numbers."""
    return _request(plan, "claims", claims=plan.library["claims"])


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
