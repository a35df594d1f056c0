"""Which jobs build a study's report, and which feeds which: the rules of rules/*.smk, without Snakemake. No torch."""

from collections import Counter

from rankwise.study import outputs
from rankwise.study.plan import MEASUREMENTS, Cell, Plan

# Table -> the rule that makes it, where that is not `collect`; one job makes all the tables of such a rule.
RULES = {
    "summary": "summary",
    "claims": "claims",
    "examples": "collect_examples",
    "estimates": "evidence",
    "comparisons": "evidence",
    "fronts": "views",
    "views": "views",
}
BY_EXAMPLE = ("evidence", "views")  # rules that read the scores by example too

Job = tuple[str, object]  # rule, and what tells its jobs apart


def jobs(plan: Plan) -> dict[str, int]:
    """Rule -> how many of its jobs the report needs."""
    return dict(Counter(rule for rule, _ in _walk(plan)))


def edges(plan: Plan) -> list[tuple[str, str]]:
    """Pairs of rules: the first makes what the second reads."""
    return sorted(
        {(source[0], job[0]) for job, sources in _walk(plan).items() for source in sources}
    )


def _walk(plan: Plan) -> dict[Job, list[Job]]:
    """Every job that the report needs, with the jobs that it reads from."""
    todo, found = [("report", None)], {}
    while todo:
        job = todo.pop()
        if job not in found:
            found[job] = _sources(plan, *job)
            todo += found[job]
    return found


def _sources(plan: Plan, rule: str, key: object) -> list[Job]:
    """The jobs that one job reads from."""
    if rule == "report":
        results = [(name, cell) for name in ("train", *MEASUREMENTS) for cell in plan.cells(name)]
        names = dict.fromkeys([*outputs.page_tables(plan), *outputs.page_data(plan)])
        drawn = [("figure", name) for name in outputs.figures(plan)]
        return [
            *drawn,
            *[("claims_figure", None)] * ("claims" in names),
            *map(_table, names),
            *results,
        ]
    if rule == "figure":
        return [_table(name) for name in outputs.FIGURE_TABLES[key]]
    if rule in ("train", "trial"):
        return _inputs(plan, key, rule)
    if rule == "choose":
        return [("trial", cell) for cell in plan.cells("trial") if cell.curve == key]
    if rule == "pretrain_model":
        return [("prepare_dataset", plan.corpus(key))]
    return _tabled(plan, rule, key)


def _tabled(plan: Plan, rule: str, key: object) -> list[Job]:
    """What a table's job reads from: results, or other tables that the study can fill; what is no table reads nothing."""
    if rule in ("collect", "collect_examples"):
        measurement = outputs.TABLE_SOURCES.get(key, "train")
        return [(measurement, cell) for cell in plan.cells(measurement)]
    if rule == "claims_figure":
        return [("claims", None), *map(_table, outputs.claim_tables(plan))]
    if rule == "claims":
        return [_table(name) for name in outputs.claim_inputs(plan)]
    made = [name for name, own in RULES.items() if own == rule and name in outputs.DERIVED]
    needed = dict.fromkeys(name for table in made for name in outputs.made_from(plan, table))
    return [_table(name) for name in [*needed, *["examples"] * (rule in BY_EXAMPLE)]]


def _inputs(plan: Plan, cell: Cell, rule: str) -> list[Job]:
    """What prepares a run's data and model, and chooses among the trials that it follows."""
    model = "prepare_model" if plan.corpus(cell.model) is None else "pretrain_model"
    choice = [("choose", cell.curve)] * bool(rule == "train" and outputs.selected(plan, cell))
    return [("prepare_dataset", cell.dataset), (model, cell.model), *choice]


def _table(name: str) -> Job:
    return (RULES[name], None) if name in RULES else ("collect", name)
