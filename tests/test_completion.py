"""Shell completion offers commands, options and values."""

import os
import subprocess
import sys

import pytest

from shakeshake.cli.main import COMMANDS


def offered(*words: str, shell: str = "bash") -> list[str]:
    """What the shell is offered for the last word, by the protocol of click's completion scripts."""
    env = {**os.environ, "_SHAKESHAKE_COMPLETE": f"{shell}_complete"}
    env |= {"COMP_WORDS": " ".join(("shakeshake", *words)), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "shakeshake"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert " torch\n" not in done.stderr, "completion must not import torch"
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), set(COMMANDS)),
        (("rep",), {"report", "reproduce"}),
        (("train", "--we"), {"--weight-decay"}),
        (("train", "--rule", "S-E"), {"S-E-I", "S-E-B"}),
        (("train", "digits", "--precision", "b"), {"bf16"}),
        (
            ("train", "--recipe", "paper_c"),
            {"paper_cifar10", "paper_cifar100", "paper_cifar10_300", "paper_cifar100_300"},
        ),
        (("train", "--model", "shake_resnet26_2x96"), {"shake_resnet26_2x96d"}),
        (("data", "ver"), {"verify"}),
        (("reproduce", "table"), {"table1", "table2", "table3"}),
        (("train", "dig"), {"digits"}),
        (("export", "runs/x", "--format", "on"), {"onnx"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_commands_options_and_values_are_completed(words, expected):
    assert set(offered(*words)) == expected


def test_files_are_completed_where_a_path_is_expected():
    assert offered("train", "./mi") == ["./mi"]
    assert "--int8" not in offered("train", "--")


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete ")])
def test_completion_script_exists_for_each_shell(shell, word):
    env = {**os.environ, "_SHAKESHAKE_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-m", "shakeshake"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert word in done.stdout
    assert "_SHAKESHAKE_COMPLETE=" in done.stdout
