"""What the READMEs say is true."""

import json
import re
import statistics
import subprocess
import sys

import pytest

from srmnist import degrade, load_dataset  # first: it makes Chainer import  # isort: skip
import chainer
import chainer.functions as F

from srmnist.data import to_float
from srmnist.restoration import load_model

from conftest import ROOT

LANGUAGES = ["README.md", "README.ja.md"]
READMES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "srmnist", ROOT / "results", ROOT / "scripts")
    for path in (folder.rglob("README*.md") if folder != ROOT else folder.glob("README*.md"))
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table_rows(readme: str) -> list[list[str]]:
    """Every row of every table, cell by cell."""
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"(?m)^\|.*\|$", readme)]


def headings(readme: str) -> set[str]:
    """The anchors that a code host gives to a page's headings."""
    titles = re.findall(r"(?m)^#+ (.*)$", readme)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_notebook_snippet_runs(name):
    (snippet,) = re.findall(r"```python\n(.*?)```", text(name), flags=re.DOTALL)
    program = f"{snippet}\nassert restore(degraded, model).shape == (10, 1, 28, 28)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", READMES)
def test_every_file_and_heading_that_it_links_is_there(name):
    here = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text(name)) if "://" not in link]
    for link in links:
        target, _, heading = link.partition("#")
        path = here / target if target else ROOT / name
        assert path.exists(), link
        if heading:
            assert heading in headings(path.read_text(encoding="utf-8")), link


def test_there_are_readmes_beside_what_they_explain():
    assert {*LANGUAGES, "srmnist/README.md", "results/README.md", "srmnist/engine/README.md"} <= {*READMES}
    assert len(text("README.md").splitlines()) <= 170


@pytest.mark.parametrize("name", LANGUAGES)
def test_its_table_of_flags_is_train_pys(name, script, tmp_path):
    documented = {flag for row in table_rows(text(name)) for flag in re.findall(r"`(--[a-z-]+)", row[0])}
    shown = set(re.findall(r"--[a-z-]+", script("train.py", "--help", cwd=tmp_path).stdout)) - {"--help"}
    assert documented == shown


@pytest.mark.parametrize("name", READMES)
def test_every_script_that_it_names_is_there_and_knows_the_flags(name, script, tmp_path):
    commands = re.findall(r"scripts/(\w+\.py)([^`\n]*)", text(name))
    helps = {}
    for command, arguments in commands:
        if command not in helps:
            helps[command] = script(command, "--help", cwd=tmp_path).stdout
        for flag in re.findall(r"(?<!\S)--[a-z-]+", arguments):
            assert flag in helps[command], f"{command} {flag}"


def test_measures_are_those_of_the_evaluations():
    rows = table_rows(text("results/README.md"))
    for directory in ("", "fashion/"):
        measured = json.loads((ROOT / "results" / directory / "metrics.json").read_text())["rows"]
        for label, row in measured.items():
            if label != "original":
                ssim, read = row["ssim"], row["readability"]
                numbers = (row["mse"], row["psnr_mean"], row["psnr_of_mse"], ssim, read)
                assert [label, *"{:.6f} {:.3f} {:.3f} {:.3f} {:.3f}".format(*numbers).split()] in rows
        assert ["original", "0", "", "", "1", f"{measured['original']['readability']:.3f}"] in rows


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_first_page_repeats_the_measures_as_they_are_measured(name):
    known = {tuple(row[1:]) for row in table_rows(text("results/README.md"))}
    shown = [row for row in table_rows(text(name)) if len(row) == 6 and row[1][:1] == "0"]
    assert len(shown) == 4
    assert {tuple(row[1:]) for row in shown} <= known


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_table_of_a_run_is_the_committed_log(name):
    log = json.loads((ROOT / "results" / "log").read_text())
    printed = re.findall(r"(?m)^ +(\d+) +(0\.\d+) +(0\.\d+) +([\d.]+)$", text(name))
    assert len(printed) == 2
    for epoch, loss, validation, seconds in printed:
        entry = log[int(epoch) - 1]
        assert float(loss) == pytest.approx(entry["main/loss"], rel=1e-5)
        assert float(validation) == pytest.approx(entry["validation/main/loss"], rel=1e-5)
        assert float(seconds) == pytest.approx(entry["elapsed_time"], rel=1e-5)


