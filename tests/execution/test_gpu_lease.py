"""Cards are handed out as promised: alone or within their memory, and back when the last process of a job is gone."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.execution import gpu_lease, gpus
from rankwise.execution.gpu_needs import card_need
from rankwise.execution.gpus import GIB, CardError
from rankwise.execution.lease_queue import Queue

SCHEDULES = {2: 334, 4: 333, 8: 333}


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Simulated cards of the sizes given (GiB), and a folder of leases; nvidia-smi is not asked."""

    def make(*sizes: float) -> Path:
        entries = [
            {"uuid": f"SIM-{number}", "name": "simulated", "memory_gib": size}
            for number, size in enumerate(sizes)
        ]
        (tmp_path / "cards.json").write_text(json.dumps(entries))
        monkeypatch.setenv("RANKWISE_CARDS", str(tmp_path / "cards.json"))
        monkeypatch.setenv("RANKWISE_LEASES", str(tmp_path / "leases"))
        monkeypatch.setattr(gpus, "SMI", "no-such-program")
        return tmp_path

    return make


# Real processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SCHEDULES)
def test_random_schedules_with_kills(number: int) -> None:
    """1,000 in all: never two whole leases on a card, never more bytes than it has, nobody left waiting."""
    command = [
        sys.executable,
        str(ROOT / "tests/helpers/lease_schedules.py"),
        "--cards",
        str(number),
    ]
    done = subprocess.run(
        [*command, "--schedules", str(SCHEDULES[number])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("number", SCHEDULES)
def test_small_jobs_are_packed(number: int) -> None:
    """Jobs of 1.5 GiB on cards of 8 GiB: one at a time on a whole card, up to five where it is shared."""
    command = [
        sys.executable,
        str(ROOT / "tests/helpers/lease_schedules.py"),
        "--cards",
        str(number),
        "--makespan",
        str(4 * number),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(
        f"{4 * number} jobs on {number} cards: {found['serial']['seconds']:.2f} s, packed {found['packed']['seconds']:.2f} s"
    )
    assert found["serial"]["together"] == 1
    assert 1 < found["packed"]["together"] <= 5


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_users_job_is_seen_and_outlives_no_card(pool) -> None:
    """What it leaves behind when it dies cannot be removed by others, and keeps nothing from them."""
    folder = pool(8)
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    first = gpu_lease.take(0, 1)
    assert stat.S_IMODE((folder / "leases").stat().st_mode) == 0o1777
    hear, tell = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            got = gpu_lease.take(0, 2)
            os.write(tell, b"y" if got and got.shared else b"n")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(hear, 1) == b"y"
    with Queue(folder / "leases") as queue:
        assert [job.need.memory_bytes // GIB for job in queue.jobs()] == [1, 2]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    first.release()
    whole = gpu_lease.take(1, 0)
    assert whole.environment["CUDA_VISIBLE_DEVICES"] == "SIM-0"
    whole.release()


def test_a_waiting_job_says_what_it_waits_for(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, then once in SAY_S, and when it has its card."""
    pool(8)
    monkeypatch.setattr(gpu_lease, "SAY_S", 1e9)
    first, said = gpu_lease.take(1, 0), []
    first_says = threading_release(first)
    got = gpu_lease.take(0, 1.5, say=said.append)
    first_says.join()
    assert len(said) == 2
    assert said[0].startswith("waits for 1.50 GiB of a card: ")
    assert said[0].endswith(f"(pid {os.getpid()}) has a whole card on SIM-0")
    assert said[1] == "runs on 1.50 GiB of a card: SIM-0 (simulated, 8.0 GiB)"
    got.release()


def threading_release(held: gpu_lease.Lease):
    import threading

    thread = threading.Timer(0.3, held.release)
    thread.start()
    return thread


def test_a_card_that_somebody_else_has_locked_is_not_taken(pool) -> None:
    """By hand, with flock(1), say."""
    folder = pool(8, 8)
    (folder / "leases").mkdir()
    with (folder / "leases/SIM-0.card").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        got = gpu_lease.take(1, 0)
        assert got.environment["CUDA_VISIBLE_DEVICES"] == "SIM-1"
        got.release()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            (3, 0),
            "resources: gpu, gpu_memory_gib: got 3 cards, allowed on this machine: SIM-0 (simulated, 8.0 GiB), SIM-1",
        ),
        (
            (0, 25),
            "got 25 GiB of one card, allowed on this machine: SIM-0 (simulated, 8.0 GiB), SIM-1 (simulated, 24.0 GiB)",
        ),
        ((2, 16), "got 2 cards of at least 16 GiB, allowed on this machine"),
    ],
)
def test_what_no_card_can_give_is_refused_at_once(
    asked: tuple[int, float], sentence: str, pool
) -> None:
    pool(8, 24)
    with pytest.raises(CardError) as refusal:
        gpu_lease.take(*asked)
    assert sentence in str(refusal.value)


def test_a_folder_that_cannot_be_written_is_named(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pool(8)
    (folder / "file").write_text("")
    monkeypatch.setenv("RANKWISE_LEASES", str(folder / "file"))
    with pytest.raises(
        CardError, match=r"RANKWISE_LEASES: got .*/file, allowed: a folder that every user"
    ):
        gpu_lease.take(1, 0)


# The cards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "allowed: JSON"),
        ('{"uuid": "A"}', "allowed: a list of cards, each with uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H", "memory_gib": 8, "size": 1}]', "got uuid, name, memory_gib, size, allowed: uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H"}]', "got uuid, name, allowed: uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H", "memory_gib": -8}]', "0.memory_gib: got -8, allowed: more than 0, in GiB"),
        ('[{"uuid": "A", "name": "H", "memory_gib": "8"}]', "0.memory_gib: got '8', allowed: a number"),
        ('[{"uuid": "../A", "name": "H", "memory_gib": 8}]', "0.uuid: got '../A', allowed: letters, digits"),
        ('[{"uuid": "A", "name": "H", "memory_gib": 8}, {"uuid": "A", "name": "H", "memory_gib": 8}]', "got uuid 'A' twice"),
    ],
)  # fmt: skip
def test_a_wrong_pool_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "cards.json").write_text(text)
    with pytest.raises(CardError) as refusal:
        gpus.found({"RANKWISE_CARDS": str(tmp_path / "cards.json")})
    assert sentence in str(refusal.value)
    with pytest.raises(
        CardError, match="got No such file or directory, allowed: a JSON file that can be read"
    ):
        gpus.found({"RANKWISE_CARDS": str(tmp_path / "none.json")})


# What the driver's tool prints, with a card of 80 GB and one that is split in two, and 4 GiB of others on the first.
SMI = """#!/bin/sh
case "$1" in
--query-gpu=uuid,name,memory.total) echo "GPU-aa-1, NVIDIA H100, 81559"; echo "GPU-bb-2, NVIDIA A100, 40960";;
--query-gpu=uuid,memory.used) echo "GPU-aa-1, 4096"; echo "GPU-bb-2, 1";;
-L) echo "GPU 0: NVIDIA H100 (UUID: GPU-aa-1)"; echo "GPU 1: NVIDIA A100 (UUID: GPU-bb-2)"
    echo "  MIG 3g.20gb     Device  0: (UUID: MIG-cc-3)"; echo "  MIG 1g.5gb+me   Device  1: (UUID: MIG-dd-4)";;
--query-compute-apps=gpu_uuid,pid,process_name) echo "GPU-aa-1, 77, /usr/bin/python3";;
esac
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("RANKWISE_CARDS", raising=False)
    monkeypatch.setenv("RANKWISE_LEASES", str(tmp_path / "leases"))


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-aa-1", "MIG-cc-3", "MIG-dd-4"]),
        ("0", ["GPU-aa-1"]),
        ("1,0", ["MIG-cc-3", "GPU-aa-1"]),
        ("MIG-dd", ["MIG-dd-4"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["GPU-aa-1"]),
        ("NoDevFiles", []),
    ],
)
def test_the_cards_are_those_that_may_be_seen(
    visible: str | None, uuids: list[str], driver
) -> None:
    assert [
        card.uuid
        for card in gpus.found({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    ] == uuids


def test_sizes_of_cards_and_parts(driver) -> None:
    assert [card.memory_bytes for card in gpus.found({})] == [81559 * 2**20, 20 * GIB, 5 * GIB]
    with pytest.raises(
        CardError,
        match="CUDA_VISIBLE_DEVICES: got '7', allowed: 0 or GPU-aa-1, 1 or MIG-cc-3, 2 or MIG-dd-4",
    ):
        gpus.found({"CUDA_VISIBLE_DEVICES": "7"})


def test_what_others_have_on_a_card_is_said_and_left_to_them(
    driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_lease.notes(gpus.found({})) == [
        "GPU-aa-1 (NVIDIA H100, 79.6 GiB): others have 4.0 GiB there; python3 (pid 77)",
        "cards of several kinds (NVIDIA H100, NVIDIA A100 MIG 3g.20gb, NVIDIA A100 MIG 1g.5gb+me): times differ; "
        "CUDA_VISIBLE_DEVICES keeps to some of them",
    ]
    said: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    got = gpu_lease.take(
        0, 75, say=said.append
    )  # what we were promised may be what the driver sees
    assert said == [
        "runs on 75.00 GiB of a card: GPU-aa-1 (NVIDIA H100, 79.6 GiB); others have 4.0 GiB there"
    ]
    assert json.loads(got.environment["RANKWISE_CARD"])["others_bytes"] == 4 * GIB
    got.release()
    got = gpu_lease.take(
        1, 0, say=said.append
    )  # a whole card is had beside them, and the result says so
    assert json.loads(got.environment["RANKWISE_CARD"]) == {
        "uuids": ["GPU-aa-1"],
        "shared": False,
        "others_bytes": 4 * GIB,
    }
    got.release()


def test_where_the_tool_lacks_the_drivers_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool
) -> None:
    """They tell no sizes, so a share is a whole card."""
    pool(8)
    monkeypatch.delenv("RANKWISE_CARDS")
    monkeypatch.setattr(gpus, "PROC", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for number, uuid in enumerate(("GPU-ee-5", "GPU-????????")):
        (tmp_path / str(number)).mkdir()
        text = f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 7\nGPU UUID: \t {uuid}\nVideo BIOS: \t ??\n"
        (tmp_path / str(number) / "information").write_text(text)
    assert gpus.found() == [gpus.Card("GPU-ee-5", "NVIDIA H100", 0)]
    got = gpu_lease.take(0, 3)
    assert not got.shared
    got.release()


def test_without_a_card_no_lease_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool
) -> None:
    pool(8)
    monkeypatch.delenv("RANKWISE_CARDS")
    monkeypatch.setattr(gpus, "PROC", tmp_path / "none")
    said: list[str] = []
    assert gpu_lease.take(1, 0, say=said.append) is None
    assert said == ["no card is known here, so this job takes none"]


# Needs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "measurement", "on_gpu", "predicted", "local", "need"),
    [
        (
            True,
            "train",
            True,
            {"peak_bytes": GIB},
            True,
            (0, 1.94),
        ),  # 1.1 GiB, 0.25 GiB and 600 MiB
        (True, "trial", True, {"peak_bytes": 10 * GIB}, True, (0, 11.84)),
        (True, "train", True, {}, True, (1, 0)),
        (False, "train", True, {"peak_bytes": GIB}, True, (1, 0)),
        (True, "train", True, {"peak_bytes": GIB}, False, (1, 0)),
        (True, "ledger", True, {"peak_bytes": GIB}, True, (1, 0)),
        (True, "forward", True, {"peak_bytes": GIB}, True, (1, 0)),
        (True, "throughput", True, {"peak_bytes": GIB}, True, (1, 0)),
        (True, "train", False, {"peak_bytes": GIB}, True, (0, 0)),
    ],
)
def test_only_trainings_of_a_study_that_shares_take_a_part(
    share, measurement, on_gpu, predicted, local, need
) -> None:
    assert card_need({"share": share}, measurement, on_gpu, predicted, local) == need
