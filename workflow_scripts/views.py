"""Find the fronts, and what is best within each budget."""

from rankwise.job import produce
from rankwise.report.views import views

if __name__ == "__main__":
    produce(views)
