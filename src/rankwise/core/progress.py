"""Progress of a running job: lines in its log, and a small file for `rankwise status`.

The file is `results/.progress/{digest of the request}.json`. A job writes it when it starts and
every few seconds, removes it at a good end, and leaves it with the reason when it fails. So a file
whose process is gone tells of a job that was killed. Planning removes what is left beside a result
(`study/tidy.py`). Nothing here decides a number: a file that
cannot be written is left out without a word.

While a job runs, a thread writes a line whenever the log has been silent for SILENCE_S.

Standard library only.
"""

import contextlib
import json
import math
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rankwise.core import kills, paths, process_names, provenance
from rankwise.core.files import durable_write

FOLDER = paths.RESULTS / ".progress"
WRITE_EVERY_S = 5.0  # between two writes of the file by a loop
LINE_EVERY_S = 20.0  # between two lines of a loop
SILENCE_S = 30.0  # after which the thread writes a line
UNITS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))

# The values of `state` in a record.
RUNNING, FAILED, STOPPED, KILLED = "running", "failed", "stopped", "killed"

_current: "_Job | None" = None  # the job that this process runs


class _Job:
    """The job that this process runs: its record, and when its log last got a line."""

    def __init__(self, request: dict):
        digest = provenance.digest(request)
        self.file = (FOLDER / f"{digest}.json").absolute()
        now = time.time()
        self.record = {
            "request": digest,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": process_names.name(),
            "log": _log_file(),
            "state": RUNNING,
            "started": now,
            "heard": now,
            "doing": "at work",
            "numbers": {},
            "peak_resident_bytes": None,
            "oom_kills": kills.counts(),
        }
        self.doing_since = self.line_at = time.monotonic()
        self.is_silent = False
        self.start_watching()

    def start_watching(self) -> None:
        """Start the thread that writes when the log is silent."""
        self.has_ended = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self.watch_silence, daemon=True)
        self._watcher.start()

    def stop_watching(self) -> None:
        """End that thread, and wait for it."""
        self.has_ended.set()
        self._watcher.join()

    def begin(self, what: str) -> None:
        """Note what the job does from now on."""
        self.record["doing"] = what
        self.doing_since = time.monotonic()

    def write(self) -> None:
        """Replace the file atomically."""
        if self.is_silent:
            return
        with self._lock, contextlib.suppress(OSError):
            self.record["heard"] = time.time()
            self.record["peak_resident_bytes"] = kills.peak_bytes()
            with durable_write(self.file, sync=False) as part:
                part.write_text(json.dumps(self.record), encoding="utf-8")

    def watch_silence(self) -> None:
        """Write a line whenever the log has been silent for SILENCE_S, until the job ends."""
        while not self.has_ended.wait(max(0.05, self.line_at + SILENCE_S - time.monotonic())):
            now = time.monotonic()
            if now - self.line_at >= SILENCE_S:
                say(f"{self.record['doing']}: {duration(now - self.doing_since)} so far")
                self.write()

    def end(self, state: str | None, reason: str = "") -> None:
        """Remove the file, or leave it with the state in which the job ended."""
        self.has_ended.set()
        if state is None:
            with self._lock, contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)
            return
        self.record |= {"state": state, "reason": reason}
        self.write()


# The job's side -----------------------------------------------------------------------------------


@contextlib.contextmanager
def reported(request: dict) -> Iterator[None]:
    """Keep the job's file while the job runs.

    Args:
        request: The request of the job.
    """
    global _current  # noqa: PLW0603 - a process runs one job
    _current = job = _Job(request)
    job.write()
    try:
        yield
    except BaseException as error:
        job.end(*_outcome(error))
        raise
    else:
        job.end(None)
    finally:
        _current = None


@contextlib.contextmanager
def handed_over() -> Iterator[None]:
    """Leave the reports to a forked process within; no thread of ours runs while it forks."""
    if _current:
        _current.stop_watching()
    try:
        yield
    finally:
        if _current:
            _current.start_watching()


def take_over(reports: bool) -> None:
    """Go on with the job's file in a forked process.

    Args:
        reports: Whether this process reports; of several processes one does, and the others write
            no lines.
    """
    if _current and reports:
        _current.start_watching()
    elif _current:
        _current.is_silent = True


def is_job() -> bool:
    """Whether this process runs a job, or is one of a job's processes."""
    return _current is not None


def _outcome(error: BaseException) -> tuple[str | None, str]:
    """The state and the reason that an exception leaves behind; no state after a good end."""
    if isinstance(error, SystemExit) and not error.code:
        return None, ""
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, "interrupted"
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        # A job exits with a number when it was told to stop, or runs again on a whole GPU.
        return STOPPED, f"ended early with exit status {error.code}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = "" if isinstance(error, SystemExit) else type(error).__name__
    return FAILED, ": ".join(part for part in (name, lines[0] if lines else "") if part)


def say(line: str) -> None:
    """Write a line to the job's log."""
    if _current:
        if _current.is_silent:
            return
        _current.line_at = time.monotonic()
    print(line, file=sys.stderr, flush=True)


