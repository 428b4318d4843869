"""What the READMEs say is so."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT

READMES = ["README.md", "README.ja.md"]


@pytest.fixture(params=READMES)
def readme(request) -> str:
    return (ROOT / request.param).read_text(encoding="utf-8")


def test_the_notebook_snippet_runs(readme):
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    program = f"{snippet}\nassert restore(degraded, model).shape == (10, 1, 28, 28)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_every_file_that_it_shows_or_links_is_there(readme):
    targets = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_table_of_flags_is_train_pys(readme, script, tmp_path):
    documented = set(re.findall(r"(?m)^\| .*?`(--[a-z-]+)", readme.partition("show_results.py` ")[0]))
    shown = set(re.findall(r"--[a-z-]+", script("train.py", "--help", cwd=tmp_path).stdout)) - {"--help"}
    assert documented == shown


def test_both_languages_give_the_same_figures():
    numbers = [
        re.findall(r"(?m)^ +\d+ +0\.\d+ .*$|\| \d+\.\d ms .*$", (ROOT / name).read_text(encoding="utf-8"))
        for name in READMES
    ]
    assert numbers[0] == numbers[1]
    assert numbers[0]
