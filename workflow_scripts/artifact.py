"""Write the reproducibility checklist and the artifact appendix."""

from rankwise.execution.job import produce
from rankwise.report.artifact import artifact

if __name__ == "__main__":
    produce(artifact)