def shown_times(page: str) -> list[dict[str, list[str]]]:
    """The step and the evaluation of each variant, of each table that compares the engine with Chainer."""
    tables = re.findall(r"(?m)(?:^\|.*\|\n)+", page)
    times = [{row[0]: row[1:3] for row in table_rows(table)[2:]} for table in tables]
    return [shown for shown in times if {"srmnist engine", "plain Chainer"} <= set(shown)]


def test_times_are_those_of_the_benchmarks():
    files = {"README.md": ["benchmark"], "README.ja.md": ["benchmark"]}
    files["srmnist/engine/README.md"] = ["benchmark", "benchmark_avx2"]
    for name, benchmarks in files.items():
        for times, file in zip(shown_times(text(name)), benchmarks, strict=True):
            measured = json.loads((ROOT / "results" / f"{file}.json").read_text())["variants"]
            assert len(times) >= 3
            for variant, shown in times.items():
                row, kinds = measured[variant], ("step_ms", "evaluate_ms")
                assert shown == [f"{row[kind]:.1f} ms" if kind in row else "" for kind in kinds]


def test_growth_is_that_of_the_benchmark():
    """The engine's page: milliseconds a megapixel and megabytes of one image."""
    rows = json.loads((ROOT / "results" / "benchmark.json").read_text())["growth"]["side"]
    header, *shown = [
        row
        for row in table_rows(text("srmnist/engine/README.md"))
        if "4096" in row or row[-1].endswith(" more")
    ]
    assert len(shown) >= 3
    for variant, *cells, memory in shown:
        own = {row["side"]: row for row in rows if row["variant"] == variant}
        sides = [int(side) for side in header[1:-1]]
        assert cells == [f"{own[side]['evaluate_ms'] / side**2 * 1e6:.0f} ms" for side in sides]
        assert memory == f"{own[sides[-1]]['more_memory_mb']:,.0f} MB more"


def test_growth_by_batch_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "results" / "benchmark.json").read_text())["growth"]["batch"]
    kinds = {"step": "step_ms", "evaluation": "evaluate_ms"}
    shown = [row for row in table_rows(text("srmnist/engine/README.md")) if row[0].split(", ")[0] in kinds]
    assert len(shown) >= 3
    for label, *cells in shown:
        kind, variant = label.split(", ")
        costs = [row[kinds[kind]] / row["batch"] for row in rows if row["variant"] == variant]
        assert cells == [f"{cost:.3f}" if cost < 1 else f"{cost:.2f}" for cost in costs]


def last(*run: str) -> dict[str, float]:
    """The last entry of a run's log."""
    return json.loads(ROOT.joinpath("results", "recipes", *run, "log").read_text())[-1]


def test_recipes_are_means_over_their_seeds_and_times_of_a_quiet_machine():
    rows = [row for row in table_rows(text("results/README.md")) if row[0] in ("`article`", "`tuned`")]
    assert len(rows) >= 3
    for recipe, epochs, seeds, error, seconds in rows:
        name = recipe.strip("`")
        first, *rest = map(int, re.findall(r"\d+", seeds))
        suffix = {"10": "", "1": "-1-epoch"}.get(epochs, f"-{epochs}-epochs")
        ends = [last(f"{name}-{seed}{suffix}") for seed in range(first, max(rest, default=first) + 1)]
        assert {end["epoch"] for end in ends} == {int(epochs)}
        errors = [end["validation/main/loss"] for end in ends]
        spread = f" ± {statistics.stdev(errors):.5f}" if rest else ""
        assert error == f"{statistics.mean(errors):.5f}{spread}"
        quiet = last("quiet", name)
        assert seconds == f"{quiet['elapsed_time'] / quiet['epoch']:.1f} s"


def test_measures_of_the_recipes_are_those_of_the_evaluations():
    rows = {row[0]: row[1:] for row in table_rows(text("results/README.md"))}
    for label, folder in (
        ("article, 10 epochs", ""),
        ("tuned, 1 epoch", "recipes/tuned-0-1-epoch"),
        ("tuned, 10 epochs", "recipes/tuned-0"),
    ):
        measured = json.loads((ROOT / "results" / folder / "metrics.json").read_text())["rows"]["restored"]
        numbers = [measured[name] for name in ("mse", "psnr_mean", "psnr_of_mse", "ssim", "readability")]
        assert rows[label] == "{:.6f} {:.3f} {:.3f} {:.3f} {:.3f}".format(*numbers).split()


