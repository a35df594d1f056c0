"""`make gpu-check`: everything that only a GPU can tell, in one command of at most nine minutes.

It needs the machine's own python3 with torch, transformers, peft and accelerate, and neither a
package index nor Snakemake. Each part runs in a process of its own with a time budget. The report
is replaced after every row, so an interrupted run still counts.
"""
