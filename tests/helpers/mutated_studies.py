"""A small clone with two studies and few entries, and mutations of its YAML files.

The clone has its own `config/`, so that one planning takes milliseconds. A mutation changes one
place of one file: a value, a key, or the text itself. `said` plans the mutated study through the
public interface, and returns the sentences that it is refused with.
"""

import contextlib
import copy
import datetime
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import yaml
from hypothesis import strategies as st

from helpers.repository import ROOT
from rankwise.checks import preflight
from rankwise.core import source_facts
from rankwise.core.config import ConfigError
from rankwise.core.safetensors_files import weights_sha256
from rankwise.study.jobs import planned_jobs, result_jobs
from rankwise.study.plan import read_plan

# Of one planning, in seconds: of the processor, for the machine may be busy, and by the clock, for
# what waits.
LIMITS = {"processor": 10, "clock": 60}
ENTRIES = {
    "methods": ["full", "head_only", "frozen", "lora", "rsvd", "lisa", "vlorp", "prompt_tuning", "lora_int8", "lomo", "mezo", "lora_fa"],
    "models": ["tiny", "tiny_decoder", "distilbert", "llama_3_2_1b"],
    "datasets": ["generated_reviews", "generated_text", "generated_prompts", "generated_sums", "sst2", "sst2_files", "wikitext2", "commonsense_15k"],
    "claims": ["a_optimizer_memory_adamw", "a_optimizer_memory_rsvd"],
    "evaluations": ["boolq", "piqa", "small_arithmetic", "boolq_pattern", "boolq_files"],
}  # fmt: skip
OF_FILES = {
    "family": "distilbert",
    "hidden_size": 64,
    "max_positions_tokens": 64,
    "architecture": {
        "vocab_size": 96,
        "max_position_embeddings": 64,
        "n_layers": 2,
        "n_heads": 4,
        "dim": 64,
        "hidden_dim": 128,
    },
    "modules": {
        "query": {"name": "q_lin", "shape": [64, 64]},
        "value": {"name": "v_lin", "shape": [64, 64]},
    },
    "head": {"classification": ["pre_classifier", "classifier"]},
}
STUDIES = {
    "config/first.yaml": """
name: first
question: What do LoRA and rSVD keep?
device: cpu
environment: cpu
cpu_threads: 1
disk_gib: 0.001
reference: {method: full}
equivalence: {accuracy_fraction: 0.02}
schedule: {epochs: 2, batch_size: 16, warmup_fraction: 0.1, max_gradient_norm: 1.0}
override: {rsvd: {optimizer: {interval_steps: 50, oversample: 4}}}
train:
  - models: [tiny, of_files]
    datasets: [generated_reviews]
    methods: [full, lora]
    ranks: [2, 8]
    seeds: [0, 1]
    keep: none
    override: {lora: {learning_rate: 5.0e-3, options: {alpha: 16, dropout: 0.1}}}
    variants:
      fast: {override: {lora: {learning_rate: 5.0e-2}}, label: fast one}
      long: {schedule: {epochs: 4}}
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [rsvd]
    seeds: [0]
    search: {learning_rate_factors: [0.3, 1], seeds: [2], schedule: {updates: 10}}
profile:
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [full, lora, lisa, lora_int8]
    measurements: [memory, flops, ledger, fits]
    memory_gib: [16, 24.5]
    batch_size: 8
  - models: [distilbert]
    datasets: [sst2]
    methods: [vlorp, prompt_tuning]
    ranks: [16]
    measurements: [forward, throughput]
    batch_sizes: [1, 2]
    lengths_tokens: [16, 32]
    variants: {wide: {settings: {batch_size: 64}}}
""",
    "config/second.yaml": """
name: second
question: What do small decoders keep?
device: cpu
model: tiny_decoder
data: generated_prompts
share: false
tracker: none
schedule: {updates: 40, eval_batch_size: 100, evaluate_every_updates: 10, precision: fp32}
train:
  - {methods: [lora, frozen], ranks: [8], seeds: [0], keep: adapter}
evaluate:
  - {tasks: [small_arithmetic, boolq], limit: 20, methods: [lora]}
profile:
  - {methods: [full, lomo, mezo], measurements: [ledger], precision: bf16, attention: eager, padded: true}
""",
}
# What people, editors and attackers write in place of a value.
VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 3.0, 2.5, -0.0, 1e-300, 1e300, 10**6, 2**31, 2**32, 2**63, 10**40, 10**400,
    float("nan"), float("inf"), float("-inf"), "", " ", "all", "auto", "null", "2e-4", "none", "x", "lora", "tiny",
    "..", ".", "../x", "/etc/passwd", "~", "~/x", "a/b", "-x", ".x", "x.", "a b", "a\nb", "a\tb", "\0", "\x1b[2J", "é", "名", "\ud7ff",
    "$HOME", "${HOME}", "${NOT_SET}", "{{x}}", "{x}", "{", "<script>alert(1)</script>", "=1+1", "x" * 64, "x" * 65, "x" * 200_000,
    "rankwise.optim.adamw:AdamW", "os:system", "torch.optim:SGD", "(", "[", "*", "a|b", "(?P<x>",
    [], [[]], [None], [0], [1, 1], ["x"], [1.5], [True], [{}], list(range(50)), {}, {"x": 1}, {"module": "adamw"}, {"__use_yte__": True},
    {1: 2}, {None: None}, {True: 1}, datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31, 1, 2), b"x",
    {"a": {"b": {"c": {"d": [1, {"e": 2}]}}}},
]  # fmt: skip
KEYS = [
    "x", "", " ", "__use_yte__", "trust_remote_code", "auto_map", "learning_rate", "rank", "name", "module", "../x", "a/b", "a.b", "A", "<b>",
    "n_layer", "n_layers", "key\nline", "x" * 65, "x" * 5000, 1, 1.5, None, True, "=1", "@x", "lora@x",
]  # fmt: skip
# Texts that stand somewhere in a YAML file and should not.
TEXTS = [
    b"\t", b"\r", b"\0", b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b": ", b"- ", b"#", b"'", b'"', b"{", b"}", b"[", b"]", b"&a ", b"*a ",
    b"!!python/object/apply:os.system [id]\n", b"!!set {a, b}", b"!!binary x", b"!!float x", b"!!int 0x", b"!!timestamp x", b"!x y", b"%YAML 9.9\n",
    b"---\n", b"...\n", b"<<: 1\n", b"<<: {name: x}\n", b"? [a]\n: b\n", b"\xe2\x80\xa8", b"\x85", b"__use_yte__: true\n", b"1:30", b"0o17", b"0x1F", b"1_000", b"~", b"=",
    b"[" * 2000, b"{a: " * 500, b"-" * 500 + b" x\n", b"9" * 5000, b"a: &a [x]\nb: &b [*a,*a]\n",
]  # fmt: skip


