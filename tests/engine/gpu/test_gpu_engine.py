"""The GPU engine as Chainer function and as training step, on a GPU and on its stand-in."""

import copy

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
import sanitize_gpu
from chainermn import create_multi_node_optimizer
from helpers.comparisons import assert_same, everything, images, make_model
from helpers.gpu_engine import send, to_host
from srmnist import CNNAE, degrade, engine
from srmnist.training.pairs import Pairs
from srmnist.training.recipes import RECIPES, TUNED, Muon, make_optimizer
from srmnist.engine.gpu import plan, step
from srmnist.engine.gpu.resident import Resident
from srmnist.engine.gpu.vectors import Vectors, computes, updates


def found_there(device, model, x, t, train=True):
    """What `everything` finds with the engine on a device, in main memory."""
    there = send(device, model)
    found = everything(there, device.xp.asarray(x), device.xp.asarray(t), plain=False, train=train)
    return {name: to_host(array) for name, array in found.items()}


@pytest.mark.parametrize("train", [True, False])
def test_function_equals_plain_chainer(on_device, train):
    x, t = images(3, (3, 9, 12))
    model = make_model(3)
    expected = everything(copy.deepcopy(model), x, t, plain=True, train=train)
    assert_same(found_there(on_device, model, x, t, train), expected, 3e-4)


@pytest.mark.parametrize("train", [True, False])
def test_without_backprop_the_result_is_the_same(on_device, train):
    x, _ = images(4, (5, 9, 8))
    one, other = (send(on_device, make_model(4)) for _ in range(2))
    x = on_device.xp.asarray(x)
    with chainer.using_config("train", train):
        expected = one.forward(x).array
        with chainer.no_backprop_mode():
            found = other.forward(x).array
    np.testing.assert_array_equal(to_host(found), to_host(expected))
    np.testing.assert_array_equal(to_host(one.bn2.avg_var), to_host(other.bn2.avg_var))


def test_the_engine_computes_and_plain_switches_it_off(on_device):
    model, x = send(on_device, CNNAE()), on_device.xp.zeros((1, 1, 4, 4), "float32")
    assert model.forward(x).creator.label == "Restore"
    assert type(model.forward(x).creator).__module__ == "srmnist.engine.gpu.function"
    with chainer.using_config("plain", True):
        assert model.forward(x).creator.label == "Sigmoid"


def test_the_model_used_twice_in_one_graph_keeps_both_sets_of_activations(on_device):
    x, t = images(5, (3, 8, 8))
    totals = []
    for plain in (False, True):
        model = make_model(5) if plain else send(on_device, make_model(5))
        xp = np if plain else on_device.xp
        with chainer.using_config("plain", plain):
            model.cleargrads()
            loss = model(xp.asarray(x), xp.asarray(t)) + 2 * model(xp.asarray(t), xp.asarray(x))
            loss.backward()
        totals.append({name: to_host(parameter.grad) for name, parameter in model.namedparams()})
    assert_same(*totals, 3e-4)


def test_a_second_backward_adds_to_the_first(on_device):
    x, t = images(14, (3, 6, 8))
    totals = []
    for plain in (False, True):
        model = send(on_device, make_model(14))
        xp = on_device.xp
        with chainer.using_config("plain", plain):
            y = model.forward(xp.asarray(x))
            model.cleargrads()
            for factor in (1, 3):
                chainer.functions.sum(factor * y * xp.asarray(t)).backward()
        totals.append({name: to_host(parameter.grad) for name, parameter in model.namedparams()})
    assert_same(*totals, 3e-4)


def test_gradients_of_gradients_go_through_chainers_functions(on_device):
    x, t = images(6, (2, 5, 5))
    seconds = []
    for plain in (False, True):
        model = send(on_device, make_model(6))
        with chainer.using_config("plain", plain), chainer.using_config("train", False):
            model.cleargrads()
            v = chainer.Variable(on_device.xp.asarray(x))
            y = model.forward(v) * on_device.xp.asarray(t)
            (gx,) = chainer.grad([y], [v], enable_double_backprop=True)
            chainer.functions.sum(gx * gx).backward()
        seconds.append({"conv2": to_host(model.conv2.W.grad), "conv4": to_host(model.conv4.W.grad)})
    assert_same(*seconds, 1e-3)


