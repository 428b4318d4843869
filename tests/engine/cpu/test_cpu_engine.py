"""The CPU engine equals the article's functions, whatever it is given."""

import copy
import threading

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srmnist import CNNAE, degrade, engine
import chainer
from chainer import gradient_check
from helpers.comparisons import assert_same, closest_to_kink, everything, images, make_model

pytestmark = pytest.mark.skipif(engine._cpu() is None, reason="Numba is not installed: there is no engine")

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, train=st.booleans(), seed=st.integers(0, 2**16))
def test_equals_plain_chainer_for_every_shape_and_mode(shape, train, seed):
    x, t = images(seed, shape)
    model = make_model(seed)
    # One pixel has no variance: it is divided by the root of eps, and its rounding with it.
    assume(np.prod(shape) > 1 or not train)
    assume(closest_to_kink(model, x, train) > 1e-5)
    twin = copy.deepcopy(model)
    assert_same(everything(model, x, t, False, train), everything(twin, x, t, True, train), 3e-4)


@pytest.mark.parametrize("train", [True, False])
def test_equals_plain_chainer_on_a_whole_batch(train):
    x, t = images(1, (32, 28, 28))
    model = make_model(1)
    twin = copy.deepcopy(model)
    found, expected = everything(model, x, t, False, train), everything(twin, x, t, True, train)
    # Some of three million activations are so close to zero that rounding decides whether the ReLU passes
    # them. There single gradients jump, so gradients are compared as a whole.
    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) < 5e-3 * np.linalg.norm(value), name
    assert_same(found, {name: expected[name] for name in ("y", "loss", "bn3/avg_mean", "bn3/avg_var")}, 1e-4)


def in_float64(model):
    """A copy of a model that computes in float64, which the engine leaves to Chainer."""
    exact = copy.deepcopy(model)
    for link in exact.links():
        for parameter in link.params(include_uninit=False):
            parameter.array = parameter.array.astype(np.float64)
        if isinstance(link, chainer.links.BatchNormalization):
            link.avg_mean, link.avg_var = link.avg_mean.astype(np.float64), link.avg_var.astype(np.float64)
    return exact


def test_a_training_step_on_digits_is_within_rounding_of_float64(mnist):
    """Winograd's algorithm costs less accuracy than the means that plain Chainer takes in float32."""
    t = mnist[0][:24]
    x = degrade(t)
    model = make_model(2)
    truth = everything(in_float64(model), x.astype(np.float64), t.astype(np.float64), plain=False)
    found = everything(copy.deepcopy(model), x, t, plain=False)
    plain = everything(copy.deepcopy(model), x, t, plain=True)

    def error(result, name):
        return np.linalg.norm(result[name] - truth[name]) / np.linalg.norm(truth[name])

    for name in truth:
        assert error(found, name) < 1e-4, name
    assert error(found, "y") < 1e-6
    assert error(found, "y") < error(plain, "y")


def test_gradients_agree_with_finite_differences():
    x, t = images(3, (2, 6, 5))
    model = make_model(3)
    np.random.seed(3)  # gradient_check draws a direction; one in a hundred crosses a ReLU's kink

    def weighted_sum(x):
        return chainer.functions.sum(model.forward(x) * t)

    tolerances = {"eps": 2e-2, "rtol": 2e-2, "atol": 5e-3}
    with chainer.using_config("train", False):
        gradient_check.check_backward(weighted_sum, x, None, list(model.params()), **tolerances)


@pytest.mark.parametrize("train", [True, False])
def test_without_backprop_the_result_is_the_same(train):
    x, _ = images(4, (5, 9, 8))
    model = make_model(4)
    twin = copy.deepcopy(model)
    with chainer.using_config("train", train):
        expected = twin.forward(x).array
        with chainer.no_backprop_mode():
            found = model.forward(x).array
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(model.bn2.avg_var, twin.bn2.avg_var)


def test_the_model_used_twice_in_one_graph_keeps_both_sets_of_activations():
    x, t = images(5, (3, 8, 8))
    totals = []
    for plain in (False, True):
        model = make_model(5)
        with chainer.using_config("plain", plain):
            model.cleargrads()
            loss = model(x, t) + 2 * model(t, x)
            loss.backward()
        totals.append({name: parameter.grad for name, parameter in model.namedparams()})
    assert_same(*totals, 3e-4)


