"""Strike a running study again and again, at random moments, and finish it after every strike.

A struck run keeps what it has; the next strike hits the run that goes on from there. When a run
ends well, all its files are compared with those of a run that nothing struck, and the study begins
anew. So a strike costs a part of a run, and strikes hit every stage of the study.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults import clone, processes
from faults.processes import Process

KILLS, STOPS, SEED = 50, 20, 19  # as the test suite and the benchmark strike
KILLED = (*processes.ROLES, "all")  # in turn
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}  # in turn
ORPHANS_AFTER_S = 10
RUN_LIMIT_S = 600
MAX_FAILURES = 5  # of Snakemake, before the suite gives up
MAX_MISSES = 5  # runs that end before a strike's moment, before the suite gives up
REMEMBERED = re.compile(r"results/\.cache/(sha256/[0-9a-f]+|sound)\.json")


@dataclass
class Undisturbed:
    """What a run that nothing struck has made, and how long it took."""

    fingerprints: dict[str, str]
    files: frozenset[str]
    duration_s: float


@dataclass
class Strike:
    """One strike and what came of it.

    Attributes:
        kind: The signal.
        target: What it was sent to.
        moment_s: When, in seconds after the first process of that kind was seen.
        finished: How many results were complete at that moment.
        orphans: Processes that lived 10 s longer than they should have.
        computed_again: Finished results that were written again later.
        started_again: Finished results whose job was started again, and found its result.
    """

    kind: str
    target: str
    moment_s: float
    finished: int = 0
    orphans: list[str] = field(default_factory=list)
    computed_again: list[str] = field(default_factory=list)
    started_again: list[str] = field(default_factory=list)


@dataclass
class Ended:
    """A study that was struck and then ended well.

    Attributes:
        strikes: How many strikes it has had.
        unequal: Files whose content differs from the undisturbed run's, or that are missing.
        left: Files and folders that the undisturbed run has not.
    """

    strikes: int
    unequal: list[str]
    left: list[str]


@dataclass
class Report:
    """All strikes, and all studies that ended after them.

    Attributes:
        strikes: In order.
        ended: In order.
        failures: What Snakemake said where it ended badly, although nothing had struck it.
        left: Processes that lived 10 s after the last run, servers too.
    """

    strikes: list[Strike] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def rows(self) -> dict:
        """As JSON."""
        return asdict(self)


# Before and after ---------------------------------------------------------------------------------


def all_files(root: Path) -> frozenset[str]:
    """Every file and folder under results/, except what is remembered of files.

    Only files that are old enough are remembered, so their number varies.
    """
    names = (str(path.relative_to(root)) for path in (root / "results").rglob("*"))
    return frozenset(name for name in names if not REMEMBERED.fullmatch(name))


def run_undisturbed(root: Path, reset: Callable[[Path], None] = clone.reset) -> Undisturbed:
    """Run the study to its end, from nothing, and remove all that it has made by `reset`."""
    start = time.monotonic()
    done = clone.run(root)
    assert done.returncode == 0, done.stderr[-5000:]
    duration_s = time.monotonic() - start
    made = Undisturbed(clone.fingerprints(root), all_files(root), duration_s)
    reset(root)
    return made


def compare(root: Path, undisturbed: Undisturbed, strikes: int) -> Ended:
    """Compare a study that ended well with the undisturbed one."""
    found = clone.fingerprints(root)
    names = sorted({*found, *undisturbed.fingerprints})
    unequal = [name for name in names if found.get(name) != undisturbed.fingerprints.get(name)]
    return Ended(strikes, unequal, sorted(all_files(root) - undisturbed.files))


# The strikes --------------------------------------------------------------------------------------


def planned(kills: int, stops: int, generator: random.Random) -> list[Strike]:
    """Strikes on all targets, equally often, in a random order.

    Their moments are fractions of a third of a run's duration, since a study has several strikes.
    """
    drawn = []
    for number in range(kills):
        drawn.append(Strike("SIGKILL", KILLED[number % len(KILLED)], generator.random()))
    for number in range(stops):
        drawn.append(Strike(list(SIGNALS)[number % len(SIGNALS)], "snakemake", generator.random()))
    generator.shuffle(drawn)
    return drawn


def strike_all(root: Path, undisturbed: Undisturbed, strikes: Iterable[Strike]) -> Report:
    """Strike the study as planned, and finish it.

    Args:
        root: The clone, without results.
        undisturbed: What the study must give.
        strikes: `moment_s` is a fraction of a third of a run, and becomes the seconds.
    """
    report = Report()
    study = Study(root, undisturbed, report)
    for strike in strikes:
        strike.moment_s = round(strike.moment_s * undisturbed.duration_s / 3, 3)
        for _ in range(MAX_MISSES):
            if study.struck(strike):
                break
            strike.moment_s /= 2  # the run was quicker than the undisturbed one
        else:
            raise AssertionError(f"no process to strike in {MAX_MISSES} runs: {strike}")
    while study.strikes or study.run:
        study.go_on()
    report.left = names_of(processes.left(root, lambda _: True, ORPHANS_AFTER_S))
    return report


class Study:
    """One study after the other, each struck until it ends well. A killed job is started again
    by the Snakemake that runs. Where Snakemake itself was struck, the next strike starts it anew.
    """

    def __init__(self, root: Path, undisturbed: Undisturbed, report: Report):
        self.root = root
        self.undisturbed = undisturbed
        self.report = report
        self.run: subprocess.Popen | None = None
        self.is_stopped = False  # whether a strike has hit the Snakemake that runs
        self.strikes: list[Strike] = []  # those that this study has had
        self.finished: list[tuple[Strike, dict, dict]] = []

    def struck(self, strike: Strike) -> bool:
        """Run the study and strike it; False if it ended before there was anything to strike."""
        self._start()
        victims = wait_for_victims(self.root, self.run, strike)
        if not victims:
            self._end()
            return False
        finished = clone.results(self.root)
        strike.finished = len(finished)
        logs = log_times(self.root, finished)
        orphans = send(strike, self.root, self.run, victims)
        self.finished.append((strike, finished, logs))
        self.strikes.append(strike)
        self.report.strikes.append(strike)
        strike.orphans += names_of(processes.orphans(self.root, orphans, ORPHANS_AFTER_S))
        self.is_stopped = strike.target in ("snakemake", "all")
        if self.is_stopped:
            self._end()
        return True

    def go_on(self) -> None:
        """Let the study end, or run it without a strike."""
        self._start()
        self._end()

    def _start(self) -> None:
        if self.run is None:
            self.run, self.is_stopped = clone.start(self.root), False

    def _end(self) -> None:
        """Wait for Snakemake's end, and for that of all its processes."""
        status = self.run.wait(RUN_LIMIT_S)
        self.run = None
        left = processes.orphans(self.root, lambda _: True, ORPHANS_AFTER_S)
        if left:
            struck = self.strikes[-1].orphans if self.strikes else self.report.failures
            struck += names_of(left)
            processes.kill(left)
        if status == 0:
            self._ended()
        elif not self.is_stopped:
            self.report.failures.append(clone.said(self.root))
            assert len(self.report.failures) < MAX_FAILURES, self.report.failures
        unlock(self.root)

    def _ended(self) -> None:
        """The study is complete: compare it, and begin anew."""
        now = clone.results(self.root)
        for strike, finished, logs in self.finished:
            strike.computed_again = [name for name in finished if now.get(name) != finished[name]]
            times = log_times(self.root, finished)
            strike.started_again = [name for name in finished if times[name] != logs[name]]
        self.report.ended.append(compare(self.root, self.undisturbed, len(self.strikes)))
        self.strikes, self.finished = [], []
        clone.reset(self.root)


