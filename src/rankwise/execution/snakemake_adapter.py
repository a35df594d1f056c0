"""Every place where Rankwise relies on Snakemake's internals, and the versions it was tried on.

Snakemake's documented interface covers rules, not the questions that a workflow asks about its
own run: which limit the user gave for a resource, which jobs will run, what a group of jobs is
called. The rules ask those questions here, and nowhere else, so that a new Snakemake release is
checked by reading one file. A release outside of the tested range is refused.

Tried on Snakemake 9.27.1. `workflow` is the object of that name in a Snakefile.

Snakemake itself is imported where it is used, because that takes a second.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rankwise.execution import locks
from rankwise.execution.announcements import Brief

TESTED_FROM, TESTED_BELOW = (9, 27), (9, 28)


class UntestedSnakemake(RuntimeError):
    """The installed version of Snakemake is outside of the tested range."""


def check_version(version: str | None = None) -> None:
    """Refuse a Snakemake that this module was not tried on.

    Args:
        version: A version such as `9.27.1`; the installed one if not given.

    Raises:
        UntestedSnakemake: The message names the version and the tested range.
    """
    version = version or metadata.version("snakemake")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not TESTED_FROM <= numbers < TESTED_BELOW:
        lowest, limit = (".".join(map(str, bound)) for bound in (TESTED_FROM, TESTED_BELOW))
        raise UntestedSnakemake(
            f"snakemake: version: got {version}, allowed: {lowest} or newer and older than "
            f"{limit}, the range that Rankwise was tested with (pip install -r envs/report.lock)"
        )


# The command line ---------------------------------------------------------------------------------


def command_line() -> list[str]:
    """The words of Snakemake's command line, without the program."""
    return sys.argv[1:]


def sets_resources() -> bool:
    """Whether the command line gives limits of resources: `--resources` or a prefix of it."""
    return any(word.startswith("--res") for word in sys.argv)


def deployment_methods(workflow: Any) -> set[str]:
    """Names of the methods given by `--software-deployment-method`: CONDA, APPTAINER."""
    return {method.name for method in workflow.deployment_settings.deployment_method}


def config_file(workflow: Any) -> list[str]:
    """The file that holds the study: from `--configfile`, else from a `configfile:` directive.

    Empty if the workflow takes its own default.
    """
    given = [*workflow.overwrite_configfiles] or [*workflow.configfiles]
    return [str(given[-1])] if given else []


def runs_locally(workflow: Any) -> bool:
    """Whether this process starts jobs on this machine: not on a cluster or its nodes."""
    return workflow.is_main_process and workflow.resource_settings.nodes is None


def replace_targets(workflow: Any, replacements: dict[str, str]) -> None:
    """Ask for other files than the command line does: target -> the file that is meant.

    Snakemake knows the targets only after it has read the rules, so they are replaced just before
    it builds its graph of jobs.
    """
    prepare = workflow._prepare_dag

    def replaced(names: Iterable[str]) -> frozenset[str]:
        return frozenset(replacements.get(name, name) for name in names)

    def prepare_with_replaced_targets(*arguments: Any, **options: Any) -> None:
        settings = workflow.dag_settings
        settings.targets = replaced(settings.targets)
        settings.forcerun = replaced(settings.forcerun)
        settings.until = replaced(settings.until)
        settings.omit_from = replaced(settings.omit_from)
        prepare(*arguments, **options)

    workflow._prepare_dag = prepare_with_replaced_targets


def uses_storage(workflow: Any) -> bool:
    """Whether files lie in an object store, and not in folders."""
    return bool(workflow.storage_settings.default_storage_provider)


# Where the workflow lies --------------------------------------------------------------------------


def folder(workflow: Any) -> Path:
    """The folder of the Snakefile or .smk file that is being read.

    `workflow.basedir` is the folder of the user's Snakefile, which is another one where this
    workflow is used as a module.
    """
    return Path(workflow.current_basedir.get_path_or_uri(secret_free=True))


def on_start(workflow: Any, check: Callable[[], None]) -> None:
    """Call `check` before the first job, then the handler that the workflow had.

    The directive `onstart:` does not do: Snakemake ignores it in a workflow that is used as a
    module.
    """
    previous = workflow._onstart

    def handler(log: str) -> None:
        check()
        previous(log)

    workflow._onstart = handler


def answer_signals(workflow: Any) -> None:
    """Let SIGTERM and Ctrl-C end Snakemake at any moment.

    Its handler takes the lock of the scheduler, and the main thread holds that lock while it
    selects jobs. The lock cannot be taken twice, so a signal at that moment made Snakemake wait for
    ever. With a lock that its own thread may take again, the handler goes on.
    """

    def replace_lock() -> None:
        workflow.scheduler._lock = threading.RLock()

    on_start(workflow, replace_lock)


def on_error(workflow: Any, report: Callable[[], None]) -> None:
    """Call `report` after the last job if a job failed, then the handler that the workflow had.

    It is not called if the user stopped the run, by Ctrl-C (jobs are still running) or by SIGTERM.
    As with `on_start`, the directive does not do. Snakemake still holds its lock.
    """
    previous = workflow._onerror

    def handler(log: str) -> None:
        scheduler = workflow.scheduler
        if scheduler.failed and not scheduler.running and not scheduler._user_kill:
            report()
        previous(log)

    workflow._onerror = handler


