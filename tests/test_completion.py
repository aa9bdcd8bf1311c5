"""`shakeshake completion`: each script, run by its shell, offers what the commands take."""

import shutil
import subprocess
import sys

import pytest

from shakeshake.cli.completion import SHELLS, parser_of
from shakeshake.cli.main import COMMANDS, main

ASK = {
    "bash": 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shakeshake; echo "${COMPREPLY[@]}"',
    "fish": 'source $argv[1]; complete -C (string join " " -- $argv[2..-1]) | string split -f1 \\t',
    # The shell's own functions print what they are asked to offer.
    "zsh": "compdef() { }; _describe() { print -l -- $commands }; _arguments() { print -l -- $@ };"
    ' source "$1"; shift; words=("$@"); CURRENT=$#; _shakeshake',
}


@pytest.fixture(scope="module", params=sorted(SHELLS))
def offered(request, tmp_path_factory):
    """A function of words, the last of them begun, that gives what the shell offers in their place."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = tmp_path_factory.mktemp("completion") / shell
    made = subprocess.run([sys.executable, "-m", "shakeshake", "completion", shell], capture_output=True, check=True)
    script.write_bytes(made.stdout)

    def ask(*words: str) -> str:
        arguments = [shell, "-c", ASK[shell], *(["--"] if shell == "fish" else [shell]), str(script), "shakeshake"]
        done = subprocess.run(
            [*arguments, *words], capture_output=True, text=True, timeout=30, cwd=script.parent, check=False
        )
        assert not done.stderr, done.stderr
        return done.stdout

    return ask


def test_commands_options_and_values_are_offered(offered):
    for command in COMMANDS:
        assert command in offered("")
    assert "reproduce" in offered("rep")
    assert "--weight-decay" in offered("train", "--we")
    assert "--int8" not in offered("train", "--")
    assert "S-E-I" in offered("train", "--rule", "S")
    assert "bf16" in offered("train", "digits", "--precision", "b")
    assert "verify" in offered("data", "")
    assert "table1" in offered("reproduce", "")
    assert "digits" in offered("train", "")


def test_every_command_has_a_parser_that_is_had_without_running_it():
    for command in COMMANDS:
        assert parser_of(command).prog == f"shakeshake {command}"


def test_a_shell_that_is_not_known_is_told(capsys):
    assert main(["completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err


def test_no_torch_is_loaded():
    code = (
        "import sys\nfrom shakeshake.cli.main import main\n"
        "main(['completion', 'bash'])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