def write_clone(folder: Path) -> Path:
    """A clone with the studies, the entries that they may name, a model's folder, and rows."""
    sys.path.insert(0, str(ROOT / "docs/generate"))
    try:
        import small_models
    finally:
        sys.path.pop(0)
    for name in (
        "workflow_scripts",
        "envs",
        "src",
        "rules",
        "profiles",
        "docker",
        "Snakefile",
        "pyproject.toml",
    ):
        (folder / name).symlink_to(ROOT / name)
    small_models.write(folder / "models")
    if (ROOT / source_facts.KEPT).is_file():
        (folder / source_facts.KEPT).parent.mkdir(parents=True)
        shutil.copy(ROOT / source_facts.KEPT, folder / source_facts.KEPT)
    (folder / "config").mkdir()
    for name, content in contents(folder).items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """The clone's YAML files and their right texts."""
    texts = dict(STUDIES)
    for kind, names in ENTRIES.items():
        entries = yaml.safe_load((ROOT / f"config/{kind}.yaml").read_text(encoding="utf-8"))
        chosen = {name: entries[name] for name in names}
        if kind == "models":
            weights = {"files": "models/right", "sha256": weights_sha256(folder / "models/right")}
            chosen["of_files"] = {**copy.deepcopy(OF_FILES), "weights": weights}
        texts[f"config/{kind}.yaml"] = _dumped(chosen).decode()
    return texts


# Mutations ----------------------------------------------------------------------------------------


def mutations(texts: dict[str, str], files: list[str]) -> st.SearchStrategy[tuple[str, bytes]]:
    """(File, its mutated content): one or two changes of one of `files`."""
    return st.sampled_from(files).flatmap(
        lambda file: st.tuples(
            st.just(file), st.one_of(_changed_values(texts[file]), _changed_text(texts[file]))
        )
    )


