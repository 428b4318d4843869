"""Launches reach CuPy as its kernels take them, and a capture is always ended."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import
from chainer.backends import cuda
from srmnist.engine.gpu import device as devices
from srmnist.engine.gpu.device import Device
from srmnist.engine.gpu.plan import BESIDE, JOINED, Launch


class Stream:
    """A stream that notes what is done with it."""

    events: list
    broken = False
    made = 0

    def __init__(self, non_blocking: bool) -> None:
        self.name = ("chain", "beside")[Stream.made % 2]
        Stream.made += 1

    def __enter__(self) -> None:
        self.events.append(f"enter {self.name}")

    def __exit__(self, *exception: object) -> None:
        self.events.append(f"leave {self.name}")

    def begin_capture(self) -> None:
        self.events.append("begin")

    def record(self) -> str:
        return self.name

    def wait_event(self, event: str) -> None:
        self.events.append(f"{self.name} waits for {event}")

    def end_capture(self) -> SimpleNamespace:
        self.events.append("end")
        if self.broken:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda: self.events.append("replay"))


@pytest.fixture
def launched(monkeypatch):
    """CuPy, as far as a Device knows it; what kernels and streams are asked to do comes here."""
    calls = []

    class Module:
        def __init__(self, code: str, options: tuple[str, ...]) -> None:
            assert "__global__" in code

        def get_function(self, name):
            return lambda *arguments: calls.append((name, *arguments))

    class Event:
        def __init__(self, disable_timing: bool) -> None:
            assert disable_timing

        def synchronize(self) -> None:
            calls.append(("wait", self))

        def record(self) -> None:
            calls.append(("record", self))

    fake_cuda = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        alloc_pinned_memory=bytearray,
    )
    fake = SimpleNamespace(RawModule=Module, cuda=fake_cuda)
    monkeypatch.setattr(cuda, "cupy", fake)
    monkeypatch.setattr(Stream, "events", calls, raising=False)
    return calls


def test_launches_are_made_in_order_with_buffers_and_null_pointers(launched):
    arrays = {"a": np.arange(5), "b": np.zeros(2)}
    launches = [
        Launch("first", 3, 128, ("a", None, np.int32(7))),
        Launch("second", 1, 32, ("b", "a")),
    ]
    Device(0).bind(launches, arrays)()
    (first, second) = launched
    assert first[:3] == ("first", (3,), (128,))
    array, null, number = first[3]
    assert array is arrays["a"]
    assert (null, null.nbytes) == (0, 8)  # as wide as a pointer; CuPy 13 would crash at None
    assert type(number) is np.int32
    assert second[:3] == ("second", (1,), (32,))
    assert [id(array) for array in second[3]] == [id(arrays["b"]), id(arrays["a"])]


def test_capture_records_on_streams_of_its_own_and_replays_on_the_current_one(launched):
    orders = [("a", 0), ("b", BESIDE), ("c", 0), ("d", BESIDE), ("e", JOINED), ("f", BESIDE)]
    run = Device(0).bind([Launch(name, 1, 32, (), order) for name, order in orders], {})
    run()
    assert [call[0] for call in launched] == list("abcdef")
    launched.clear()
    replay = Device(0).capture(run)
    replay()
    beside = ["beside waits for chain", "enter beside"]
    assert [call if isinstance(call, str) else call[0] for call in launched] == [
        *("enter chain", "begin", "a", *beside, "b", "leave beside", "c", *beside, "d", "leave beside"),
        *("chain waits for beside", "e", *beside, "f", "leave beside", "chain waits for beside"),
        *("end", "leave chain", "replay"),
    ]


def test_graph_keeps_the_buffers_whose_addresses_it_holds(launched):
    buffer = np.zeros(3)
    kept = weakref.ref(buffer)
    run = Device(0).bind([Launch("a", 1, 32, ("buffer",))], {"buffer": buffer})
    run()
    launched.clear()
    replay = Device(0).capture(run)
    del run, buffer
    launched.clear()
    gc.collect()
    assert kept() is not None
    del replay
    gc.collect()
    assert kept() is None


def test_capture_that_fails_is_ended(launched, monkeypatch):
    def not_permitted(chain, beside):
        raise RuntimeError("not permitted")

    monkeypatch.setattr(Stream, "broken", True)
    with pytest.raises(RuntimeError, match="not permitted"):
        Device(0).capture(not_permitted)
    assert launched == ["enter chain", "begin", "end", "leave chain"]


def test_an_upload_waits_only_until_the_memory_it_passes_through_is_free(launched):
    class Buffer:
        def set(self, array):
            launched.append(("set", array, array.copy()))

    device, uploads = Device(0), 2 * devices._STAGES
    for number in range(uploads):
        array = np.full(3 + number % 2, number, np.int32)
        device.upload(array, Buffer())
        array[:] = -1
    turns = [launched[i : i + 3] for i in range(0, len(launched), 3)]
    assert [[call[0] for call in turn] for turn in turns] == [["wait", "set", "record"]] * uploads
    assert all(turn[0][1] is turn[2][1] for turn in turns)  # the event of that memory
    assert len({turn[0][1] for turn in turns}) == devices._STAGES
    for i, (_, (_, sent, content), _) in enumerate(turns):
        np.testing.assert_array_equal(content, np.full(3 + i % 2, i))
        if i >= devices._STAGES:  # not written to again
            np.testing.assert_array_equal(sent, content)
