"""Machine code is kept on disk; what goes wrong there is harmless, and is said where somebody waits."""

import errno
import os
import sys
from collections import Counter
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import

compiled = pytest.importorskip(
    "srmnist.engine.cpu.compiled", reason="Numba is not installed: there is no engine"
)
from numba.core.dispatcher import Dispatcher  # noqa: E402

import srmnist.engine.cpu as engine  # noqa: E402


def double(x):
    return 2 * x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for the machine code."""
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget():
    """Be as in a new process."""
    compiled._directory.cache_clear()
    compiled._say.cache_clear()


def new_process():
    """The function as a new process compiles it; it has been called once."""
    forget()
    function = compiled.compiled(double)
    assert function(21) == 42
    return function


def was_loaded(function):
    return sum(function.stats.cache_hits.values()) == 1


@contextmanager
def terminal_as_stderr(monkeypatch):
    """Make stderr a terminal; the value is a function that returns what the terminal has shown since."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, monkeypatch.context() as patch:

        def shown():
            stream.write("end\n")  # what was written before has then come through the terminal
            stream.flush()
            text = ""
            while not text.endswith("end\n"):
                text += os.read(master, 1000).decode().replace("\r\n", "\n")
            return text.removesuffix("end\n")

        patch.setattr(sys, "stderr", stream)
        yield shown
    os.close(master)


def test_machine_code_is_kept_for_the_next_process(folder):
    assert not was_loaded(new_process())
    assert was_loaded(new_process())


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "absent"])
def test_a_damaged_file_is_compiled_anew_and_replaced(folder, kind, damage):
    new_process()
    (file,) = folder.rglob(f"*.{kind}")
    content = file.read_bytes()
    if damage == "absent":
        file.unlink()
    else:
        half = len(content) // 2
        file.write_bytes({"empty": b"", "cut": content[:half], "zeros": bytes(len(content))}[damage])
    assert not was_loaded(new_process())
    assert was_loaded(new_process())


def test_two_processes_that_fill_the_cache_at_once_both_compute_and_leave_it_whole(folder, monkeypatch):
    """The second process saves everything in the middle of the first one's saving."""
    first, second = compiled.compiled(double), compiled.compiled(double)
    file = first._cache._cache._cache_file
    save_data = file._save_data

    def interrupted(*args):
        assert second(21) == 42
        save_data(*args)

    monkeypatch.setattr(file, "_save_data", interrupted)
    assert first(21) == 42
    assert not was_loaded(second)
    assert was_loaded(new_process())


def test_each_compiled_function_has_a_name_of_its_own():
    """A cache that several processes have filled may otherwise hold two functions under one symbol."""
    folder = Path(engine.__path__[0])
    modules = [import_module(f"{engine.__name__}.{file.stem}") for file in folder.glob("[!_]*.py")]
    functions = {id(value): value for module in modules for value in vars(module).values()}
    names = Counter(
        (function.py_func.__module__, function.py_func.__qualname__)
        for function in functions.values()
        if isinstance(function, Dispatcher)
    )
    assert names.total() > 30
    assert max(names.values()) == 1, names.most_common(3)


def test_other_processors_and_other_sources_have_other_folders(folder, monkeypatch):
    found = {compiled._fingerprint()}
    monkeypatch.setattr(compiled.config, "CPU_NAME", "generic")
    found.add(compiled._fingerprint())
    (folder / "kernels.py").write_text("")
    monkeypatch.setattr(compiled, "_ENGINE", folder)
    found.add(compiled._fingerprint())
    assert len(found) == 3


def test_a_terminal_is_told_once_that_the_engine_is_compiled(folder, monkeypatch):
    functions = [compiled.compiled(double) for _ in range(2)]
    with terminal_as_stderr(monkeypatch) as shown:
        functions[0](21)
        assert shown() == "srmnist: compiling the engine for this processor, once, about 25 s\n"
        functions[1](0.5)
        new_process()
        assert shown() == ""


def test_a_folder_that_cannot_be_written_is_named_on_the_terminal(folder, monkeypatch):
    file = folder / "file"
    file.write_text("")
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(file))
    with terminal_as_stderr(monkeypatch) as shown:
        assert not was_loaded(new_process())
        (line,) = shown().splitlines()
    assert line == (
        "srmnist: compiling the engine for this processor, at each start, about 25 s: "
        f"cannot write in {file} (Not a directory); NUMBA_CACHE_DIR may name a folder to write in"
    )


def test_without_numba_cache_dir_a_package_that_cannot_be_written_uses_the_users_cache(folder, monkeypatch):
    (folder / "package").write_text("")
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")
    monkeypatch.setattr(compiled, "_ENGINE", folder / "package")
    monkeypatch.setattr(compiled, "user_cache_dir", lambda name, appauthor: str(folder / name))
    new_process()
    assert was_loaded(new_process())
    assert list((folder / "srmnist").rglob("*.nbc"))


def test_a_full_disk_is_told_on_the_terminal_and_harmless(folder, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    function = compiled.compiled(double)
    monkeypatch.setattr(function._cache._cache._cache_file, "_save_data", full)
    with terminal_as_stderr(monkeypatch) as shown:
        assert function(21) == 42
        first, second = shown().splitlines()
    assert first.endswith("once, about 25 s")
    assert second.startswith("srmnist: the compiled engine cannot be kept, the next start compiles again: ")
    assert "No space left on device" in second


@pytest.mark.parametrize("stream", [None, "closed", "pipe"])
def test_without_a_terminal_nothing_is_said(folder, monkeypatch, stream):
    reader, writer = os.pipe()
    with os.fdopen(reader) as output, os.fdopen(writer, "w") as pipe:
        if stream == "closed":
            pipe.close()
        monkeypatch.setattr(sys, "stderr", None if stream is None else pipe)
        new_process()
        monkeypatch.undo()
        pipe.close()
        assert output.read() == ""
