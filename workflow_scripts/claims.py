"""Compare published numbers with ours and write a verdict for each."""

from rankwise.analysis.claim_verdicts import claims
from rankwise.execution.job import document

if __name__ == "__main__":
    document(claims)
