"""Every job of a study in one list: its rule, what it reads, what it writes, and the request that
it answers.

The rules in rules/*.smk say the same to Snakemake, and `tests/study/test_jobs.py` compares the two.
Whoever needs to know which jobs a study has (the audit commands, the preflight checks, the page's
picture of the workflow) asks here. No torch.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rankwise.core import provenance, store
from rankwise.study import outputs, text_outputs
from rankwise.study.measurements import EVALUATE, MEASUREMENTS, PREDICT
from rankwise.study.plan import FOLDERS, Cell, Plan

# The value of `PlannedJob.kind` for jobs that measure no cell.
DATASET, MODEL, CHOICE = "dataset", "model", "choose"
TABLE, FIGURE, PAGE, TEXT = DOCUMENTS = ("table", "figure", "page", "text")

CELL_KINDS = (*FOLDERS, EVALUATE, *MEASUREMENTS, PREDICT)
TABLE_ENDINGS = ("csv", "md", "tex", "parquet")
# Rule -> the tables that it computes from the table of runs and others, and their request.
DERIVED_RULES = {
    "evidence": (("estimates", "comparisons"), outputs.evidence_request),
    "summary": (("summary",), outputs.summary_request),
    "views": (("fronts", "views"), outputs.views_request),
}
EVALUATED = "evaluated"  # the rule of the tables that are computed from the evaluations' results
READ_EXAMPLES = ("evidence", "views")  # of these rules, those that also read the scores by example


@dataclass(frozen=True)
class PlannedJob:
    """One job of a study.

    Attributes:
        rule: The Snakemake rule that runs it.
        kind: What it makes: a measurement (train, memory, ...) of a cell, a dataset, a table, and
            so on.
        name: What tells it from other jobs of its kind: a cell's folder, or the name of a dataset
            or table.
        outputs: Paths of the files that it writes, relative to the project; the first stands for
            the job.
        inputs: Paths of the files that it reads, relative to the project.
        log: Path of its log, relative to the project.
        make_request: Builds the request; called once, when the request is first needed.
        cell: The cell that it measures, or the curve that a choice is for; None for all other jobs.
    """

    rule: str
    kind: str
    name: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    log: str
    make_request: Callable[[], dict] = field(repr=False, compare=False)
    cell: Cell | None = None

    @property
    def path(self) -> str:
        """The file that stands for the job: its result, or the first file that it writes."""
        return self.outputs[0]

    # `cached_property` writes to `__dict__`, which a frozen dataclass allows.
    @functools.cached_property
    def request(self) -> dict:
        """Everything that decides the result of the job, and nothing else."""
        return self.make_request()

    @functools.cached_property
    def digest(self) -> str:
        """The digest of the request. The path of a result has it, see `Plan.path`."""
        if self.kind in DOCUMENTS:
            return provenance.digest(self.request)
        return PurePosixPath(self.path).parent.name

    @property
    def short_path(self) -> str:
        """The path of a result without the folder of its digest."""
        path = PurePosixPath(self.path)
        return str(path.parent.with_name(path.name))

    @property
    def place(self) -> str:
        """The result in a store. Documents lie in no store."""
        return store.place(self.request, self.digest)

    @property
    def trains(self) -> bool:
        """Whether the job is a training run or a trial of a search."""
        return self.kind in FOLDERS

    @property
    def measures_cell(self) -> bool:
        """Whether the job trains, profiles or predicts one cell."""
        return self.kind in CELL_KINDS

    @property
    def prepares_input(self) -> bool:
        """Whether the job prepares a dataset or a model. Its data files are beside its result."""
        return self.kind in (DATASET, MODEL)


def planned_jobs(plan: Plan) -> list[PlannedJob]:
    """Every job that a study can ask for; each job comes after the jobs whose outputs it reads."""
    return [*result_jobs(plan), *document_jobs(plan)]


def targets(plan: Plan) -> dict[str, str]:
    """Every file that can be asked for by name -> the file.

    A result has a second name without the folder of its digest, for people to type.
    """
    files = {}
    for job in result_jobs(plan):
        files |= {job.short_path: job.path, job.path: job.path}
    return files | {path: path for job in document_jobs(plan) for path in job.outputs}


# Jobs that write a result in JSON -----------------------------------------------------------------


def result_jobs(plan: Plan) -> list[PlannedJob]:
    """The jobs that write a result: inputs, trials, choices, runs, evaluations, and profiles."""
    jobs = [
        *input_jobs(plan),
        *cell_jobs(plan, "trial"),
        *choice_jobs(plan),
        *cell_jobs(plan, "train"),
        *cell_jobs(plan, EVALUATE),
    ]
    for measurement in (*MEASUREMENTS, PREDICT):
        jobs += cell_jobs(plan, measurement)
    return jobs


def requested_jobs(plan: Plan) -> list[PlannedJob]:
    """The jobs whose results a study asks for by name: runs, trials, evaluations, and profiles.

    Other jobs run only because one of these needs them, or because they are asked for.
    """
    measurements = (*FOLDERS, EVALUATE, *MEASUREMENTS)
    return [job for measurement in measurements for job in cell_jobs(plan, measurement)]


def input_jobs(plan: Plan) -> list[PlannedJob]:
    """The jobs that prepare a dataset or a model.

    Datasets come first, because a model may be pre-trained on one.
    """
    return [_input_job(plan, kind, name) for kind, name in plan.inputs()]


def _input_job(plan: Plan, kind: str, name: str) -> PlannedJob:
    corpus = plan.corpus(name) if kind == MODEL else None
    rule = f"prepare_{kind}" if corpus is None else "pretrain_model"
    return PlannedJob(
        rule=rule,
        kind=kind,
        name=name,
        outputs=(plan.input_path(kind, name),),
        inputs=() if corpus is None else (plan.input_path(DATASET, corpus),),
        log=f"{plan.logs}/{rule}/{name}/{plan.input_digest(kind, name)}.log",
        make_request=functools.partial(plan.input_request, kind, name),
    )


def cell_jobs(plan: Plan, measurement: str) -> list[PlannedJob]:
    """The jobs of one measurement, in the study's order.

    Args:
        plan: The plan of the study.
        measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
    """
    return [_cell_job(plan, measurement, cell) for cell in plan.cells(measurement)]


def _cell_job(plan: Plan, measurement: str, cell: Cell) -> PlannedJob:
    return PlannedJob(
        rule=measurement,
        kind=measurement,
        name=cell.folder,
        outputs=(plan.path(measurement, cell),),
        inputs=_cell_inputs(plan, measurement, cell),
        log=f"{plan.logs}/{measurement}/{cell.folder}/{plan.cell_digest(measurement, cell)}.log",
        make_request=functools.partial(plan.request, measurement, cell),
        cell=cell,
    )


def _cell_inputs(plan: Plan, measurement: str, cell: Cell) -> tuple[str, ...]:
    """The paths that a cell's job reads.

    A profile reads nothing, since shapes come from the configuration, unless it takes its lengths
    from the dataset.
    """
    if measurement == EVALUATE:
        return tuple(outputs.evaluated(plan, cell))
    if measurement not in FOLDERS:
        return tuple(plan.profile_inputs(measurement, cell))
    prepared = plan.input_path(DATASET, cell.dataset), plan.input_path(MODEL, cell.model)
    choice = outputs.selected(plan, cell) if measurement == "train" else []
    return *prepared, *choice


def choice_jobs(plan: Plan) -> list[PlannedJob]:
    """The jobs that choose among the trials of a curve, in the order of the curves."""
    curves = dict.fromkeys(cell.curve for cell in plan.cells("trial"))
    return [_choice_job(plan, curve) for curve in curves]


def _choice_job(plan: Plan, curve: Cell) -> PlannedJob:
    return PlannedJob(
        rule="choose",
        kind=CHOICE,
        name=curve.folder,
        outputs=(plan.choice_path(curve),),
        inputs=tuple(plan.trial_paths(curve)),
        log=f"{plan.logs}/choose/{curve.folder}/{provenance.digest(plan.choice(curve))}.log",
        make_request=functools.partial(plan.choice, curve),
        cell=curve,
    )


# Jobs that write tables, figures and texts --------------------------------------------------------


def document_jobs(plan: Plan) -> list[PlannedJob]:
    """The jobs that write what people read: tables, figures, the page, texts and exports."""
    jobs = [_gathered_table(plan, table) for table in outputs.tables(plan)]
    if plan.cells("train"):
        jobs += _tables_of_runs(plan)
    if plan.cells(EVALUATE):
        request = functools.partial(outputs.evaluated_request, plan)
        files, reads = _table_files(*outputs.EVALUATED), _results(plan, EVALUATE)
        jobs.append(_document(plan, TABLE, EVALUATED, files, reads, request))
    if outputs.claim_tables(plan):
        jobs += _claims(plan)
    jobs += [_figure(plan, figure) for figure in outputs.figures(plan)]
    jobs.append(_page(plan))
    return [*jobs, *_texts(plan)]


def _document(
    plan: Plan,
    kind: str,
    rule: str,
    files: Iterable[str],
    reads: Iterable[str],
    request: Callable[[], dict],
    name: str = "",
) -> PlannedJob:
    """A job of the report.

    Args:
        plan: The plan of the study.
        kind: What it makes.
        rule: Its rule.
        files: What it writes, relative to the study's folder.
        reads: What it reads, relative to the project.
        request: Makes its request without its files.
        name: Its name, if that is not its rule's.
    """
    paths = tuple(map(plan.output, files))
    inputs = tuple(dict.fromkeys(reads))  # a table may be both shown and drawn from
    log = f"{rule}/{name}" if name else rule

    def make_request() -> dict:
        document = [plan.results, files[0]]
        return {**request(), "document": document, "reads": list(inputs), "writes": list(paths)}

    return PlannedJob(
        rule=rule,
        kind=kind,
        name=name or rule,
        outputs=paths,
        inputs=inputs,
        log=f"{plan.logs}/{log}.log",
        make_request=make_request,
    )


def _table_files(*tables: str) -> list[str]:
    return [f"{outputs.table_stem(table)}.{ending}" for table in tables for ending in TABLE_ENDINGS]


def _figure_files(figure: str) -> list[str]:
    return [f"{outputs.figure_stem(figure)}.{ending}" for ending in outputs.DRAWN]


def _csv_files(plan: Plan, tables: Iterable[str]) -> list[str]:
    return [plan.output(f"{outputs.table_stem(table)}.csv") for table in tables]


def _results(plan: Plan, measurement: str) -> list[str]:
    return [plan.path(measurement, cell) for cell in plan.cells(measurement)]


def _gathered_table(plan: Plan, table: str) -> PlannedJob:
    """A tidy table, gathered from the results of one measurement."""
    reads = _results(plan, outputs.TABLE_SOURCES[table])
    request = functools.partial(outputs.table_request, plan, table)
    return _document(plan, TABLE, "collect", _table_files(table), reads, request, name=table)


def _tables_of_runs(plan: Plan) -> Iterator[PlannedJob]:
    """The scores by example, and the tables that are computed from the table of runs."""
    runs = _results(plan, "train")
    request = functools.partial(outputs.table_request, plan, "examples")
    yield _document(plan, TABLE, "collect_examples", [outputs.EXAMPLES], runs, request)
    for rule, (tables, make_request) in DERIVED_RULES.items():
        reads = _csv_files(plan, outputs.made_from(plan, tables[0]))
        if rule in READ_EXAMPLES:
            reads.append(plan.output(outputs.EXAMPLES))
        request = functools.partial(make_request, plan)
        yield _document(plan, TABLE, rule, _table_files(*tables), reads, request)


def _claims(plan: Plan) -> Iterator[PlannedJob]:
    """The verdicts on published numbers: their table and their figure."""
    reads = _csv_files(plan, outputs.claim_inputs(plan))
    request = functools.partial(outputs.claims_request, plan)
    yield _document(plan, TABLE, "claims", _table_files("claims"), reads, request)
    reads = _csv_files(plan, ["claims", *outputs.claim_tables(plan)])
    request = functools.partial(outputs.claims_figure_request, plan)
    yield _document(plan, FIGURE, "claims_figure", _figure_files("claims"), reads, request)


def _figure(plan: Plan, figure: str) -> PlannedJob:
    reads = _csv_files(plan, outputs.FIGURE_TABLES[figure])
    request = functools.partial(outputs.figure_request, plan, figure)
    return _document(plan, FIGURE, "figure", _figure_files(figure), reads, request, name=figure)


def _page(plan: Plan) -> PlannedJob:
    stems = [outputs.figure_stem(figure) for figure in outputs.page_figures(plan)]
    reads = [plan.output(f"{stem}.svg") for stem in stems]
    reads += _csv_files(plan, [*outputs.page_tables(plan), *outputs.page_data(plan)])
    for table in outputs.page_data(plan):
        if table in outputs.TABLE_SOURCES:
            reads += _results(plan, outputs.TABLE_SOURCES[table])
    request = functools.partial(outputs.page_request, plan)
    return _document(plan, PAGE, "report", [outputs.REPORT], reads, request)


def _texts(plan: Plan) -> Iterator[PlannedJob]:
    """Texts for a paper and its artifact, and the exports: only made when asked for."""
    if plan.cells("train"):
        reads = map(plan.output, text_outputs.numbers_tables(plan))
        request = functools.partial(text_outputs.numbers_request, plan)
        yield _document(plan, TEXT, "numbers", outputs.NUMBERS, reads, request)
    reads = [*text_outputs.results(plan), *text_outputs.findings(plan)]
    request = functools.partial(text_outputs.artifact_request, plan)
    yield _document(plan, TEXT, "artifact", [outputs.ARTIFACT], reads, request)
    reads = [*_csv_files(plan, outputs.export_tables(plan)), *_results(plan, "train")]
    request = functools.partial(outputs.exports_request, plan)
    yield _document(plan, TEXT, "exports", [outputs.EXPORTS], reads, request)


def document(plan: Plan, relative: str) -> PlannedJob:
    """The job that writes a document.

    Args:
        plan: The plan of the study.
        relative: One of its files, relative to the study's folder.

    Raises:
        KeyError: The study has no such document.
    """
    return _documents_by_path(plan)[plan.output(relative)]


@functools.cache
def _documents_by_path(plan: Plan) -> dict[str, PlannedJob]:
    return {path: job for job in document_jobs(plan) for path in job.outputs}


# The picture of the workflow ----------------------------------------------------------------------


def required_jobs(jobs: Iterable[PlannedJob], path: str) -> list[PlannedJob]:
    """The jobs that must run before a file can exist, its own job included.

    Args:
        jobs: All jobs of the study.
        path: The file, relative to the project.

    Returns:
        The required jobs, in the order of `jobs`.

    Raises:
        KeyError: none of the jobs writes `path`, or a file that a required job reads.
    """
    writers = {output: job for job in jobs for output in job.outputs}
    paths_to_visit, required = [path], set()
    while paths_to_visit:
        job = writers[paths_to_visit.pop()]
        if job.path not in required:
            required.add(job.path)
            paths_to_visit += job.inputs
    return [job for job in dict.fromkeys(writers.values()) if job.path in required]


def rule_counts(plan: Plan) -> dict[str, int]:
    """Rule -> how many of its jobs the page needs."""
    return dict(
        Counter(job.rule for job in required_jobs(planned_jobs(plan), plan.output(outputs.REPORT)))
    )


def rule_edges(plan: Plan) -> list[tuple[str, str]]:
    """Pairs of rules of the page's jobs: the second reads a file that the first writes."""
    jobs = required_jobs(planned_jobs(plan), plan.output(outputs.REPORT))
    writers = {output: job.rule for job in jobs for output in job.outputs}
    pairs = {(writers[path], job.rule) for job in jobs for path in job.inputs}
    return sorted(pairs)