def names_of(found: list[Process]) -> list[str]:
    return [f"{one.role}, which writes to {one.log}" for one in found]


def wait_for_victims(root: Path, run: subprocess.Popen, strike: Strike) -> list[Process]:
    """Wait for a strike's moment, and then for a process that it may hit.

    Returns:
        The processes to strike; none if the run ended before.
    """
    seen_at = None
    while run.poll() is None:
        victims = [p for p in processes.of_clone(root) if strike.target in ("all", p.role)]
        if strike.target == "all" and not any(p.role == "trainer" for p in victims) and not seen_at:
            victims = []  # there is more than Snakemake only once jobs run
        if victims and seen_at is None:
            seen_at = time.monotonic()
        if victims and time.monotonic() - seen_at >= strike.moment_s:
            return victims if strike.target == "all" else victims[:1]
        time.sleep(processes.PAUSE_S)
    return []


def send(
    strike: Strike, root: Path, run: subprocess.Popen, victims: list[Process]
) -> Callable[[Process], bool]:
    """Send a strike's signal. Ctrl-C reaches every process of the terminal's group.

    Returns:
        Which processes must not outlive the victims, although Snakemake goes on: the jobs of a
        caller or of a server.
    """
    living = processes.of_clone(root)
    if strike.kind == "SIGKILL":
        processes.kill(victims)
    elif strike.kind == "SIGINT":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
    else:
        run.send_signal(SIGNALS[strike.kind])
    trainers = [one for one in living if one.role == "trainer"]
    if strike.target == "caller":
        logs = {victim.log for victim in victims}
        trainers = [one for one in trainers if one.log in logs]
    elif strike.target != "server":
        trainers = []
    numbers = {one.pid for one in trainers}
    return lambda one: one.pid in numbers


def unlock(root: Path) -> None:
    """Do what `snakemake --unlock` does, without the seconds that it takes to plan."""
    shutil.rmtree(root / ".snakemake/locks", ignore_errors=True)


def log_times(root: Path, finished: Iterable[str]) -> dict[str, int | None]:
    """When the log of each finished result's job was last written; it is named by the digest."""
    times = {}
    for name in finished:
        logs = list((root / "logs").rglob(f"{Path(name).parent.name}.log"))
        times[name] = logs[0].stat().st_mtime_ns if logs else None
    return times