def test_recomputing_leaves_the_running_statistics_alone(on_device):
    x, _ = images(7, (2, 6, 6))
    model = send(on_device, make_model(7))
    y = chainer.functions.forget(model.forward, chainer.Variable(on_device.xp.asarray(x)))
    before = to_host(model.bn1.avg_mean).copy()
    chainer.functions.sum(y).backward()
    np.testing.assert_array_equal(to_host(model.bn1.avg_mean), before)


def test_images_that_are_not_contiguous_are_read_right(on_device):
    x, _ = images(8, (4, 8, 10))
    model = send(on_device, make_model(8))
    x = on_device.xp.asarray(x)
    view = on_device.xp.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    with chainer.using_config("train", False):
        expected = to_host(model.forward(x).array)
        np.testing.assert_array_equal(to_host(model.forward(view).array), expected)


def test_restore_and_degrade_work_there(on_device, mnist):
    model = make_model(9)
    degraded = degrade(mnist[1][:20])
    found = srmnist.restore(degraded, send(on_device, model), batchsize=16)
    with chainer.using_config("plain", True):
        np.testing.assert_allclose(found, srmnist.restore(degraded, model), atol=2e-5)
    there = to_host(degrade(on_device.xp.asarray(mnist[1][:20])))
    np.testing.assert_allclose(there, degraded, atol=1e-6)


def pairs(seed, shape):
    """Pairs of images of noise."""
    return Pairs(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), 5)


def steps(device, model, pairs):
    """A model set up to be trained there, its optimiser, and the function that trains it."""
    model = send(device, model)
    optimizer = chainer.optimizers.Adam().setup(model)
    assert computes(model)
    return model, optimizer, step.training_step(Vectors(device, optimizer), Resident(device, pairs))


BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [3, 1, 5, 9]]


def state(optimizer):
    """Weights, statistics, and all that Adam keeps, in main memory."""
    serialized = chainer.serializers.npz.serialize(optimizer)
    weights = chainer.serializers.npz.serialize(optimizer.target)
    return {name: to_host(array).copy() for name, array in {**serialized, **weights}.items()}


def assert_equal_state(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_reference_trajectory_is_followed(device, reference):
    model = CNNAE()
    for name, parameter in model.namedparams():
        parameter.array[...] = reference[f"init{name}"]
    order = reference["order"]
    images_, index = np.unique(order, return_inverse=True)
    data = Pairs(srmnist.load_dataset().train.images[images_], 10)
    model, optimizer, training = steps(device, model, data)
    losses = []
    for i in range(20):
        losses.append(float(training(index[64 * i : 64 * i + 64])))
        if i == 0:
            for name, parameter in model.namedparams():
                expected = reference[f"grad0{name}"]
                worst = np.abs(to_host(parameter.grad) - expected).max()
                assert worst < 1e-3 * np.abs(expected).max(), name
    np.testing.assert_allclose(losses, reference["losses"], rtol=1e-3)
    found = state(optimizer)
    for name, value in chainer.serializers.npz.serialize(model).items():
        if not name.endswith("/N"):
            expected = reference[f"final/{name}"]
            assert np.linalg.norm(to_host(value) - expected) < 1e-2 * np.linalg.norm(expected), name
    assert found["t"] == found["conv1/W/t"] == 20


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_equals_chainers_own(device, recipe, train):
    data = pairs(10, (12, 8, 9))
    batches = [[0, 1, 2, 3, 4], [11, 10, 3, 3, 2], [5, 6, 7, 8, 9]]
    alphas = [0.001, 0.01, 0.0001]  # as a schedule would set them
    model = send(device, make_model(10))
    there, here = make_optimizer(recipe, model), make_optimizer(recipe, make_model(10))
    assert updates(there)
    training = step.training_step(Vectors(device, there), Resident(device, data))
    with chainer.using_config("train", train):
        for batch, alpha in zip(batches, alphas, strict=True):
            here.alpha = there.alpha = alpha
            with chainer.using_config("plain", True):
                here.update(here.target, *data.batch(batch))
            training(batch)
    found, expected = state(there), state(here)
    assert set(found) == set(expected)  # a snapshot can go from one device to the other
    for name, value in expected.items():
        if name.endswith(("/v", "/m", "/momentum")):
            continue  # of gradients: the weights show them
        # Muon gives the rounding errors of small directions of a gradient the size of its largest.
        atol = 5e-4 if recipe == TUNED else 1e-4
        np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=atol, err_msg=name)


