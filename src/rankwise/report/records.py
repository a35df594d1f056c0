"""What a study's results say about themselves, taken together: how many ended how, where they ran, how long, how much disk."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rankwise.analysis.tidy import StaleResult, place
from rankwise.core import result
from rankwise.study.plan import FOLDERS, MEASUREMENTS, Plan

UNKNOWN = "not recorded"
TIMES = ("train_time_s", "evaluation_time_s")  # of a run's cost: what adds up to its time


def read(plan: Plan, root: Path) -> list[dict]:
    """Every result of the study, with its `measurement` and `path`.

    Raises:
        StaleResult: a result answers another request than the planned one.
    """
    found = []
    for measurement in (*FOLDERS, *MEASUREMENTS):
        for cell in plan.cells(measurement):
            path = plan.path(measurement, cell)
            one = result.read(root / path)
            if one["request"] != plan.request(measurement, cell):
                raise StaleResult(
                    f"{path} answers another request than the planned one; run snakemake again"
                )
            found.append({**one, "measurement": measurement, "path": path})
    return found


def inputs(plan: Plan, root: Path) -> dict[tuple[str, str], dict]:
    """(kind, name) -> what prepared the input, for those that lie there: they may be deleted once nothing reads them."""
    paths = {(kind, name): root / plan.input_path(kind, name) for kind, name in plan.inputs()}
    return {key: result.read(path) for key, path in paths.items() if path.is_file()}


def statuses(results: list[dict]) -> dict[str, Counter]:
    """Measurement -> how many of its results have each status."""
    names = dict.fromkeys(one["measurement"] for one in results)
    return {
        name: Counter(one["status"] for one in results if one["measurement"] == name)
        for name in names
    }


def device(one: dict) -> str:
    """Where a job ran: what predicts a GPU from shapes runs on the CPU."""
    asked = one.get("device") or one["request"].get("device", "cpu")
    from_shapes = one["measurement"] == "fits" or one["request"].get("measured") is False
    return "cpu" if from_shapes else asked


def device_names(results: list[dict]) -> dict[str, list[str]]:
    """Device that jobs ran on -> its names, where some result has one."""
    found = {device(one): {} for one in results}
    for one in results:
        for part in (one.get("cost", {}), *one.get("rows", [])):
            if "device_name" in part:
                found[device(one)][part["device_name"]] = None
    return {name: list(names) for name, names in found.items()}


def environments(results: list[dict]) -> list[tuple[dict, int]]:
    """Each environment that results were made in, with its lock, and how many were."""
    found: list[tuple[dict, int]] = []
    for one in results:
        where = place(one)
        number = next((i for i, (known, _) in enumerate(found) if known == where), None)
        if number is None:
            found.append((where, 1))
        else:
            found[number] = (where, found[number][1] + 1)
    return found


def hours(results: list[dict]) -> dict[str, tuple[float, int, int]]:
    """Device -> (hours of wall clock on it, how many results record their time, how many there are)."""
    found = {}
    for name in dict.fromkeys(map(device, results)):
        here = [one.get("cost", {}) for one in results if device(one) == name]
        timed = [
            sum(cost.get(time, 0) for time in TIMES) for cost in here if "train_time_s" in cost
        ]
        found[name] = (sum(timed) / 3600, len(timed), len(here))
    return found


def peak_bytes(results: list[dict]) -> float | None:
    """The largest peak that a training run's allocator recorded, if any did."""
    return max(
        (
            one["cost"]["peak_allocated_bytes"]
            for one in results
            if "peak_allocated_bytes" in one.get("cost", {})
        ),
        default=None,
    )


def disk_bytes(plan: Plan, root: Path) -> dict[str, int]:
    """What the study's prepared inputs and results take on disk."""
    folders = [(root / plan.input_path(kind, name)).parent for kind, name in plan.inputs()]
    cells = [
        root / plan.path(kind, cell)
        for kind in (*FOLDERS, *MEASUREMENTS)
        for cell in plan.cells(kind)
    ]
    there = [
        file
        for folder in folders
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.is_file()
    ]
    return {
        "inputs": sum(file.stat().st_size for file in there),
        "results": sum(file.stat().st_size for file in cells),
    }


class Records:
    """A study, its results, its prepared inputs and the tables of its findings: all that a page about them is made from."""

    def __init__(self, request: dict, plan: Plan, root: Path, frames: dict[str, pd.DataFrame]):
        self.request, self.plan, self.frames = request, plan, frames
        self.results, self.inputs = read(plan, root), inputs(plan, root)
        self.disk = disk_bytes(plan, root)
        self.runs = [one for one in self.results if one["measurement"] == "train"]
        self.seeds = sorted({cell.seed for cell in plan.cells("train")})

    def used(self, kind: str) -> dict[str, dict]:
        """Name -> entry of the models, datasets or methods of the study."""
        return self.request[kind]

    def unlicensed(self, kind: str) -> list[str]:
        """Names of those without a licence in the configuration."""
        return [name for name, entry in self.used(kind).items() if "licence" not in entry]

    def curves(self) -> dict[tuple, list[dict]]:
        """(model, dataset, method, rank) -> its training runs."""
        cells = [one["request"]["cell"] for one in self.runs]
        keys = [
            tuple(cell[name] for name in ("model", "dataset", "method", "rank")) for cell in cells
        ]
        return {
            key: [one for one, own in zip(self.runs, keys, strict=True) if own == key]
            for key in dict.fromkeys(keys)
        }


def source(entry: dict) -> str:
    """Where a model or dataset comes from, as its entry says: revision, SHA-256 or seed."""
    where = entry.get("weights", entry)
    if "hub" in where:
        hub = (
            where["hub"]
            if isinstance(where["hub"], dict)
            else {"repo": where["hub"], "revision": where["revision"]}
        )
        return f"hub, {hub['repo']} at {hub['revision']}"
    if "files" in where:
        folder = where["files"] if isinstance(where["files"], str) else where["files"]["folder"]
        sums = [
            where.get("sha256"),
            *(split.get("sha256") for split in entry.get("splits", {}).values()),
        ]
        return (
            f"files in {folder}, SHA-256 {', '.join(dict.fromkeys(filter(None, sums))) or UNKNOWN}"
        )
    if "generated" in entry:
        return f"generated, {entry['generated']['kind']}, seed {entry['generated']['seed']}"
    return (
        f"pre-trained here on {where['pretrain']['dataset']}"
        if "pretrain" in where
        else "shapes only, no weights"
    )


def table(heads: tuple[str, ...], rows: Iterable[tuple]) -> list[str]:
    """A pipe table, and the empty line after it."""
    texts = [[str(value).replace("|", r"\|").replace("\n", " ") for value in row] for row in rows]
    return [*(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *texts]), ""]


def listed(values: Iterable[object], none: str = UNKNOWN) -> str:
    """`a, b, c`."""
    return ", ".join(map(str, values)) or none
