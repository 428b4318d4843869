"""The article as a notebook, and training in a notebook's kernel, with its figure and its stop button."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "scripts" / "article.ipynb"
PATIENCE = 120  # seconds for one cell

Message = dict


@pytest.fixture(scope="module", autouse=True)
def own_directory(tmp_path_factory) -> Iterator[None]:
    """Kernels write their history to a directory of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        yield


@pytest.fixture
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture
def kernel() -> Iterator["Kernel"]:
    kernel = Kernel()
    yield kernel
    kernel.close()


class Kernel:
    """A notebook's kernel, as a notebook talks to it."""

    def __init__(self) -> None:
        self.manager, self.client = jupyter_client.manager.start_new_kernel(kernel_name="python3")

    def run(self, code: str, on_message: Callable[[Message], object] = lambda message: None) -> list[Message]:
        """Run a cell and return what the kernel has published about it."""
        request = self.client.execute(code)
        published = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return published
            published.append(message)
            on_message(message)

    def press_stop(self) -> None:
        self.manager.interrupt_kernel()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def text(messages: list[Message]) -> str:
    return "".join(each["content"]["text"] for each in messages if each["msg_type"] == "stream")


def pictures(messages: list[Message], kind: str) -> list[tuple[str | None, str]]:
    """The display and the PNG of each picture that was shown ("display_data") or redrawn ("update_…")."""
    shown = [each["content"] for each in messages if each["msg_type"] == kind]
    return [(each["transient"].get("display_id"), each["data"]["image/png"]) for each in shown]


def errors(messages: list[Message]) -> list[str]:
    return [each["content"]["evalue"] for each in messages if each["msg_type"] == "error"]


def test_article_runs_from_top_to_bottom(stored, small_mnist):
    cells = {cell.id: cell for cell in stored.cells}
    settings = cells["settings"].source
    settings = re.sub("^EPOCHS = 10$", "EPOCHS = 1", settings, flags=re.MULTILINE)
    settings = re.sub("^DATA = None", f"DATA = {str(small_mnist)!r}", settings, flags=re.MULTILINE)
    assert settings != cells["settings"].source
    cells["settings"].source = settings
    for cell in cells.values():
        if cell.cell_type == "code":
            cell.outputs = []
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(stored, timeout=PATIENCE, kernel_name="python3", resources=where).execute()
    kinds = {
        name: [output.output_type for output in cell.outputs]
        for name, cell in cells.items()
        if cell.cell_type == "code"
    }
    assert kinds == {
        "settings": [],
        "data": ["stream", "execute_result"],
        "degradation": ["execute_result"],
        "degradation-error": ["stream"],
        "network": ["stream"],
        "untrained": ["stream", "execute_result"],
        "training": ["display_data"],  # one figure, redrawn in place, and no table
        "losses": ["stream", "display_data"],
        "result": ["stream", "execute_result"],
        "hardest": ["execute_result"],
        "own": ["execute_result"],
    }
    for cell in cells.values():
        for output in cell.get("outputs", []):
            assert output.output_type == "stream" or "image/png" in output.data
    assert cells["losses"].outputs[0].text.startswith("  1   0.")


def test_stored_outputs_are_of_the_article_s_run(stored):
    """Ten epochs from seed 0, as `results/log` has them; other machines round a little differently."""
    cells = {cell.id: cell for cell in stored.cells}
    log = json.loads((ROOT / "results" / "log").read_text())
    rows = [line.split() for line in cells["losses"].outputs[0].text.splitlines()]
    assert [int(row[0]) for row in rows] == [*range(1, 11)]
    for row, entry in zip(rows, log, strict=True):
        assert float(row[1]) == pytest.approx(entry["main/loss"], rel=0.02)
        assert float(row[2]) == pytest.approx(entry["validation/main/loss"], rel=0.05)
    assert "restored: 18.3" in cells["result"].outputs[0].text


def test_stored_notebook_is_small_and_tells_nothing_of_its_machine(stored):
    content = NOTEBOOK.read_bytes()
    assert len(content) < 1_000_000
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert all(output.get("name") != "stderr" for cell in code for output in cell.outputs)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not re.search(r"(^|[\s'\"])/\w+/", output.get("text", ""))  # a path
    assert json.loads(content)["metadata"].keys() == {"kernelspec", "language_info"}


def test_training_is_redrawn_in_place_and_the_stop_button_keeps_what_was_learned(kernel, small_mnist):
    """In a kernel where ``%matplotlib inline`` never ran, and then in one where it did."""
    assert errors(kernel.run("import srmnist.CNNAE\nmodel = srmnist.CNNAE()")) == []
    pressed = []

    def press_at_second_drawing(message: Message) -> None:
        if message["msg_type"] == "update_display_data" and not pressed:
            pressed.append(True)
            kernel.press_stop()

    settings = f"srmnist.Settings(epoch=1_000_000, batchsize=16, data={str(small_mnist)!r})"
    stopped = kernel.run(
        f"try:\n    srmnist.train({settings})\n"
        "except srmnist.Interrupted as stop:\n"
        "    print(stop)\n"
        "    restored = srmnist.restore(srmnist.degrade(srmnist.load_mnist()[1][:3]), stop.result.model)\n"
        "    print(restored.shape)\n",
        press_at_second_drawing,
    )
    assert errors(stopped) == []
    stop, shape = text(stopped).splitlines()
    assert re.fullmatch(r"stopped by SIGINT after iteration \d+; no file is written", stop)
    assert shape == "(3, 1, 28, 28)"
    ((display, first),) = pictures(stopped, "display_data")
    redrawn = pictures(stopped, "update_display_data")
    assert display is not None
    assert {name for name, _ in redrawn} == {display}
    assert len({first, *(picture for _, picture in redrawn)}) == 1 + len(redrawn)

    short = f"srmnist.train(srmnist.Settings(epoch=1, data={str(small_mnist)!r}))"
    again = kernel.run(f"%matplotlib inline\nresult = {short}\nprint(len(result.log))")
    assert errors(again) == []
    assert text(again) == "1\n"
    ((display, _),) = pictures(again, "display_data")
    assert {name for name, _ in pictures(again, "update_display_data")} == {display}


def test_chainer_imported_first_in_a_notebook_says_what_to_do(kernel):
    kernel.run("import sys\nsys.modules['pkg_resources'] = None")  # broken on any stack
    assert errors(kernel.run("import chainer"))
    kernel.run("del sys.modules['pkg_resources']")
    (message,) = errors(kernel.run("import srmnist"))
    assert "restart the kernel" in message
    assert "`import srmnist` before `import chainer`" in message
