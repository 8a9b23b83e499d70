"""Studies in object stores: the same bytes as on a disk, after kill -9, too; one writer; no credentials in anything written or shown."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from captum_leam import _storage, _stores
from captum_leam._storage import Shard, atomic_folder, atomic_write, lock_folder, read_shard, shard_digest, write_shard
from captum_leam._stores import as_path, relative_path
from captum_leam._weights import load_state
from captum_leam.errors import BrokenFileError, BusyError, CaptumLeamError, ConfigError, IncompleteError
from captum_leam.models import load_model
from captum_leam.reporting import write_report
from captum_leam.study import Study, StudyResult
from captum_leam.study.config import Config, Model, config_from
from captum_leam.study.listing import list_people
from captum_leam.study.networks import identify
from tests.helpers.tiny_study import write_faces, write_study

fsspec = pytest.importorskip("fsspec", reason="needs pip install 'captum-leam[cloud]'")

SECRET = "wJalrXUtnFEMIK7MDENG"  # noqa: S105


@pytest.fixture
def memory():
    """A folder in memory, empty before and after."""
    store = fsspec.filesystem("memory")
    yield as_path("memory://test")
    store.rm("/test", recursive=True) if store.exists("/test") else None


def copy(folder: Path, to) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        (to / path.relative_to(folder).as_posix()).upload(path)


def bytes_below(folder, *names: str) -> dict[str, bytes]:
    paths = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    return {relative_path(path, folder).as_posix(): path.read_bytes() for path in paths}


def comparable(manifest: dict) -> dict:
    """A manifest without what a run measures of itself, and without the places of files."""
    manifest = {**manifest, "configuration": dict(manifest["configuration"])}
    del manifest["run"], manifest["configuration"]["out"]
    manifest["configuration"]["people"] = {**manifest["configuration"]["people"], "path": ""}
    return manifest


# -- paths ---------------------------------------------------------------------------------------------


def test_names_are_those_of_a_path():
    path = as_path("s3://bucket/faces/ann/1.b.png")
    assert (path.name, path.stem, path.suffix) == ("1.b.png", "1.b", ".png")
    assert path.parent == as_path("s3://bucket/faces/ann/") == as_path("ann", as_path("s3://bucket/faces"))
    assert path.parent / "../../../../x" == as_path("s3://bucket/x")
    assert as_path("/a", Path("/b")) == Path("/a")
    names = [as_path(f"s3://bucket/{name}") for name in ("a-b/1", "a/2", "a/1")]
    assert [path.url[12:] for path in sorted(names)] == [
        str(path) for path in sorted(map(Path, ("a-b/1", "a/2", "a/1")))
    ]


def test_folders_are_what_lies_in_them(memory):
    assert not memory.exists()
    (memory / "a" / "1").write_bytes(b"1")
    (memory / "a" / "b" / "2").write_bytes(b"2")
    assert memory.is_dir()
    assert not memory.is_file()
    assert (memory / "a" / "1").is_file()
    assert [path.name for path in sorted((memory / "a").iterdir())] == ["1", "b"]
    assert [relative_path(path, memory).as_posix() for path in sorted(memory.rglob("*"))] == [
        "a",
        "a/1",
        "a/b",
        "a/b/2",
    ]
    assert [path.name for path in memory.rglob("2")] == ["2"]
    assert not list((memory / "none").rglob("*"))


def test_what_is_missing_has_the_number_and_the_url(memory):
    for call in ((memory / "a").read_bytes, (memory / "a").unlink, lambda: list(memory.iterdir())):
        with pytest.raises(FileNotFoundError) as raised:
            call()
        assert (raised.value.errno, raised.value.strerror) == (errno.ENOENT, "No such file or directory")
        assert str(raised.value.filename).startswith("memory://test")
    (memory / "a").unlink(missing_ok=True)
    (memory / "a").write_bytes(b"1", must_be_new=True)
    with pytest.raises(FileExistsError):
        (memory / "a").write_bytes(b"2", must_be_new=True)


def test_files_are_whole_or_not_there(memory):
    with atomic_write(memory / "a") as place:
        place.write_text("text")
        assert not (memory / "a").exists()
    assert (memory / "a").read_text() == "text"
    with pytest.raises(FileNotFoundError), atomic_write(memory / "b") as place:
        Path(place.write_text("tex") and "/nowhere/x").read_text()
    with pytest.raises(FileNotFoundError), atomic_folder(memory / "c") as place:
        Path((place / "x").write_text("tex") and "/nowhere/x").read_text()
    with atomic_folder(memory / "d", earlier=["a"]) as place:
        (place / "x").write_text("text")
    assert bytes_below(memory, ".") == {"a": b"text", "d/x": b"text"}


def test_shards_carry_their_checksum(memory, tmp_path):
    shard, path = Shard({"x": torch.arange(3).numpy()}, {"failed": []}), memory / "parts" / "a.shard"
    assert write_shard(path, shard) == write_shard(tmp_path / "a", shard) == shard_digest(path)
    assert path.read_bytes() == (tmp_path / "a").read_bytes()
    assert read_shard(path)["x"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-1])
    assert shard_digest(path) is None
    with pytest.raises(
        BrokenFileError, match=r"memory://test/parts/a\.shard: expected a shard that matches its checksum"
    ):
        read_shard(path)


# -- one writer ----------------------------------------------------------------------------------------


def forget_clients() -> None:
    _stores._file_system.cache_clear()
    if s3fs := sys.modules.get("s3fs"):
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def fresh():
    """No client of a store from before, nor one that stays."""
    forget_clients()
    yield
    forget_clients()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(_storage, "BEAT", 0.05)
    monkeypatch.setattr(_storage, "SILENCE", 0.5)


def test_two_runs_cannot_write_into_one_folder(memory, quick):
    with (
        lock_folder(memory),
        pytest.raises(BusyError, match="memory://test: another run writes into this folder"),
        lock_folder(memory),
    ):
        pass
    assert not memory.exists()
    with lock_folder(memory):
        assert [path.name for path in memory.iterdir()] == [".lock"]


def test_the_lock_of_a_killed_run_is_taken_over(memory, quick, caplog):
    (memory / ".lock").write_bytes(b"host 0123 7")
    began = time.monotonic()
    with lock_folder(memory):
        assert time.monotonic() - began >= 0.5
        assert (memory / ".lock").read_bytes() != b"host 0123 7"
    assert "waiting 0.5 s to see whether another run still writes there" in caplog.text


def test_a_run_whose_lock_was_taken_over_says_so_and_leaves_it(memory, quick):
    other = b"other 4567 0"
    with pytest.raises(BusyError), lock_folder(memory):
        _ = (memory / ".lock").write_bytes(other), time.sleep(0.3)
    assert (memory / ".lock").read_bytes() == other


# -- credentials ---------------------------------------------------------------------------------------

WRONG = (
    f"s3://AKIA:{SECRET}/more@bucket/x",
    f"s3://{SECRET}@bucket/x.csv",
    f"https://ann:{SECRET}@host/x.png",
    f"s3://bucket/x?X-Amz-Signature={SECRET}",
)
"""URLs that name what must come from the environment."""


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("key", ["people", "out", "parser", "pictures", "groups", "models", "model", "code", "wrong"])
def test_urls_with_credentials_are_refused_and_not_repeated(tmp_path, key, url):
    write_study(tmp_path)
    settings = {"people": "faces", "models": {"one": "nets.py:one"}}
    settings |= {
        "people": {"people": url},
        "out": {"out": url},
        "parser": {"parser": {"parser": "bisenet", "weights": url}},
        "pictures": {"pictures": {"how": "photos", "weights": url}},
        "groups": {"groups": {"file": url, "columns": ["a"]}},
        "models": {"models": {"one": f"{url}.onnx"}},
        "model": {"models": {"one": {"model": f"{url}.onnx", "layers": ["stem"]}}},
        "code": {"models": {"one": f"{url}.py:one"}},
        "wrong": {"models": [url]},
    }[key]
    with pytest.raises(ConfigError, match=r"Expected .*got .*://\*\*\*") as raised:
        config_from(settings, tmp_path)
    assert SECRET not in str(raised.value)
    assert "credentials come from the environment" in str(raised.value) or key in ("code", "wrong")


def test_urls_with_credentials_in_a_table_or_on_the_command_line(tmp_path):
    from captum_leam.cli import app

    study = write_study(tmp_path, people="people.csv")
    for url in WRONG:
        (tmp_path / "people.csv").write_text(f"path,person\n{url},ann\n")
        with pytest.raises(
            ConfigError, match=r"people\.csv, line 2: Expected the URL of a store, got \w+://"
        ) as raised:
            list_people(Study(study).config)
        done = CliRunner().invoke(app, ["study", str(study), "--out", url])
        assert isinstance(done.exception, CaptumLeamError)
        with pytest.raises(ValueError, match="out") as replaced:
            Study(Study(study).config, out=url)
        assert SECRET not in f"{raised.value} {done.exception} {done.output} {replaced.value}"


def test_a_store_that_cannot_be_reached_is_named_without_credentials(tmp_path, monkeypatch, fresh):
    pytest.importorskip("s3fs", reason="needs pip install 'captum-leam[cloud]'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://ann:{SECRET}@127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    write_study(tmp_path)
    with pytest.raises(
        ConfigError, match=r"s3://bucket/faces cannot be read \(\w+Error: see the credentials"
    ) as raised:
        config_from({"people": "s3://bucket/faces", "models": {"one": "nets.py:one"}}, tmp_path)
    config = replace(Study(tmp_path / "study.yaml").config, out="s3://bucket/out")
    with pytest.raises(
        ConfigError, match=r"out: s3://bucket/out cannot be created \(\w+Error: see the cred"
    ) as of_results:
        Study(config).run(progress=False)
    assert SECRET not in f"{raised.value} {of_results.value}"


@pytest.mark.parametrize(
    ("url", "package", "command"),
    [
        ("s3://b/x", "s3fs", r'pip install "captum-leam\[cloud\]"'),
        ("memory://b/x", "fsspec", r'pip install "captum-leam\[cloud\]"'),
        ("gs://b/x", "gcsfs", "pip install gcsfs"),
    ],
)
def test_a_missing_package_names_its_command(monkeypatch, fresh, url, package, command):
    def filesystem(scheme, **options):
        raise ImportError(f"Install {package}")

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=command):
        as_path(url).exists()


# -- inputs --------------------------------------------------------------------------------------------


def test_networks_and_weights_are_read_from_a_store(memory, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pth")
    copy(tmp_path, memory)
    assert load_state(memory / "net.pth")[1] == load_state(tmp_path / "net.pth")[1]
    pytest.importorskip("onnx2torch", reason="needs pip install 'captum-leam[onnx]'")
    from tests.helpers.cases_of_files import onnx_file

    path, images = onnx_file(tmp_path), torch.rand(2, 3, 8, 8)
    (memory / "net.onnx").upload(path)
    assert torch.equal(load_model("memory://test/net.onnx", "unit")(images), load_model(str(path), "unit")(images))
    (memory / "no.onnx").write_bytes(b"x")
    with pytest.raises(CaptumLeamError, match=r"^memory://test/no\.onnx: expected an ONNX network"):
        load_model("memory://test/no.onnx")
    with pytest.raises(ConfigError, match=r"models\.a to be an ONNX file.*There is no memory://test/none\.onnx"):
        config_from({"people": ".", "models": {"a": "memory://test/none.onnx"}})
    network, _ = identify(Model("a", "memory://test/net.onnx", "unit"), "cpu", 8)
    assert network.fingerprint == identify(Model("a", str(path), "unit"), "cpu", 8)[0].fingerprint


def test_tables_of_people_lie_in_a_store_and_name_pictures_of_another(memory, tmp_path):
    (memory / "tables" / "people.csv").write_bytes(b"path,person\n../1.png,ann\nmemory://test/2.png,ann\n3.png,bob\n")
    settings = {"people": "memory://test/tables/people.csv", "models": {"a": "torch.nn:Identity"}}
    config = config_from(settings, tmp_path)
    found = list_people(config).pictures
    assert [(picture.name, str(picture.path(config.people.folder))) for picture in found] == [
        ("../1.png", "memory://test/1.png"),
        ("memory://test/2.png", "memory://test/2.png"),
        ("3.png", "memory://test/tables/3.png"),
    ]


def test_a_folder_of_people_is_listed_as_on_a_disk(memory, tmp_path):
    names = ("ann/1.png", "ann/notes.txt", "ann/raw/2.png", "ann/.hidden.png", "bob/1.jpg", "loose.png", "eve/x.txt")
    for name in (*names, "results/work/1.shard"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    copy(tmp_path, memory)
    both = []
    for folder in (tmp_path, memory):
        config = config_from({"people": str(folder), "models": {"a": "torch.nn:Identity"}, "out": f"{folder}/results"})
        listing = list_people(config)
        both.append((listing.pictures, listing.skipped_paths))
    assert both[0] == both[1]
    assert len(both[0][0]) == 2
    assert len(both[0][1]) == 6


# -- whole studies -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The folder of a study on a disk that ran to its end: three shards of two people, one network, few controls."""
    folder = tmp_path_factory.mktemp("small")
    write_faces(folder, people=6, images=2)
    settings = {"models": {"one": "nets.py:one"}, "layers": ["stem"], "shard_size": 4, "controls": ["random pixels"]}
    patterns = {"fraction": 0.05, "grid": 12, "permutations": 19, "resamples": 100, "controls": ["edges"]}
    Study(write_study(folder, **settings, patterns=patterns)).run(progress=False, report=False)
    return folder


