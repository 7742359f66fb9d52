"""Each optimizer against the equations of its paper, written out key by key."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.server._optimizers import OPTIMIZERS, AdaGrad, Adam, Add, FTRLProximal, Momentum, as_optimizer
from daskdml.server._tables import thinned

# One value and its gradients in, the values after each step out.


def add(o, w, grads):
    for g in grads:
        w += g
        yield w


def momentum(o, w, grads):
    # The form of Sutskever et al.: the velocity holds the rate, and nesterov takes the gradient's step once more.
    v = 0.0
    for g in grads:
        v = o.momentum * v - o.lr * g
        w += o.momentum * v - o.lr * g if o.nesterov else v
        yield w


def adagrad(o, w, grads):
    for t, g in enumerate(grads, 1):
        w -= o.lr * g / (math.sqrt(sum(h * h for h in grads[:t])) + o.eps)
        yield w


def adam(o, w, grads):
    for t in range(1, len(grads) + 1):
        m = sum((1 - o.beta1) * o.beta1 ** (t - 1 - i) * grads[i] for i in range(t)) / (1 - o.beta1**t)
        v = sum((1 - o.beta2) * o.beta2 ** (t - 1 - i) * grads[i] ** 2 for i in range(t)) / (1 - o.beta2**t)
        w -= o.lr * m / (math.sqrt(v) + o.eps)
        yield w


def ftrl(o, w, grads):
    z = -w * (o.beta / o.alpha + o.l2) - math.copysign(o.l1 if w else 0, w)
    n = 0.0
    for g in grads:
        sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / o.alpha
        z += g - sigma * w
        n += g * g
        if abs(z) <= o.l1:
            w = 0.0
        else:
            w = -(z - math.copysign(o.l1, z)) / ((o.beta + math.sqrt(n)) / o.alpha + o.l2)
        yield w


CASES = [
    (Add(), add),
    (Momentum(0.1, 0.9), momentum),
    (Momentum(0.1, 0.5, nesterov=True), momentum),
    (AdaGrad(0.3), adagrad),
    (Adam(0.01), adam),
    (Adam(0.1, 0.5, 0.9, 1e-3), adam),
    (FTRLProximal(0.5, 1.0, 0.3, 0.2), ftrl),
    (FTRLProximal(0.1), ftrl),
]
each_case = pytest.mark.parametrize(
    ("optimizer", "reference"), CASES, ids=lambda case: getattr(case, "__name__", repr(case))
)
each_optimizer = pytest.mark.parametrize("optimizer", [case[0] for case in CASES], ids=repr)


@each_case
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), chance=st.sampled_from([0.2, 0.7, 1.0]))
def test_each_key_follows_the_papers_equations(optimizer, reference, seed, chance):
    """Sparse steps in random order: a key's values depend on its own gradients alone."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=5) * (rng.random(5) < 0.7)
    histories = [(float(value), []) for value in values]
    state = optimizer.init(values)
    for _ in range(6):
        keys = np.flatnonzero(rng.random(5) < chance)
        grads = rng.normal(size=len(keys))
        optimizer.step(values, state, keys, grads)
        for key, grad in zip(keys, grads, strict=True):
            histories[key][1].append(float(grad))
    expected = [([start] + list(reference(optimizer, start, grads)))[-1] for start, grads in histories]
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


@each_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dense_step_is_a_sparse_step_of_all_keys(optimizer, dtype):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=50).astype(dtype)
    sparse = dense.copy()
    states = optimizer.init(dense), optimizer.init(sparse)
    for update_type in (dtype, "float16", "float32"):
        grad = rng.normal(size=50).astype(update_type)
        optimizer.step(dense, states[0], None, grad)
        optimizer.step(sparse, states[1], np.arange(50), grad)
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense, sparse)
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


@each_optimizer
def test_untouched_keys_and_their_state_stay(optimizer):
    values = np.linspace(-1, 1, 6)
    before, state = values.copy(), optimizer.init(values)
    optimizer.step(values, state, None, np.ones(6))
    later, old = values.copy(), {name: array.copy() for name, array in state.items()}
    optimizer.step(values, state, np.array([1, 4]), np.ones(2))
    optimizer.step(values, state, np.empty(0, np.int64), np.empty(0))
    others = [0, 2, 3, 5]
    assert not np.array_equal(later, before) and np.all(values[[1, 4]] != later[[1, 4]])
    np.testing.assert_array_equal(values[others], later[others])
    for name, array in state.items():
        assert len(array) == 6
        np.testing.assert_array_equal(array[others], old[name][others])