def test_statistics_may_be_fixed_in_the_middle_of_a_run(device):
    """A run of "tuned" does so: from then on its steps are those that begin with these statistics."""
    data, batches = Resident(device, pairs(10, (12, 8, 9))), BATCHES
    results = []
    for made_anew in (False, True):
        optimizer = chainer.optimizers.Adam().setup(send(device, make_model(10)))
        vectors = Vectors(device, optimizer)
        training = step.training_step(vectors, data)
        for batch in batches:
            training(batch)
        statistics = to_host(optimizer.target.bn2.avg_var).copy()
        with chainer.using_config("train", False):
            if made_anew:
                training = step.training_step(vectors, data)
            for batch in batches:
                training(batch)
        np.testing.assert_array_equal(to_host(optimizer.target.bn2.avg_var), statistics)
        results.append(state(optimizer))
    assert_equal_state(*results)


def run_some(device, batches):
    if device.xp is np:
        device.captures = 0
    _, optimizer, training = steps(device, make_model(11), pairs(11, (12, 9, 7)))
    losses = []
    for batch in batches:
        losses.append(training(batch))
    return state(optimizer), [float(loss) for loss in losses]


@pytest.fixture
def not_yet_said():
    step._say_once.cache_clear()


def test_a_captured_step_has_the_bits_of_one_that_is_not(device, monkeypatch, not_yet_said, capsys):
    captured, losses = run_some(device, BATCHES)
    if device.xp is np:
        assert device.captures == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(type(device), "capture", no_capture)
    uncaptured, same_losses = run_some(device, BATCHES)
    assert_equal_state(captured, uncaptured)
    assert losses == same_losses


def no_capture(self, run):
    raise RuntimeError("operation not permitted when stream is capturing")


def test_capture_that_fails_is_told_once_and_training_goes_on(device, monkeypatch, not_yet_said, capsys):
    monkeypatch.setattr(type(device), "capture", no_capture)
    run_some(device, BATCHES)
    run_some(device, BATCHES)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(step.NO_CAPTURE)
    assert "not permitted" in line


def test_batches_of_other_sizes_are_computed_uncaptured(device, not_yet_said, capsys):
    mixed = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 3], [3, 1, 5, 9], [8, 2]]
    found, losses = run_some(device, mixed)
    if device.xp is np:
        assert device.captures == 1
    data = pairs(11, (12, 9, 7))
    model = make_model(11)
    optimizer = chainer.optimizers.Adam()
    optimizer.setup(model)
    for batch, loss in zip(mixed, losses, strict=True):
        with chainer.using_config("plain", True):
            optimizer.update(model, *data.batch(batch))
            assert loss > 0
    np.testing.assert_allclose(found["conv3/W"], model.conv3.W.array, rtol=2e-2, atol=2e-3)
    assert capsys.readouterr().err == ""


class Communicator:
    """What ChainerMN's communicators have, for processes of which all others found zeros."""

    def __init__(self, size):
        self.size, self.shapes = size, []

    def multi_node_mean_grad(self, model):
        for parameter in model.params():
            self.shapes.append(parameter.grad.shape)
            parameter.grad[...] /= self.size

    def bcast_data(self, model):
        pass