@pytest.fixture(scope="module")
def small_right(small) -> dict[str, bytes]:
    """Its tables and maps, byte by byte."""
    return bytes_below(small / "results", "tables", "maps")


def at(small: Path, folder) -> Config:
    """The configuration of that study, of people and into results in a store."""
    return replace(Study(small / "study.yaml").config, people=f"{folder}/faces", out=f"{folder}/out")


def test_a_study_in_memory_is_that_on_the_disk(small, small_right, memory):
    copy(small / "faces", memory / "faces")
    config = at(small, memory)
    result = Study(config).run(progress=False)
    assert bytes_below(memory / "out", "tables", "maps") == small_right
    on_disk = StudyResult(small / "results")
    assert comparable(result.manifest) == comparable(on_disk.manifest)
    assert result.manifest["configuration"]["people"]["path"] == "memory://test/faces"
    assert result.mean_maps().keys() == on_disk.mean_maps().keys()
    assert "memory://test/out" in repr(StudyResult("memory://test/out"))
    assert b"<html" in (memory / "out" / "report.html").read_bytes()
    names = {"figures", "manifest.json", "maps", "report.html", "tables", "work"}
    assert {path.name for path in (memory / "out").iterdir()} == names
    assert Study(config).check(progress=False).passed
    (memory / "out" / "tables" / "scores.parquet").write_bytes(b"x")
    with pytest.raises(
        BrokenFileError, match=r"memory://test/out/tables/scores\.parquet: expected the file of the manifest"
    ):
        result.table("scores")
    with pytest.raises(CaptumLeamError, match=r"memory://test/out/tables/scores\.parquet: Expected a table"):
        write_report("memory://test/out")