@each_optimizer
def test_an_update_that_may_not_be_written_to_serves(optimizer):
    values, grad, keys = np.zeros(3, "float32"), np.ones(3, "float32"), np.arange(3)
    grad.flags.writeable = keys.flags.writeable = False
    state = optimizer.init(values)
    optimizer.step(values, state, None, grad)
    optimizer.step(values, state, keys, grad)
    assert np.all(values != 0)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES[1:]], ids=repr)
def test_descends_to_the_minimum_of_a_bowl(optimizer):
    target = np.array([0.5, -0.3, 0.0])
    values = np.ones(3)
    state = optimizer.init(values)
    for _ in range(3000):
        optimizer.step(values, state, None, values - target)
    # The L2 of FTRL counts once, not each step, so it fades; its L1 likewise.
    np.testing.assert_allclose(values, target, atol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ftrl_starts_at_the_initial_values(dtype):
    values = np.array([-2.0, 0.0, 0.5], dtype)
    optimizer, start = FTRLProximal(0.1, 1.0, 0.3, 0.2), values.copy()
    state = optimizer.init(values)
    optimizer.step(values, state, None, np.zeros(3, dtype))
    np.testing.assert_allclose(values, start, rtol=1e-6)
    assert state["z"].dtype == dtype


def test_ftrl_with_l1_is_sparse():
    optimizer, values = FTRLProximal(0.1, l1=5.0), np.zeros(2)
    state = optimizer.init(values)
    for _ in range(20):
        optimizer.step(values, state, None, np.array([1.0, 0.1]))
    assert values[0] < 0 and values[1] == 0


def test_adam_counts_many_steps():
    """Beyond where the bias corrections are 1, each key by its own count."""
    optimizer, values = Adam(0.001), np.zeros(3)
    state = optimizer.init(values)
    for step in range(2000):
        keys = np.arange(3) if step % 2 else np.array([0, 2])
        optimizer.step(values, state, keys, np.ones(len(keys)))
    np.testing.assert_array_equal(state["steps"], [2000, 1000, 2000])
    # Of a constant gradient each corrected step is the learning rate.
    np.testing.assert_allclose(values, [-2, -1, -2], rtol=1e-6)


@each_optimizer
def test_settings_travel_and_do_not_change(optimizer):
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer and hash(optimizer) is not None
    with pytest.raises(AttributeError):
        optimizer.lr = 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(lr=0), r"lr=0 is outside \(0, inf\)"),
        (lambda: Momentum(momentum=1.0), r"momentum=1.0 is outside \[0, 1\)"),
        (lambda: AdaGrad(eps=-1), "eps=-1"),
        (lambda: AdaGrad(lr=math.nan), "lr=nan"),
        (lambda: Adam(beta2=1.5), "beta2=1.5"),
        (lambda: FTRLProximal(l1=-1), "l1=-1"),
        (lambda: FTRLProximal(beta=0), "beta=0 with l2=0"),
    ],
)
def test_settings_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_names():
    assert all(as_optimizer(name) == cls() for name, cls in OPTIMIZERS.items())
    assert as_optimizer(Adam(0.5)) == Adam(0.5)
    with pytest.raises(ValueError, match="no optimizer 'sgd'; there are 'add', 'momentum'"):
        as_optimizer("sgd")
    with pytest.raises(TypeError, match="add its class to OPTIMIZERS"):
        as_optimizer(Adam)


@pytest.mark.parametrize("name", [name for name, cls in OPTIMIZERS.items() if cls.ignores_zeros])
def test_what_is_0_need_not_be_sent(name):
    rng = np.random.default_rng(0)
    whole, thin = (rng.standard_normal(3000) for _ in range(2))
    thin[:] = whole
    optimizer = as_optimizer(name)
    states = [optimizer.init(whole), optimizer.init(thin)]
    for _ in range(5):
        grad = np.where(rng.random(3000) < 0.01, rng.standard_normal(3000), 0.0)
        update = thinned(grad)
        assert update.keys is not None and update.nbytes < 0.5 * grad.nbytes
        optimizer.step(whole, states[0], None, grad)
        optimizer.step(thin, states[1], update.keys, update.values)
    np.testing.assert_allclose(thin, whole, rtol=1e-12)
