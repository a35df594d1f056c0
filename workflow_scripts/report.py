"""Write the HTML report of the study."""

from rankwise.execution.job import document
from rankwise.report.html.build import page

if __name__ == "__main__":
    document(page)
