"""What the READMEs say is so."""

import json
import re
import statistics
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


def test_its_measures_are_those_of_the_evaluations(readme):
    for name in ("", "fashion/"):
        rows = json.loads((ROOT / "results" / name / "metrics.json").read_text())["rows"]
        for label, row in rows.items():
            if label != "original":
                ssim, read = row["ssim"], row["readability"]
                cells = (row["mse"], row["psnr_mean"], row["psnr_of_mse"], ssim, read)
                assert "| {:.6f} | {:.3f} | {:.3f} | {:.3f} | {:.3f} |".format(*cells) in readme
        assert f"| {rows['original']['readability']:.3f} |" in readme


def test_its_recipes_are_means_over_five_seeds(readme):
    for recipe in ("article", "tuned"):
        logs = [ROOT / "results" / "recipes" / f"{recipe}-{seed}" / "log" for seed in range(5)]
        errors = [json.loads(log.read_text())[-1]["validation/main/loss"] for log in logs]
        assert f"{statistics.mean(errors):.5f} ± {statistics.stdev(errors):.5f}" in readme


def test_both_languages_give_the_same_figures():
    numbers = [
        re.findall(r"(?m)^ +\d+ +0\.\d+ .*$|\| \d+\.\d ms .*$", (ROOT / name).read_text(encoding="utf-8"))
        for name in READMES
    ]
    assert numbers[0] == numbers[1]
    assert numbers[0]