@st.composite
def _changed_values(draw: st.DrawFn, text: str) -> bytes:
    """A content in which a value or key is another one, is away, or stands twice."""
    tree = yaml.safe_load(text)
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        _change(draw, holder, key)
    return _dumped(tree)


def _change(draw: st.DrawFn, holder: dict | list, key: object) -> None:
    deed = draw(st.sampled_from(["value", "value", "value", "near", "remove", "key", "add"]))
    if deed == "value":
        holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif deed == "near":
        holder[key] = _near(draw, holder[key])
    elif deed == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(draw(st.sampled_from([*VALUES, *holder]))))
    else:
        value = holder.pop(key) if deed == "key" else copy.deepcopy(draw(st.sampled_from(VALUES)))
        new = draw(st.sampled_from([*KEYS, _misspelt(draw, str(key))]))
        holder[new] = value


def _near(draw: st.DrawFn, value: object) -> object:
    """A value much like the right one: its type, its number, a letter."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return draw(st.sampled_from([float(value), value + 0.5, -value, str(value), value * 10**9]))
    if isinstance(value, float):
        return draw(st.sampled_from([-value, value * 1e6, str(value), int(value)]))
    if isinstance(value, str):
        return draw(st.sampled_from([_misspelt(draw, value), [value], value.upper(), f"{value} "]))
    return draw(st.sampled_from([[value], {"x": value}, str(value), None]))


def _misspelt(draw: st.DrawFn, word: str) -> str:
    place = draw(st.integers(0, max(len(word) - 1, 0)))
    return draw(
        st.sampled_from([word[:place] + word[place + 1 :], word[:place] + "x" + word[place:]])
    )


@st.composite
def _changed_text(draw: st.DrawFn, text: str) -> bytes:
    """A content with bytes put in, a line away or twice, or cut."""
    data = text.encode()
    lines = data.splitlines(keepends=True)
    line = draw(st.integers(0, len(lines) - 1))
    deed = draw(st.sampled_from(["insert", "insert", "line", "remove", "twice", "cut"]))
    if deed == "insert":
        place = draw(st.integers(0, len(data)))
        return data[:place] + draw(st.sampled_from(TEXTS)) + data[place:]
    if deed == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if deed == "line":
        return b"".join([*lines[:line], draw(st.sampled_from(TEXTS)), *lines[line:]])
    return b"".join(
        [*lines[:line], *(lines[line : line + 1] * 2 * (deed == "twice")), *lines[line + 1 :]]
    )


def _places(node: object) -> Iterator[tuple[dict | list, object]]:
    """Every (mapping or list, key or index) of a tree."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def _dumped(tree: object) -> bytes:
    return yaml.dump(tree, allow_unicode=True, sort_keys=False, Dumper=_Dumper).encode(
        "utf-8", "surrogatepass"
    )


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and integers of any length."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _integer(dumper: yaml.SafeDumper, value: int) -> yaml.Node:
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return dumper.represent_scalar("tag:yaml.org,2002:int", str(value))
    finally:
        sys.set_int_max_str_digits(digits)


_Dumper.add_representer(int, _integer)


# Planning -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def mutated(clone: Path, file: str, content: bytes) -> Iterator[None]:
    """The clone with another content of one file."""
    path = clone / file
    right = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(right)


class Hangs(Exception):
    """Planning took longer than `LONGEST_S`."""


def said(clone: Path, study: str) -> list[str]:
    """The sentences that a study of the clone is refused with; none if its plan is valid.

    Every request and path of a valid plan is made, and what its jobs would lack is looked at.

    Raises:
        Hangs: It takes too long.
    """
    with contextlib.chdir(clone), _limit(LIMITS):
        try:
            plan = read_plan(clone, study)
            for job in planned_jobs(plan):
                assert job.path and job.request, job
        except ConfigError as error:
            return [str(error)]
        jobs = result_jobs(plan)
        return [
            line for kind in ("files", "models") for line in preflight.lacking(kind, jobs, plan)
        ]


@contextlib.contextmanager
def without_limit() -> Iterator[None]:
    """For the first planning, which reads every source."""
    before = dict(LIMITS)
    LIMITS.update(processor=600, clock=600)
    try:
        yield
    finally:
        LIMITS.update(before)


@contextlib.contextmanager
def _limit(limits: dict[str, int]) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hangs

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, limits["processor"])
    signal.setitimer(signal.ITIMER_REAL, limits["clock"])
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
