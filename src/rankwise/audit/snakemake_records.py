"""What Snakemake remembers of a clone's files, so that a copied result counts as one that was made
there.

Snakemake keeps a record for each file in `.snakemake/metadata`. This module writes such records,
and loads Snakemake only when it does.
"""

from pathlib import Path

from rankwise.core import provenance, requests
from rankwise.study.jobs import PlannedJob


def check_idle(root: Path) -> None:
    """Check that Snakemake is not at work in a clone.

    Raises:
        ValueError: a lock is there: Snakemake is at work, or was killed.
    """
    locks = root / ".snakemake/locks"
    if any(locks.glob("*.lock")):
        raise ValueError(
            f"{locks}: Snakemake is at work here; wait, or after a crash: snakemake --unlock"
        )


class SnakemakeRecords:
    """Snakemake's records of the files of one clone.

    Raises:
        ValueError: `.snakemake` cannot be written.
    """

    def __init__(self, root: Path):
        from snakemake.persistence.file import FilePersistence  # noqa: PLC0415 - takes a second, which --help should not

        self.root = root
        try:
            self._files = FilePersistence(path=root / ".snakemake")
        except OSError as error:
            raise ValueError(
                f"{root}/.snakemake: got {error.strerror}, allowed: a folder that can be written"
            ) from None

    def forget(self, path: str) -> None:
        """Remove the record of a file: the job that made it, and whether it was interrupted."""
        from snakemake.io import IOFile  # noqa: PLC0415

        self._files.cleanup_metadata(IOFile(path))

    def write(self, job: PlannedJob, took_s: float, end_ns: int) -> None:
        """Record that `job` has just made its result.

        Args:
            job: The job. Snakemake decides by its parameters, among them the digest of the
                request, whether to rerun it. Code and inputs need no record, because the request
                holds their digests.
            took_s: Seconds that the job took where it ran.
            end_ns: When it is to have ended: the result's modification time.
        """
        from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord  # noqa: PLC0415

        record = MetadataRecord(
            rule=job.rule,
            params=requests.recorded_parameters(job.request, job.rule),
            record_format_version=RECORD_FORMAT_VERSION,
            # Snakemake's report tells jobs apart by this number.
            job_hash=int(provenance.digest(job.path)[:15], 16),
            starttime=end_ns / 1e9 - took_s,
            endtime=end_ns / 1e9,
            incomplete=False,
        )
        # Snakemake 9.27 has no public function for this.
        self._files._write_record(job.path, record)