def test_what_cannot_be_done_in_memory_or_in_a_folder_of_others_raises(small, memory):
    (memory / "faces" / "ann" / "1.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match="Expected engine to be 'serial' with memory:// paths, got 'processes'"):
        Study(at(small, memory)).run(engine="processes", jobs=2, progress=False)
    (memory / "out" / "file").write_bytes(b"x")
    with pytest.raises(
        ConfigError, match="out: expected an empty folder or that of a study, got other files in memory://test/out"
    ):
        Study(at(small, memory)).run(progress=False)


@pytest.fixture(scope="module")
def server():
    """The file system of a server of this machine that speaks S3."""
    pytest.importorskip("moto", reason="needs pip install 'moto[s3]' flask flask-cors")
    s3fs = pytest.importorskip("s3fs", reason="needs pip install 'captum-leam[cloud]'")
    pytest.importorskip("flask_cors", reason="needs pip install flask flask-cors")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "AKIAFAKE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": host,
        }.items():
            patch.setenv(name, value)
        forget_clients()
        yield s3fs.S3FileSystem()
    forget_clients()
    server.stop()


@pytest.fixture
def bucket(server):
    """An empty bucket on it."""
    server.mkdir("bucket")
    yield as_path("s3://bucket")
    server.rm("bucket", recursive=True)


