"""The sdist builds a wheel, and the wheel works outside the repository."""

import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

import shakeshake as ss
from helpers import python

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **env: str) -> str:
    return python(*command, cwd=cwd, env=env)[0]


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The sdist of a clean copy, and the wheel built from that sdist."""
    copy, out = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("dist")
    for name in (
        "src",
        "tests",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
        "MANIFEST.in",
    ):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, copy / name)
    run("-m", "build", "--no-isolation", "--outdir", out, copy, cwd=copy)
    return out


def test_wheel_is_complete_and_trains_outside_the_repository(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    env = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    where = run("-c", "import shakeshake; print(shakeshake.__file__)", cwd=tmp_path, **env)
    assert Path(where.strip()).is_relative_to(site)
    for path in (ROOT / "src" / "shakeshake").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (site / path.relative_to(ROOT / "src")).is_file(), f"{path.name} is not in the wheel"
    assert (site / "bin" / "shakeshake").is_file()
    assert "shake_resnet26_2x96d" in run(site / "bin" / "shakeshake", "models", cwd=tmp_path, **env)
    tiny = ["--epochs", "1", "--model", "shake_resnet8_2x4d", "--train-size", "100"]
    output = run(site / "bin" / "shakeshake", "train", "digits", *tiny, "--out", "run", cwd=tmp_path, **env)
    assert "test error" in output
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    kernels = run(
        "-c", "from shakeshake.kernels import build; print(build.unavailable_reason())", cwd=tmp_path, **env
    ).strip()
    assert not kernels or "compiler" in kernels


def test_sdist_contains_licence_citation_and_sources(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[-1] for name in opened.getnames()}
    assert {"LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md", "src/shakeshake/kernels/cpu.cpp"} <= names


def test_citation_is_complete_and_has_the_current_version():
    """Required fields of the Citation File Format 1.2.0."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert cited["version"] == ss.__version__
    assert {"type", "title", "authors"} <= set(cited["preferred-citation"])
    assert "1705.07485" in cited["preferred-citation"]["url"]
