"""A program called nvidia-smi that prints what the real one would print on an invented machine."""

from pathlib import Path

import pytest

# One GPU of 80 GB, on which others use 4 GiB, and one that MIG splits into two slices.
SCRIPT = """#!/bin/sh
case "$1" in
--query-gpu=uuid,name,memory.total)
    echo "GPU-aa-1, NVIDIA H100, 81559"
    echo "GPU-bb-2, NVIDIA A100, 40960";;
--query-gpu=uuid,memory.used)
    echo "GPU-aa-1, 4096"
    echo "GPU-bb-2, 1";;
--query-gpu=uuid,utilization.gpu)
    echo "GPU-aa-1, 63"
    echo "GPU-bb-2, [N/A]";;
-L)
    echo "GPU 0: NVIDIA H100 (UUID: GPU-aa-1)"
    echo "GPU 1: NVIDIA A100 (UUID: GPU-bb-2)"
    echo "  MIG 3g.20gb     Device  0: (UUID: MIG-cc-3)"
    echo "  MIG 1g.5gb+me   Device  1: (UUID: MIG-dd-4)";;
--query-compute-apps=gpu_uuid,pid,process_name)
    echo "GPU-aa-1, 77, /usr/bin/python3";;
esac
"""


def install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the program on the PATH of this test, with a folder of leases of its own."""
    program = folder / "nvidia-smi"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("RANKWISE_CARDS", raising=False)
    monkeypatch.setenv("RANKWISE_LEASES", str(folder / "leases"))
