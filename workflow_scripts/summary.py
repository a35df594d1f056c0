"""Write the summary table of the study."""

from rankwise.analysis.summary import summarise
from rankwise.execution.job import document

if __name__ == "__main__":
    document(summarise)