def test_the_wider_network_is_compared_by_the_logs_of_one_seed():
    section = text("results/README.md").split("### How far")[1].split("\n### ")[0]
    lengths = ("1-epoch", "5-epochs", "20-epochs", "50-epochs", "200-epochs")
    ends = [last(log) for log in ("twice-as-wide", *(f"tuned-0-{length}" for length in lengths))]
    *errors, fifty, longest = [end["validation/main/loss"] for end in ends]
    before = 0.01355  # the log of that run is not kept
    shown = [*errors, fifty, longest, fifty, ends[-1]["main/loss"], before]
    assert re.findall(r"0\.\d{5}", section) == [f"{error:.5f}" for error in shown]


def test_no_channel_is_dead_after_the_longest_run():
    """By fewer images than the page names, each of which could show that a channel lives."""
    model = load_model(ROOT / "results" / "recipes" / "tuned-0-200-epochs" / "model.npz")
    h = degrade(to_float(load_dataset().train.images[:100]))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for layer in "123":
            h = F.relu(model["bn" + layer](model["conv" + layer](h)))
            assert (h.array.max(axis=(0, 2, 3)) > 0).all()


def test_recipes_by_digit_are_as_evaluated():
    rows = {row[0]: row[1:] for row in table_rows(text("results/README.md"))}
    article, *tuned = [
        json.loads((ROOT / "results" / folder / "metrics.json").read_text())["classes"]
        for folder in ("", "recipes/tuned-0-1-epoch", "recipes/tuned-0")
    ]
    for digit in map(str, range(10)):
        measured = [article[digit]["degraded"], *(each[digit]["restored"] for each in (article, *tuned))]
        psnr, read = ([each[name] for each in measured] for name in ("psnr_mean", "readability"))
        assert rows[digit] == [*(f"{value:.2f}" for value in psnr), *(f"{value:.3f}" for value in read)]


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_first_page_compares_the_recipes_as_results_does(name):
    shown = re.findall(r"\b0\.\d{5}\b", text(name).split("\n## ")[1])
    means = [
        row[3].split()[0]
        for row in table_rows(text("results/README.md"))
        if row[:2] in (["`article`", "10"], ["`tuned`", "1"])
    ]
    assert sorted(shown) == sorted(means)
    quiet = [last("quiet", recipe) for recipe in ("article", "tuned")]
    seconds = {f"{end['elapsed_time'] / end['epoch']:.0f}" for end in quiet}
    sentence = re.search(r"\([^()]*do nothing else[^()]*\)|（[^（）]*ほかに何も[^（）]*）", text(name))
    assert seconds <= set(re.findall(r"\d+", sentence[0]))


def test_tuned_elsewhere_is_as_evaluated():
    rows = {row[0]: row[1:] for row in table_rows(text("results/README.md"))}
    for label, article, tuned in (
        ("Fashion-MNIST", "fashion", "fashion"),
        ("7×7", "sizes/7", "7"),
        ("14×14", "sizes/14", "14"),
    ):
        files = [ROOT / "results" / article, ROOT / "results" / "recipes" / "elsewhere" / tuned]
        both = [json.loads((file / "metrics.json").read_text())["rows"]["restored"] for file in files]
        shown = [
            f"{restored[name]:.{digits}f}"
            for name, digits in (("mse", 6), ("psnr_mean", 3), ("readability", 3))
            for restored in both
        ]
        assert rows[label] == shown


def test_both_languages_give_the_same_commands_figures_and_links():
    english, japanese = map(text, LANGUAGES)

    def facts(readme: str) -> dict[str, list]:
        indented = re.findall(r"(?m)^    (?! )(\S.*)$", readme)
        commands = [line for line in indented if re.match(r"(uv|pip|python) |\d|validation|written", line)]
        links = [re.sub(r"README(\.ja)?\.md|#.*", "", link) for link in re.findall(r"\]\(([^)]+)\)", readme)]
        numbers = [
            [cell for cell in row[1:] if re.fullmatch(r"[\d.]+( ms)?", cell)] for row in table_rows(readme)
        ]
        return {
            "commands": commands,
            "links": sorted(links),
            "numbers": numbers,
            "flags": re.findall(r"`(--?[a-z-]+)", readme),
            "sections": [len(level) for level in re.findall(r"(?m)^(#+) ", readme)],
        }

    assert facts(english) == facts(japanese)