def doing(what: str) -> None:
    """Say what the job does from now on, such as `loading the model`."""
    say(what)
    if _current:
        _current.begin(what)
        _current.write()


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """Note what the job does for a while. The log says so only if that lasts."""
    if _current is None:
        yield
        return
    before = _current.record["doing"]
    _current.begin(what)
    yield
    _current.begin(before)


class Steps:
    """Reports on a loop of known length: to the file every few seconds, to the log more rarely.

    Args:
        one: The name of a step: `update`.
        many: The name of several: `updates`.
        total: How many steps the whole loop has.
        done: How many of them were made before this process began, by an interrupted run.
        numbers: Gives what else to report, by name. It is called every few seconds, because it may
            make the CPU wait for a GPU.
        is_part: The loop belongs to a step of another loop, whose numbers stay in the file.
    """

    def __init__(
        self,
        one: str,
        many: str,
        total: int,
        done: int = 0,
        numbers: Callable[[], dict[str, float]] = dict,
        is_part: bool = False,
    ):
        self.one, self.many, self.total, self.done_before = one, many, total, done
        self.numbers, self.is_part = numbers, is_part
        self.what = _current.record["doing"] if _current and is_part else ""
        self.began = self.written_at = self.line_at = time.monotonic()

    def made(self, done: int) -> None:
        """Say that `done` steps of the whole loop are made."""
        now = time.monotonic()
        if now - self.written_at < WRITE_EVERY_S:
            return
        self.written_at = now
        numbers = self.numbers()
        rate = (done - self.done_before) / (now - self.began)  # steps a second
        left_s = (self.total - done) / rate if rate else math.nan
        if _current:
            self._write(_current, done, {**numbers, f"{self.many}_per_s": rate, "left_s": left_s})
        if now - self.line_at >= LINE_EVERY_S:
            self.line_at = now
            say(self._line(done, numbers, rate, left_s))

    def _write(self, job: _Job, done: int, numbers: dict[str, float]) -> None:
        if self.is_part:
            job.record["doing"] = f"{self.what}, {self._place(done)}"
        else:
            values = {self.one: done, self.many: self.total, **numbers}
            # JSON has no nan and no infinity.
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            job.record["numbers"] = finite
        job.write()

    def _place(self, done: int) -> str:
        return f"{self.one} {done:,} of {self.total:,}"

    def _line(self, done: int, numbers: dict[str, float], rate: float, left_s: float) -> str:
        """`update 120 of 900, train_loss_nats 0.41, 8.3 updates/s, 1 min 34 s left`."""
        parts = [self.what] if self.what else []
        parts.append(self._place(done))
        parts += [f"{name} {value:.4g}" for name, value in numbers.items()]
        parts.append(f"{rate:.3g} {self.many}/s")
        if math.isfinite(left_s):
            parts.append(f"{duration(left_s)} left")
        return ", ".join(parts)


def _log_file() -> str | None:
    """The file that this process's messages go to; None if it is no file, or not known."""
    try:
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return None
        log = Path("/proc/self/fd/2").readlink()
    except OSError:
        return None
    if not log.exists():  # it was deleted, as temporary files are
        return None
    return str(log.relative_to(Path.cwd()) if log.is_relative_to(Path.cwd()) else log)


# The reader's side --------------------------------------------------------------------------------


def records(root: Path) -> dict[str, dict]:
    """The records of all jobs that have not ended well.

    Args:
        root: The project's folder.

    Returns:
        Digest of the request -> record. `started` and `heard` are seconds since 1970. `state` is
        `running`, `failed`, `stopped`, or `killed`: the job's process is gone, and said nothing;
        `reason` then says what is known of its end.
        A process on another host counts as running.
    """
    found = {}
    for file in (root / FOLDER).glob("*.json"):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it has ended meanwhile, or a disk was full
            continue
        if record["state"] == RUNNING:
            is_alive = process_names.is_alive(record["process"])
            if is_alive is False:
                record["state"] = KILLED
                peak = record.get("peak_resident_bytes")
                oom_kills = record.get("oom_kills", {})
                record["reason"] = kills.sentence(kills.GONE, record["pid"], peak, oom_kills)
        found[record["request"]] = record
    return found


def ended(root: Path) -> dict[str, Path]:
    """The files of jobs that have ended, but not well.

    Args:
        root: The project's folder.

    Returns:
        Digest of the request -> file.
    """
    found = {}
    for digest, record in records(root).items():
        if record["state"] != RUNNING:
            found[digest] = root / FOLDER / f"{digest}.json"
    return found


def duration(seconds: float) -> str:
    """A time in words: `45 s`, `1 min 34 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    for unit, size_s, smaller_unit, smaller_size_s in UNITS:
        if whole >= size_s:
            rest = whole % size_s // smaller_size_s
            words = f"{whole // size_s} {unit}"
            return f"{words} {rest} {smaller_unit}" if rest else words
    return f"{whole} s"
