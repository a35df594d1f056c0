"""Write the page that shows the study."""

from rankwise.job import produce
from rankwise.report.page import page

if __name__ == "__main__":
    produce(page)
