"""What a hostile configuration, model folder, archive or text could do: held, each by a test."""

import ast
import functools
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers import mutated_studies
from helpers.dataset_files import read
from helpers.mutated_studies import OF_FILES, STUDIES, mutated, said
from helpers.repository import ROOT
from rankwise.checks import configfiles, model_entries
from rankwise.core.config import ConfigError
from rankwise.core.safetensors_files import weights_sha256
from rankwise.core.snapshot_files import copied_files

MIB = 1 << 20
OUTSIDE = ["../x", "/x", "a/b", "~x", ".x", "x.", "..", "-x", "x" * 65, "x\n", "é", "x y", ""]
STUDY = "config/first.yaml"


# Names and paths ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mutated_studies.write_clone(tmp_path_factory.mktemp("held"))


def refusal(clone: Path, file: str, old: str, new: str) -> str:
    """The one sentence on a clone in which a text of a file is another."""
    text = (clone / file).read_text()
    assert old in text
    with mutated(clone, file, text.replace(old, new, 1).encode()), mutated_studies.without_limit():
        sentences = said(clone, STUDY)
    assert len(sentences) == 1, sentences
    return sentences[0]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_climbs(name: str, clone: Path) -> None:
    """Of studies, variants, models, datasets and methods: one pattern."""
    quoted = json.dumps(name)
    for file, old, key in (
        (STUDY, "name: first", "name"),
        (STUDY, "fast: {override", "train.0.variants"),
        ("config/models.yaml", "distilbert:\n  family", "top level"),
        ("config/datasets.yaml", "sst2:\n", "top level"),
        ("config/methods.yaml", "lisa:\n", "top level"),
    ):
        _, colon, rest = old.partition(":")
        new = f"name: {quoted}" if key == "name" else f"{quoted}{colon}{rest}"
        sentence = refusal(clone, file, old, new)
        assert sentence.startswith(f"{file}: {key}: got {name!r}, allowed: a name of letters")


@pytest.mark.parametrize("path", ["../x.csv", "/etc/passwd", "~/x", "a/../../x", "..", "a\\..\\x"])
def test_no_path_leaves_its_folder(path: str, clone: Path) -> None:
    datasets = (clone / "config/datasets.yaml").read_text()
    old = next(line for line in datasets.splitlines() if " path: " in line).strip()
    sentence = refusal(clone, "config/datasets.yaml", old, f"path: {json.dumps(path)}")
    assert f".path: got {path!r}, allowed: a path inside of the folder" in sentence
    sentence = refusal(
        clone, STUDY, "device: cpu\n", f"device: cpu\ninclude: [{json.dumps(path)}]\n"
    )
    assert sentence.startswith(f"{STUDY}: include.0: got {path!r}, allowed: a path inside")


@pytest.mark.parametrize("folder", ["../x", "~/x", "a/../../x"])
def test_a_folder_is_in_the_project_or_absolute(folder: str, clone: Path) -> None:
    sentence = refusal(clone, "config/models.yaml", "files: models/right", f"files: {folder}")
    assert f"of_files.weights.files: got {folder!r}, allowed: a folder inside" in sentence


# Code ---------------------------------------------------------------------------------------------


@functools.cache
def calls() -> list[tuple[Path, str, dict[str, str]]]:
    """File, function and keywords of every call of our sources that loads something."""
    words = ("from_pretrained", "from_config", "load_dataset", "pickle", "torch.load")
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if any(word in text for word in words) else ():
            if isinstance(node, ast.Call):
                keywords = {one.arg: ast.unparse(one.value) for one in node.keywords}
                found.append((file, ast.unparse(node.func), keywords))
    return found


def test_remote_code_is_off_in_every_call_that_could_run_it() -> None:
    """PeftModel reads a configuration in JSON and safetensors, and has no such switch."""
    seen = 0
    for file, name, keywords in calls():
        loads = name.endswith((".from_pretrained", ".from_config", "load_dataset"))
        if loads and not name.startswith("PeftModel"):
            seen += 1
            assert keywords.get("trust_remote_code") == "False", f"{file}: {name}"
    assert seen >= 6


