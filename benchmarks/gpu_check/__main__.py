"""Check predictions on this machine's GPU, within a few minutes.

    make gpu-check
    make gpu-check REHEARSE=1        # on a CPU with tiny models: the same code

Writes {device}.json and {device}.md into benchmarks/gpu, or a rehearsal's into results/gpu_check.
"""

import argparse
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu_check import machine, standins
from benchmarks.gpu_check.plan import PARTS, Part
from benchmarks.gpu_check.report import Report
from benchmarks.gpu_check.runner import Settings, run_part

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "transformers", "peft", "accelerate", "psutil", "yaml")
# Imported once, before any process of a part is forked. None of them may start CUDA.
PRELOADED = ("torch", "transformers", "peft", "accelerate")
RESERVE_S = 10.0  # of all minutes, kept for the end


def main() -> None:
    """Run all parts that were asked for, and write the report as they go."""
    given = _arguments()
    started = time.monotonic()
    missing = machine.missing(NEEDED)
    if missing:
        sys.exit(
            f"gpu-check: {sys.executable}: got no {', '.join(missing)}; allowed: a Python with "
            f"{', '.join(NEEDED)}; choose another one with `make gpu-check PYTHON=...`"
        )
    # torch then asks the driver's library whether there is a GPU, and starts no CUDA in this
    # process, whose forks could not use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("RANKWISE_ENVIRONMENT", "recorded")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.chdir(ROOT)
    stood_in = standins.install()
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="gpu_check.") as scratch:
        settings = Settings(given.rehearse, given.logs.resolve(), Path(scratch))
        settings, facts = _machine(settings)
        ends_at = started + 60 * given.minutes - RESERVE_S
        report = Report(given.output or _folder(given.rehearse), facts, stood_in, PARTS)
        try:
            _run_all(given.parts, settings, report, ends_at)
        finally:
            report.end(time.monotonic() - started)
            print(f"{report.markdown}: written after {time.monotonic() - started:.0f} s")


def _run_all(names: list[str], settings: Settings, report: Report, ends_at: float) -> None:
    """Run parts one after another; what one leaves of its time goes to the later ones."""
    chosen = [part for part in PARTS if part.name in names]
    for number, part in enumerate(chosen):
        left = ends_at - time.monotonic()
        share = part.share / sum(other.share for other in chosen[number:])
        seconds = left * share
        if left < part.least_s:
            report.skip(part, f"{max(left, 0):.0f} s were left, and it needs {part.least_s} s")
            continue
        _run_one(part, settings, report, seconds)


def _run_one(part: Part, settings: Settings, report: Report, seconds: float) -> None:
    started, processor_s = time.monotonic(), _processor_s()
    report.begin(part, seconds)
    print(f"== {part.name}: {part.title}, at most {seconds:.0f} s", flush=True)

    def add(row: dict) -> None:
        report.add(part, row)
        print("  ", report.line(row), flush=True)

    ending = run_part(part.module, settings, seconds, add)
    report.finish(part, ending, time.monotonic() - started, _processor_s() - processor_s)
    if ending.reason:
        print(f"   {ending.status}: {ending.reason}", flush=True)


def _processor_s() -> float:
    """Processor seconds of all processes that this one has waited for, and of their own."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine(settings: Settings) -> tuple[Settings, dict]:
    """Describe the machine in a process of its own, and settle how processes are started.

    A fork is quick, because torch is imported already. Where CUDA does not start in it (a library
    has started CUDA here while it was imported), processes are started anew.
    """
    for method in ("fork", "spawn"):
        tried = settings._replace(start_method=method)
        rows: list[dict] = []
        ending = run_part("benchmarks.gpu_check.machine", tried, 120, rows.append)
        if rows:
            return tried, rows[0]
    sys.exit(f"gpu-check: {ending.reason}; on a machine without a GPU: make gpu-check REHEARSE=1")


def _stop(*_: object) -> None:
    """Turn SIGTERM into an exception, so that the report is finished."""
    sys.exit("gpu-check: stopped by SIGTERM")


def _folder(rehearse: bool) -> Path:
    return ROOT / ("results/gpu_check" if rehearse else "benchmarks/gpu")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.splitlines()[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART",
                        help=f"which parts: {', '.join(names)} (default: all)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (default: 9)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny models")
    parser.add_argument("--output", type=Path, help="folder of the report")
    parser.add_argument("--logs", type=Path, default=ROOT / "results/gpu_check/logs",
                        help="folder of what each part prints")  # fmt: skip
    given = parser.parse_args()
    if given.minutes <= 0:
        parser.error(f"--minutes: got {given.minutes}, allowed: more than 0")
    return given


if __name__ == "__main__":
    main()