@pytest.mark.parametrize("kind", ["article", "tuned", "hooked"])
def test_processes_average_gradients_statistics_and_loss_in_one_exchange(device, kind):
    data = Resident(device, pairs(16, (8, 7, 9)))
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [7, 0, 2, 1]]
    results = []
    for size in (0, 1, 2):  # 0: without ChainerMN
        model = send(device, make_model(16))
        optimizer = make_optimizer("tuned" if kind == "tuned" else "article", model)
        if kind == "hooked":
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
        if size:
            communicator = Communicator(size)
            optimizer = create_multi_node_optimizer(optimizer, communicator)
            optimizer.update()  # the first only hands the weights around
        training = step.training_step(Vectors(device, optimizer), data)
        losses = [float(training(batch)) for batch in batches[: 1 if size == 2 else 3]]
        found = {
            "loss": np.array(losses),
            "mean": to_host(model.bn2.avg_mean),
            "grad": to_host(model.conv2.W.grad),
        }
        results.append({name: array.copy() for name, array in (found | state(optimizer)).items()})
        if size:
            assert communicator.shapes == [(plan.COUNT + 1 + 2 * sum(plan.CHANNELS),)] * len(losses)
    alone, with_itself, with_zeros = results
    for name, value in alone.items():  # Chainer's Adam rounds otherwise than the kernel's
        np.testing.assert_allclose(with_itself[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    model = send(device, make_model(16))
    optimizer = chainer.optimizers.Adam().setup(model)
    first = step.training_step(Vectors(device, optimizer), data)
    np.testing.assert_array_equal(with_zeros["loss"] * 2, float(first(batches[0])))
    np.testing.assert_array_equal(with_zeros["mean"] * 2, to_host(model.bn2.avg_mean))


def test_gradients_may_run_beside_the_chain_or_in_order(device):
    """The stand-in runs a captured list's launches beside the chain as late as it may."""
    shape, layers = plan.Shape(3, 9, 30), (plan.Normalisation(1e-5, 0.9),) * 3
    orders = [launch.order for launch in plan.step(shape, layers)]
    assert orders.count(plan.BESIDE) >= 5
    assert orders[-1] == plan.JOINED
    results = []
    for captured in (False, True):
        model = send(device, make_model(12))
        optimizer = chainer.optimizers.Adam().setup(model)
        data = Resident(device, pairs(12, (6, 9, 30)))
        training = step.training_step(Vectors(device, optimizer), data, captured)
        losses = [float(training(batch)) for batch in ([0, 1, 2], [3, 4, 5], [5, 0, 3])]
        results.append({"losses": np.array(losses), **state(optimizer)})
    assert_equal_state(*results)


@pytest.mark.parametrize("shape", sanitize_gpu.SHAPES)
def test_program_for_the_sanitizer_trains_and_evaluates(device, shape):
    losses = sanitize_gpu.exercise(device, shape)
    assert np.isfinite(losses).all()
    if device.xp is np:
        device.check_guards()
        assert device.captures == 0


@pytest.mark.parametrize(
    "why", ["hook", "amsgrad", "another optimiser", "frozen layer", "clipped rule", "Muon for one weight"]
)
def test_updates_of_other_optimisers_are_left_to_chainer(why):
    optimizer = chainer.optimizers.Adam(amsgrad=why == "amsgrad")
    if why == "another optimiser":
        optimizer = chainer.optimizers.SGD()
    model = CNNAE()
    optimizer.setup(model)
    if why == "hook":
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1))
    if why == "frozen layer":
        model.conv1.disable_update()
    if why == "clipped rule":
        model.conv1.W.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    if why == "Muon for one weight":
        model.conv2.W.update_rule = Muon(optimizer.hyperparam)
    assert not updates(optimizer)


def test_arrays_of_another_kind_are_left_to_chainer():
    assert engine._engine(object()) is None