def test_no_call_unpickles_what_it_is_given() -> None:
    for file, name, keywords in calls():
        assert not name.startswith("pickle.load"), file
        assert name != "torch.load" or keywords.get("weights_only") == "True", file


def test_jobs_have_no_stdin() -> None:
    shells = [
        line
        for file in sorted((ROOT / "rules").glob("*.smk"))
        for line in file.read_text().splitlines()
        if "{log:q}" in line and ">" in line
    ]
    assert len(shells) >= 20
    assert all(line.endswith("</dev/null") for line in shells)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_a_models_author_is_refused_by_name(name: str, clone: Path) -> None:
    folder = clone / "models/right"
    before = (folder / name).read_text() if (folder / name).exists() else None
    content = {**json.loads(before or "{}"), "auto_map": {"AutoModel": "code.Model"}}
    (folder / name).write_text(json.dumps(content))
    try:
        weights = {"files": str(folder), "sha256": weights_sha256(folder)}
        found = model_entries.problems("mine", {**OF_FILES, "weights": weights}, ["classification"])
        with pytest.raises(
            ValueError, match=r"auto_map: got {'AutoModel': 'code.Model'}, allowed: no"
        ):
            copied_files(folder)
    finally:
        (folder / name).write_text(before) if before else (folder / name).unlink()
    assert [sentence for sentence in found if f"{folder / name}: auto_map: got" in sentence]


class Marker:
    """Unpickling it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pth"])
def test_pickled_weights_are_refused_unread(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    (tmp_path / name).write_bytes(pickle.dumps(Marker(tmp_path / "run")))
    with pytest.raises(
        ValueError, match=r"which can run code .* convert it once in Python: transf"
    ):
        copied_files(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", ["__use_yte__: true\nname: ?open('x', 'w')\n", '{"__use_yte__": true}']
)
def test_a_template_is_refused_before_snakemake_runs_it(content: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="got '__use_yte__', allowed: a file without templates"):
        configfiles.check(["--configfile", str(file)])


# Archives -----------------------------------------------------------------------------------------

OF_MEMBERS = {"splits": {"train": {"path": "bomb", "member": r"(\d)/.*"}}}


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_bomb_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "bomb", (tarfile.TarInfo("x/a.txt"), bytes(70 * MIB)))
    assert path.stat().st_size < 70 * MIB / 200
    with pytest.raises(
        ValueError, match=r"bomb: got [\d,]+ bytes that unpack to 73,400,320 or more"
    ):
        read(path, "tar", label="label", **OF_MEMBERS)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0/a.csv", bytes(70 * MIB))
    with pytest.raises(
        ValueError, match=r"bytes that unpack to 73,400,320 or more, allowed: at most"
    ):
        read(tmp_path / "bomb", "zip", **OF_MEMBERS)


def test_a_gzip_bomb_is_refused_without_a_line_end(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(gzip.compress(b"text,label\n" + bytes(70 * MIB)))
    with pytest.raises(
        ValueError, match=r"bytes that unpack to [0-9,]+ or more, allowed: at most 200"
    ):
        read(tmp_path / "bomb", "csv")


def test_even_texts_are_no_bomb(tmp_path: Path) -> None:
    rows = "text,label\n" + "a good film,yes\n" * 20_000
    (tmp_path / "d").write_bytes(gzip.compress(rows.encode()))
    assert len(read(tmp_path / "d", "csv")) == 20_000


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_an_archive_are_refused(kind: bytes, tmp_path: Path) -> None:
    link = tarfile.TarInfo("0/a.txt")
    link.type, link.linkname = kind, "/etc/passwd"
    path = tar(tmp_path / "bomb", (link, b""), mode="w")
    with pytest.raises(ValueError, match=r"member 0/a.txt: .*a link or a device"):
        read(path, "tar", **OF_MEMBERS)


def test_a_member_that_climbs_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "bomb", (tarfile.TarInfo("0/../../a.txt"), b"x"), mode="w")
    with pytest.raises(ValueError, match="leaves the archive's folder"):
        read(path, "tar", **OF_MEMBERS)


def test_the_clone_itself_is_right(clone: Path) -> None:
    """So each refusal above is for its one change."""
    with mutated_studies.without_limit():
        assert [said(clone, study) for study in STUDIES] == [[], []]
