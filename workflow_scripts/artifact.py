"""Write the reproducibility checklist and the artifact appendix."""

from rankwise.execution.job import document
from rankwise.report.artifact import artifact

if __name__ == "__main__":
    document(artifact)