# The lock on the working directory ----------------------------------------------------------------


def on_lock(workflow: Any, run: locks.Run) -> None:
    """Say which run of Snakemake holds the lock on the working directory, if another one does.

    Snakemake makes its lock with its graph of jobs, and says only that there is one. A run that
    takes no lock (`--dry-run`, `--nolock`) is left alone.

    Args:
        workflow: Snakemake's workflow.
        run: This run.
    """
    prepare = workflow._prepare_dag

    def prepare_with_a_named_lock(*arguments: Any, **options: Any) -> None:
        prepare(*arguments, **options)
        if options.get("nolock") or options.get("lock_warn_only"):
            return
        persistence = workflow.persistence
        take = persistence.lock

        @contextmanager
        def take_or_name_the_holder() -> Iterator[None]:
            from snakemake.exceptions import LockException  # noqa: PLC0415

            try:
                lock = take()
                lock.__enter__()
            except LockException:
                sys.exit(run.refusal())  # an exception would be shown with lines of source
            with run.noted():
                try:
                    yield
                finally:
                    lock.__exit__(None, None, None)

        persistence.lock = take_or_name_the_holder

    workflow._prepare_dag = prepare_with_a_named_lock


# The terminal -------------------------------------------------------------------------------------


def announce_briefly(workflow: Any, titles: Mapping[str, str]) -> None:
    """Let the terminal have a line or two for each job, unless it is to have everything.

    It has everything with `--verbose` or `--printshellcmds`.

    A logger plugin would have to be installed and chosen in a profile. The formatter of the handler
    that Snakemake has set up already is replaced instead, so that a clone, a wheel and a workflow
    that uses this one as a module say the same.

    Args:
        workflow: Snakemake's workflow.
        titles: First output of a job -> what the job computes, in a few words.
    """
    settings = workflow.output_settings
    if settings.verbose or settings.printshellcmds:
        return
    for handler in workflow.logger_manager.logger.handlers:
        if handler.name == "DefaultStreamHandler":
            handler.setFormatter(Brief(handler.formatter, titles, lambda: workflow.dryrun))


# Resources ----------------------------------------------------------------------------------------


def gpu_limits(workflow: Any) -> tuple[int | None, dict[str, object]]:
    """The limit that `--resources gpu` gives, and the `gpu` that `--set-resources` gives rules."""
    settings = workflow.resource_settings
    limit = settings._parsed_resources.get("gpu")
    overrides = settings._parsed_overwrite_resources
    by_rule = {rule: values["gpu"].raw for rule, values in overrides.items() if "gpu" in values}
    return (limit.value if limit else None), by_rule


def drop_gpu_limit(workflow: Any) -> None:
    """Forget the limit of the resource `gpu`, which profiles/default sets for one machine.

    Snakemake reads that profile also where `--profile` names a cluster's.
    """
    workflow.global_resources._data.pop("gpu", None)


# Jobs and submissions -----------------------------------------------------------------------------


def pending_files(workflow: Any) -> list[str]:
    """Every file that the jobs that will run write."""
    return [str(file) for job in workflow.dag.needrun_jobs() for file in job.output]


def submissions(workflow: Any) -> set[Any]:
    """The submissions to the cluster: groups of jobs, and jobs without a group."""
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    return {workflow.dag.get_job_group(job) or job for job in jobs}


def name_group(workflow: Any, group: str, name: str) -> None:
    """Name a group as `group-components` of a profile does."""
    workflow.parent_groupids[group] = name


def submission_name(workflow: Any, submission: Any) -> str:
    """A rule's name, or the name that all groups of a kind share."""
    if submission.is_group():
        return workflow.parent_groupids.get(submission.groupid, submission.groupid)
    return submission.rule.name


def temporary_folders(rules: Iterable[Any]) -> set[str]:
    """The resource `tmpdir` of each rule as it was given; only a node can evaluate it."""
    return {str(rule.resources.get("tmpdir").raw).strip("'") for rule in rules}


def leave_groups(rules: Iterable[Any]) -> None:
    """Let jobs run without groups on one machine, where a group is no submission.

    Snakemake's time grows with the square of the number of groups that are ready.
    """
    for rule in rules:
        rule.group = None


def share_resources(
    workflow: Any, names: Iterable[str], resource: Callable[[str, Any], Callable]
) -> None:
    """Give every rule the cluster's resources.

    Snakemake takes a rule's resources when it reads the rule. They depend here on the executor's
    vocabulary, which is known once for all rules, so they are set after the rules were read.

    Args:
        workflow: Snakemake's workflow.
        names: The resources to set. One that a rule or the command line sets already stays, except
            `gpu`, which is translated.
        resource: Makes the value of a resource from its name and the rule's own `gpu`.
    """
    for rule in workflow.rules:
        gpus = rule.resources.get("gpu")
        for name in names:
            if name == "gpu" or name not in rule.resources:
                rule.resources[name] = resource(name, gpus)
        # A text must be the same in all jobs of a submission.
        rule.resources.setdefault("gpu_memory_gib", "0")
        # The jobs of a submission run one after another, so it needs what its largest job needs.
        rule.resources["turn"] = 1
    workflow.register_resource("turn", 1)
    workflow.resourcescope(turn="local")
