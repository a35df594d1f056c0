"""Compare published numbers with ours."""

from rankwise.analysis.claim_verdicts import claims
from rankwise.execution.job import produce

if __name__ == "__main__":
    produce(claims)