def kill_when_half_done(command: list[str], out, most: float = 100) -> str:
    """Run a command in processes of its own, end all of them with kill -9 after the first map, and return its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(  # noqa: S603
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )
    end = time.monotonic() + most
    while not (out / "work" / "maps").is_dir() or not any((out / "work" / "maps").rglob("*.shard")):
        if running.poll() is not None or time.monotonic() > end:
            break
        time.sleep(0.02)
    killed = running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    output = running.communicate()[0]
    assert killed, output
    return output


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_on_s3_killed_in_the_middle_ends_with_the_same_bytes(small, small_right, bucket, tmp_path, quick):
    """Two worker processes, all ended by kill -9; then one process goes on."""
    copy(small / "faces", bucket / "faces")
    text = (small / "study.yaml").read_text().replace("people: faces", f"people: {bucket}/faces")
    (tmp_path / "study.yaml").write_text(text.replace("nets.py", str(small / "nets.py")))
    out, config = bucket / "out", at(small, bucket)
    command = [sys.executable, "-m", "captum_leam", "study", str(tmp_path / "study.yaml"), "--out", str(out)]
    output = kill_when_half_done([*command, "--engine", "processes", "--jobs", "2"], out)
    assert (out / ".lock").is_file()
    assert not (out / "manifest.json").exists()
    before = set((out / "work").rglob("*.shard"))
    result = Study(config).run(progress=False)
    assert before < set((out / "work").rglob("*.shard"))
    assert result.manifest["run"]["shards made"]["reading and embedding"] == 0
    assert bytes_below(out, "tables", "maps") == small_right
    assert comparable(result.manifest) == comparable(StudyResult(small / "results").manifest)
    assert not (out / ".lock").exists()
    written = bytes_below(out, ".")
    assert {"report.html", "manifest.json"} < written.keys()
    assert not [name for name, content in written.items() if SECRET.encode() in content or b"AKIAFAKE" in content]
    assert SECRET not in output + repr(result)


@pytest.mark.slow
@pytest.mark.ci
def test_results_on_s3_are_checked_and_torn_shards_made_again(small, small_right, bucket):
    copy(small / "faces", bucket / "faces")
    copy(small / "results", bucket / "out")
    config = at(small, bucket)
    assert Study(config).check(progress=False).passed
    torn = sorted((bucket / "out" / "work" / "maps").rglob("*.shard"))[0]
    torn.write_bytes(torn.read_bytes()[:-9])
    assert not Study(config).check(recompute=0, progress=False).passed
    assert Study(config).run(progress=False, report=False).manifest["run"]["shards made"]["explaining"] == 1
    assert bytes_below(bucket / "out", "tables", "maps") == small_right


@pytest.mark.parametrize(
    ("error", "shown"), [(PermissionError("Access"), "Permission denied"), (TimeoutError(), "Timeout")]
)
def test_a_store_that_fails_is_no_missing_shard(memory, monkeypatch, error, shown):
    def fail(*args, **options):
        raise error

    write_shard(memory / "a.shard", Shard({}))
    monkeypatch.setattr(_stores._file_system("memory"), "get_file", fail)
    with pytest.raises(OSError, match=shown):
        shard_digest(memory / "a.shard")


def test_pictures_are_not_left_out_because_a_store_fails_for_a_moment(small, small_right, memory, monkeypatch):
    """Requests for folders and pictures that fail while these are listed, hashed and read: the run ends, and goes on when run again."""
    copy(small / "faces", memory / "faces")
    store = _stores._file_system("memory")
    real, calls, failed = {name: getattr(store, name) for name in ("get_file", "ls")}, [], []

    def fails_sometimes(name):
        def call(path, *args, **options):
            if "/faces" in path:
                calls.append(path)
                if len(calls) in (1, 4, 16, 45):
                    raise TimeoutError
            return real[name](path, *args, **options)

        return call

    for name in real:
        monkeypatch.setattr(store, name, fails_sometimes(name))
    while len(failed) < 9:
        try:
            Study(at(small, memory)).run(progress=False, report=False)
            break
        except (ConfigError, IncompleteError) as error:
            failed.append(str(error))
    assert len(failed) == 4
    assert all("Timeout" in message for message in failed)
    assert bytes_below(memory / "out", "tables", "maps") == small_right


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_on_a_disk_killed_in_the_middle_ends_with_the_same_bytes(small, small_right, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "captum_leam", "study", str(small / "study.yaml"), "--out", str(out)]
    kill_when_half_done(command, out)
    assert not (out / "manifest.json").exists()
    result = Study(replace(Study(small / "study.yaml").config, out=out)).run(progress=False, report=False)
    assert result.manifest["run"]["shards made"]["reading and embedding"] == 0
    assert bytes_below(out, "tables", "maps") == small_right


@pytest.mark.slow
@pytest.mark.ci
def test_ray_gives_the_same_bytes_on_s3(small, small_right, bucket):
    pytest.importorskip("ray", reason="needs pip install 'captum-leam[ray]'")
    config = replace(Study(small / "study.yaml").config, out=f"{bucket}/ray")
    Study(config).run(engine="ray", jobs=2, progress=False, report=False)
    assert bytes_below(bucket / "ray", "tables", "maps") == small_right
