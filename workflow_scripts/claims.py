"""Compare published numbers with ours."""

from rankwise.job import produce
from rankwise.report.claims import claims

if __name__ == "__main__":
    produce(claims)