def test_gradients_of_gradients_go_through_chainers_functions():
    x, t = images(6, (2, 5, 5))
    seconds = []
    for plain in (False, True):
        model = make_model(6)
        with chainer.using_config("plain", plain), chainer.using_config("train", False):
            model.cleargrads()
            v = chainer.Variable(x)
            y = model.forward(v) * t
            (gx,) = chainer.grad([y], [v], enable_double_backprop=True)
            chainer.functions.sum(gx * gx).backward()
        seconds.append({"conv2": model.conv2.W.grad, "conv4": model.conv4.W.grad})
    assert_same(*seconds, 1e-3)


def test_recomputing_leaves_the_running_statistics_alone():
    x, t = images(7, (2, 6, 6))
    model, twin = make_model(7), make_model(7)
    chainer.functions.forget(model.forward, x).grad = t
    model(x, t)
    twin(x, t)
    twin(x, t)
    y = chainer.functions.forget(model.forward, x)
    before = model.bn1.avg_mean.copy()
    chainer.functions.sum(y).backward()
    np.testing.assert_array_equal(model.bn1.avg_mean, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_take_the_plain_path(dtype):
    with chainer.using_config("dtype", dtype):
        model = CNNAE()
        y = model.forward(np.zeros((1, 1, 4, 4), dtype))
    assert y.dtype == dtype
    assert y.creator.label == "Sigmoid"


def test_the_engine_is_the_default_and_plain_switches_it_off():
    model, x = CNNAE(), np.zeros((1, 1, 4, 4), np.float32)
    assert model.forward(x).creator.label == "Restore"
    with chainer.using_config("plain", True):
        assert model.forward(x).creator.label == "Sigmoid"


def test_images_that_are_not_contiguous_are_read_right():
    x, _ = images(8, (4, 8, 10))
    model = make_model(8)
    view = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    with chainer.using_config("train", False):
        np.testing.assert_array_equal(model.forward(view).array, model.forward(x).array)


def test_wrong_shapes_are_chainers_to_complain_about():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        CNNAE().forward(np.zeros((1, 3, 4, 4), np.float32))


@pytest.fixture
def with_threads():
    """Let so many threads compute, whatever the machine has."""
    from srmnist.engine.cpu import threads

    yield threads.set_thread_count
    threads.set_thread_count(None)


def test_any_number_of_threads_gives_the_same_bits(with_threads):
    x, t = images(9, (37, 6, 5))
    results = []
    for threads in range(1, 18):
        with_threads(threads)
        model = make_model(9)
        result = everything(model, x, t, plain=False)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            results.append({**result, "evaluated": model.forward(x).array})
    for result in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_a_step_of_adam_is_plain_chainers_with_its_moments():
    x, t = images(13, (6, 12, 9))
    optimizers = []
    for plain in (False, True):
        optimizer = chainer.optimizers.Adam()
        model = make_model(13)
        optimizer.setup(model)
        with chainer.using_config("plain", plain):
            for _ in range(2):
                optimizer.update(model, x, t)
        optimizers.append(dict(model.namedparams()))
    for name, expected in optimizers[1].items():
        found = optimizers[0][name]
        assert found.update_rule.t == expected.update_rule.t == 2
        for moment in ("m", "v"):
            pair = ({name: p.update_rule.state[moment]} for p in (found, expected))
            assert_same(*pair, 2e-3)


def test_models_in_several_threads_do_not_disturb_each_other():
    x, t = images(11, (9, 10, 10))
    expected = everything(make_model(11), x, t, plain=False)
    found, start = [], threading.Barrier(3)

    def work():
        model = make_model(11)
        start.wait()
        found.append(everything(model, x, t, plain=False))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3
    for result in found:
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_the_memory_of_a_batch_is_used_again_from_step_to_step():
    x, t = images(12, (9, 10, 10))
    model = make_model(12)
    addresses = set()
    for _ in range(4):
        loss = model(x, t)
        node = loss.creator.inputs[0].creator_node
        addresses.add(node._step._batch.activations[0].ctypes.data)
        loss.backward()
        del loss, node
    assert len(addresses) == 1


def test_an_image_takes_the_scratch_memory_of_one_thread(with_threads, monkeypatch):
    from srmnist.engine.cpu import geometry, memory

    taken = []
    aligned = memory.aligned
    monkeypatch.setattr(memory, "aligned", lambda size: taken.append(size) or aligned(size))
    with_threads(16)
    evaluate(make_model(14), images(14, (1, 29, 31))[0])
    assert taken == [geometry.evaluation_grid(29, 31).scratch]


def evaluate(model, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return model.forward(x).array


@pytest.mark.parametrize("shape", [(2, 1, 137), (1, 300, 5), (1, 137, 138), (2, 193, 259), (1, 260, 402)])
def test_large_images_in_blocks_equal_plain_chainer(with_threads, shape):
    x, model = images(15, shape)[0], make_model(15)
    with chainer.using_config("plain", True):
        expected = evaluate(model, x)
    with_threads(1)
    one = evaluate(model, x)
    np.testing.assert_allclose(one, expected, atol=2e-5)
    with_threads(3)
    np.testing.assert_array_equal(evaluate(model, x), one)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "shape", [(2, 5, 137), (1, 129, 6), (3, 65, 66), (1, 67, 139), (1, 130, 271), (2, 200, 64)]
)
def test_training_on_large_images_in_blocks_is_within_rounding_of_float64(shape, train):
    x, t = images(17, shape)
    model = make_model(17)
    exact = in_float64(model)
    truth = everything(exact, x.astype(np.float64), t.astype(np.float64), plain=False, train=train)
    found = everything(model, x, t, plain=False, train=train)
    for name, value in truth.items():
        # Where rounding decides whether a ReLU passes an activation, a gradient jumps: gradients as a whole.
        assert np.linalg.norm(found[name] - value) < 5e-3 * np.linalg.norm(value), name
    for name in ("y", "loss", "bn1/avg_var", "bn2/avg_var", "bn3/avg_mean", "bn3/avg_var"):
        assert np.linalg.norm(found[name] - truth[name]) < 1e-5 * np.linalg.norm(truth[name]), name


@pytest.mark.parametrize("shape", [(1, 130, 271), (3, 97, 9)])
def test_any_number_of_threads_trains_on_large_images_to_the_same_bits(with_threads, shape):
    x, t = images(18, shape)
    results = []
    for threads in (1, 2, 3, 8):
        with_threads(threads)
        results.append(everything(make_model(18), x, t, plain=False))
    for result in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(result[name], value, err_msg=name)


SIZES = [(1, 1), (28, 28), (64, 3), (193, 136), (97, 137), (1000, 999), (4, 20_000), (33, 5125)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("grid_of", ["evaluation_grid", "training_grid"])
def test_blocks_cover_each_pixel_once_and_begin_at_whole_tiles(grid_of, height, width):
    from srmnist.engine.cpu import geometry

    covered = np.zeros((height, width), np.uint8)
    grid = getattr(geometry, grid_of)(height, width)
    for (top, bottom, left, right), pixels in zip(grid.blocks, grid.pixels, strict=True):
        assert top % geometry.STRIDE == left % geometry.STRIDE == 0
        covered[top:bottom, left:right] += 1
        assert pixels == covered[top:bottom, left:right].size
    assert (covered == 1).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_each_pixels_gradient_follows_from_the_tiles_of_one_block(height, width):
    from srmnist.engine.cpu import geometry

    covered = np.zeros((height, width), np.uint8)
    for number in range(len(geometry.training_grid(height, width).blocks)):
        _, area = geometry.block_of(geometry.training_grid(height, width).blocks, number)
        tiles, whole = geometry.with_tiles_before(area), geometry.whole_gradients(area, height, width)
        covered[whole.top : whole.bottom, whole.left : whole.right] += 1
        if tiles.left < area.left:  # `kernels.convolve_gradient` needs bands of single rows there
            assert geometry.band_shape(*geometry.shape_of(tiles))[0] == 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("grid_of", "bound"), [("evaluation_grid", 2_000_000), ("training_grid", 6_000_000)])
def test_scratch_memory_does_not_grow_with_the_image(grid_of, bound):
    from srmnist.engine.cpu import geometry

    for shape in [(28, 28), (63, 136), (100, 100), (135, 5000), (5000, 135), (3000, 3000), (7000, 7001)]:
        assert 4 * getattr(geometry, grid_of)(*shape).scratch < bound


def test_evaluation_follows_every_change_of_the_weights_and_statistics():
    """It keeps what it has computed of the weights; a change in place must not be missed."""
    x, model = images(16, (2, 10, 11))[0], make_model(16)
    arrays = [param.array for param in model.params()]
    for link in (model.bn1, model.bn2, model.bn3):
        arrays += [link.avg_mean, link.avg_var]
    for array in arrays:
        array.ravel()[-1] += 0.5
        with chainer.using_config("plain", True):
            expected = evaluate(model, x)
        np.testing.assert_allclose(evaluate(model, x), expected, atol=2e-5)
