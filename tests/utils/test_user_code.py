import dataclasses
import sys

import pytest

from shakeshake import InputError
from shakeshake.utils.user_code import is_object_path, load_object, registered_name


@pytest.fixture(autouse=True)
def forget_modules():
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    assert sys.path == path


def test_loads_a_function_and_a_dataclass_from_a_file(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "def double(x):\n    return 2 * x\n"
    )
    assert load_object(f"{file}:double")(3) == 6
    assert dataclasses.asdict(load_object(f"{file}:Point")(1)) == {"x": 1}


def test_a_file_is_executed_once(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("things = []\ndef make():\n    things.append(1)\n    return things\n")
    load_object(f"{file}:make")()
    assert load_object(f"{file}:things") == [1]


def test_files_of_one_name_in_two_folders_are_separate_modules(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"value = {folder!r}\n")
    assert [load_object(f"{tmp_path / f}/net.py:value") for f in ("one", "two")] == ["one", "two"]


def test_a_file_can_import_its_neighbour_but_cannot_shadow_the_standard_library(tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text("value = 5\n")
    (tmp_path / "colorsys.py").write_text("raise AssertionError('shadows the standard library')\n")
    (tmp_path / "net.py").write_text("import colorsys\nfrom neighbour_of_net import value\n")
    assert load_object(f"{tmp_path}/net.py:value") == 5


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("net.py", r"got 'net.py', expected FILE.py:NAME"),
        ("net.txt:tiny", r"got 'net.txt:tiny', expected FILE.py:NAME"),
        ("net.py:a.b", r"got 'net.py:a.b', expected FILE.py:NAME"),
        ("nowhere/net.py:tiny", r"nowhere/net.py does not exist"),
    ],
)
def test_usage_errors_name_what_was_typed(text, match):
    with pytest.raises(InputError, match=f"^user code: {match}"):
        load_object(text)


def test_a_missing_name_lists_the_names_that_the_file_defines(tmp_path):
    (tmp_path / "net.py").write_text("from pathlib import Path\ndef tiny():\n    pass\n")
    with pytest.raises(InputError, match=r"net.py does not define tinny, expected one of tiny$"):
        load_object(f"{tmp_path}/net.py:tinny")


def test_an_exception_in_the_file_is_raised_and_the_file_can_be_loaded_again(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_object(f"{file}:value")
    file.write_text("value = 1  # mended\n")
    assert load_object(f"{file}:value") == 1


def test_the_registered_name_has_no_folder():
    assert registered_name("/home/me/net.py:tiny") == "net.py:tiny"
    assert is_object_path("a/net.py:tiny")
    assert not is_object_path("shake_resnet26_2x32d")
