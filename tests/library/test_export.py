"""`rankwise export`: what is written, what the model card says, what is refused, what is pushed."""

import json
import math
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from helpers import kept_runs
from helpers.repository import ROOT
from rankwise.analysis import run_intervals
from rankwise.cli.main import main
from rankwise.core import result
from rankwise.core.config import ConfigError
from rankwise.library import export
from rankwise.study.plan import Plan

CELL = "tiny/mine/lora/r4/seed0"


class Project:
    """A project with runs of LoRA and of full fine-tuning."""

    def __init__(self, root: Path):
        self.root, self.plan = root, kept_runs.plan_of(root, ["lora", "full", "prompt_tuning"])
        self.files = {
            cell.method: kept_runs.run(self.plan, root, cell)
            for cell in self.plan.cells("train")
            if cell.model == "tiny"
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def one_plan(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the studies finds the project's one, whose entries are not the repository's."""
    files = {job: job for job in _targets(project.plan)}
    monkeypatch.setattr(export.trace, "_plans", lambda *_: iter([(project.plan, files)]))
    monkeypatch.setattr(project.plan, "root", project.root)
    monkeypatch.chdir(project.root)


def _targets(plan: Plan) -> dict[str, str]:
    from rankwise.study import jobs

    return jobs.targets(plan)


def run(project: Project, folder: Path, cell: str = CELL, merge: bool = False) -> export.Exported:
    return export.export(cell, folder, project.root, merge=merge)


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_an_adapter_is_copied_with_a_card(project: Project, tmp_path: Path) -> None:
    written = run(project, tmp_path / "out")
    kept = project.files["lora"].parent / "adapter"
    for file in kept.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {file.name for file in kept.iterdir()} | {"README.md"}
    assert written.format == "peft"
    assert written.bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())


def test_the_card_says_what_the_run_says(project: Project, tmp_path: Path) -> None:
    run(project, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    found = result.read(project.files["lora"])
    head = head_of(card)
    assert head["library_name"] == "peft"
    assert head["license"] == "apache-2.0"  # of the entry `tiny`
    assert "base_model" not in head  # it is on no hub
    assert "# tiny fine-tuned on mine: LoRA" in card
    accuracy = found["metrics"]["accuracy_fraction"]
    right, count = sum(found["examples"]["correct_fraction"]), len(found["examples"]["label"])
    assert (accuracy, count) == (right / count, 16)
    low, high = wilson(right, count)
    row = f"| accuracy (%) | {100 * accuracy:.4g} | {100 * low:.4g} to {100 * high:.4g} | 16 |"
    assert row.lower() in card.lower()
    assert "| licence of the base | Apache-2.0; its text: LICENSE |" in card
    assert (tmp_path / "out/LICENSE").read_text() == kept_runs.LICENCE
    assert "| learning_rate | 0.01 |" in card
    assert "| method: alpha | 4 |" in card  # the entry says `rank`
    assert f"| trainable_parameters | {found['metrics']['trainable_parameters']:,} |" in card
    assert "Classes: 0 no, 1 yes." in card
    assert found["request"]["environment"]["digest"] in card
    assert str(project.root) not in card
    assert str(ROOT) not in card


@pytest.mark.parametrize(("licence", "expected"), [
    ("Llama 3.2 Community License", {"license": "llama3.2"}),
    ("Gemma Terms of Use", {"license": "gemma"}),
    ("My licence, 2nd edition", {"license": "other", "license_name": "my-licence-2nd-edition", "license_link": "LICENSE"}),
    (None, {}),
])  # fmt: skip
def test_the_head_names_a_licence_as_the_hub_does(
    licence: str | None, expected: dict, project: Project, tmp_path: Path, monkeypatch
) -> None:
    entry = project.plan.library["models"]["tiny"]
    monkeypatch.delitem(entry, "licence")
    if licence is not None:
        monkeypatch.setitem(entry, "licence", licence)
    run(project, tmp_path / "out")
    head = head_of((tmp_path / "out/README.md").read_text())
    assert {key: head[key] for key in head if key.startswith("license")} == expected


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson 1927: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    z, p = 1.959963984540054, right / count
    middle, reach = (
        p + z * z / (2 * count),
        z * math.sqrt(p * (1 - p) / count + (z / count / 2) ** 2),
    )
    return (middle - reach) / (1 + z * z / count), (middle + reach) / (1 + z * z / count)


def test_the_interval_of_a_mean_loss_is_students() -> None:
    """Perplexity of four examples of equal weight: exp of the mean -+ t(3) s / 2."""
    losses = [1.0, 2.0, 3.0, 4.0]
    (found,) = run_intervals.of_run(
        {"perplexity": math.exp(2.5), "updates": 3},
        {"loss_nats": losses, "predictions": [1.0] * 4},
    )
    reach = 3.182446305284263 * math.sqrt(5 / 3) / 2
    assert (found.low, found.high) == pytest.approx((math.exp(2.5 - reach), math.exp(2.5 + reach)))
    assert found.examples == 4


@pytest.mark.slow
@pytest.mark.parametrize("merge", [False, True])
def test_the_cards_own_code_opens_the_export(merge: bool, project: Project, tmp_path: Path) -> None:
    """In a process without Rankwise; an adapter is merged when it is exported."""
    folder = tmp_path / "out"
    assert run(project, folder, merge=merge).format == ("merged" if merge else "peft")
    card = (folder / "README.md").read_text()
    assert head_of(card)["library_name"] == ("transformers" if merge else "peft")
    base = kept_runs.base_folder(project.plan, project.root, "tiny")
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("FOLDER_OF_THE_BASE", str(base)).replace("FOLDER", str(folder))
    cell = next(cell for cell in project.plan.cells("train") if cell.model == "tiny")
    kept_runs.write_inputs(project.plan, project.root, cell, tmp_path / "rows.json")
    rows = result.read_json(tmp_path / "rows.json")
    (losses,) = kept_runs.reloaded([{"code": code, "classes": 2, "rows": rows}])
    expected = result.read(project.files["lora"])["examples"]["loss_nats"]
    assert losses == pytest.approx(expected, **kept_runs.TOLERANCE)


def test_a_prompt_is_not_merged(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^rankwise export: --merge: got 'prompt_tuning', allowed"
    ):
        run(project, tmp_path / "out", "tiny/mine/prompt_tuning/r4/seed0", merge=True)
    assert not list(tmp_path.iterdir())


def test_a_run_that_kept_nothing_says_what_to_set(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"keep: got none, allowed: merged; set `keep` in the training"
    ):
        run(project, tmp_path / "out", "tiny/mine/full/r0/seed0")


def test_a_run_that_is_not_there_names_its_command(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"train.json: not there, allowed: a run that has ended; run "
    ):
        run(project, tmp_path / "out", "stories260k/lines/lora/r4/seed0")


def test_a_misspelt_cell_names_the_nearest(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest: tiny/mine/lora/r4/seed0"):
        run(project, tmp_path / "out", "tiny/mine/lora/r4/seed1")


def test_a_folder_with_files_is_left_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"--to: got .*, allowed: a folder that is empty or not there"
    ):
        run(project, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_the_result_file_names_the_run_too(project: Project, tmp_path: Path) -> None:
    cell = next(cell for cell in project.plan.cells("train") if cell.folder == CELL)
    written = run(project, tmp_path / "out", project.plan.path("train", cell))
    assert written.run == project.plan.cell_digest("train", cell)


# The hub ---------------------------------------------------------------------------------------------


class Hub:
    """What the client of a hub is asked for, in place of a network."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def create_repo(self, name: str, **settings: object) -> None:
        self.asked.append(("create", name, settings))

    def upload_folder(self, repo_id: str, folder_path: Path) -> object:
        self.asked.append(("upload", repo_id, sorted(file.name for file in folder_path.iterdir())))
        return type("Commit", (), {"commit_url": "https://hub/commit/1"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def test_nothing_is_pushed_without_the_flag(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["export", CELL, "--to", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pushed"] is None
    assert hub.asked == []


def test_the_flag_uploads_the_folder_to_a_private_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token of this test")
    assert main(["export", CELL, "--to", str(tmp_path / "out"), "--push", "me/winner"]) == 0
    assert "pushed: https://hub/commit/1" in capsys.readouterr().out
    create, upload = hub.asked
    assert create == ("create", "me/winner", {"private": True, "exist_ok": True})
    assert upload[:2] == ("upload", "me/winner")
    assert {"README.md", "adapter_model.safetensors"} <= set(upload[2])


def test_without_a_token_one_sentence_says_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["export", CELL, "--to", str(tmp_path / "out"), "--push", "me/winner"]) == 1
    assert "--push: got no token of the hub, allowed: one that may write" in capsys.readouterr().err
    assert hub.asked == []
    assert (tmp_path / "out/README.md").is_file()
