"""The kernels of a GPU, run by numba's simulator and compared with the CPU's numbers. Prints a JSON object.

A script, because numba decides when it is imported whether it simulates: NUMBA_ENABLE_CUDASIM=1.
"""

import json
import sys
from types import SimpleNamespace

import dask.array as da
import numpy as np
import scipy.sparse as sp
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker
from greenlet import getcurrent, greenlet
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator import kernelapi
from numba.np.numpy_support import as_dtype

from daskdml import Averaging, FullBatch, numerics
from daskdml.data import _stream as streaming
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.models import LinearModel
from daskdml.numerics import KINKED, LOSSES, PENALTIES, SCHEDULES, Settings, _hessian, as_rows, copy_state, init_state
from daskdml.numerics.cuda import Card, Threads, _card, _curves, _layout
from daskdml.strategies import _work as work

N, D, BATCH = 21, 7, 9
MODES = {"regression": (0, 1), "binary": (1, 1), "ova": (2, 3), "softmax": (3, 3)}


def problem(mode="binary", loss="log_loss", sparse=False, dtype="f4", weighted=True, stopped=(), d=D, **settings):
    rng = np.random.default_rng(0)
    number, k = MODES[mode]
    X = np.where(rng.random((N, d)) < 0.4, 0, rng.standard_normal((N, d))).astype(dtype)
    y = (rng.standard_normal(N) if mode == "regression" else rng.integers(0, max(k, 2), N)).astype(dtype)
    penalty = settings.pop("penalty", "l2")
    chosen = Settings(
        LOSSES[loss].number,
        number,
        penalty=PENALTIES[penalty],
        l1_ratio={"l1": 1.0, "elasticnet": 0.3}.get(penalty, 0.0),
        schedule=SCHEDULES[settings.pop("schedule", "optimal")],
        **{"alpha": 0.01, "eta0": 0.1} | settings,
    )
    state = init_state(k, d, np.dtype(dtype), chosen)
    state.coef[...] = 0.1 * rng.standard_normal((k, d))
    return SimpleNamespace(
        block=SimpleNamespace(index=0, X=sp.csr_matrix(X) if sparse else X, y=y, sample_weight=None),
        weight=rng.random(N).astype(dtype) if weighted else np.empty(0, dtype),
        order=rng.permutation(N).astype(np.int32)[:-2],
        settings=chosen,
        state=state,
        sides=(np.full(max(k, 1), 1.5), np.ones(max(k, 1))),
        active=np.array([i not in stopped for i in range(k)]),
    )


def on_cpu(p):
    state, totals = copy_state(p.state), np.zeros((2, len(p.state.coef)))
    given = (p.order, state, p.settings, *p.sides, p.active, totals)
    numerics.train_batches(BATCH, as_rows(p.block.X), p.block.y, p.weight, *given)
    return state, totals


def put(card, p):
    p.block.sample_weight = p.weight if len(p.weight) else None
    return card.put(p.block)


def on_card(p, card):
    state = copy_state(p.state)
    totals = card.train(put(card, p), p.order, state, p.settings, p.sides, p.active, BATCH)
    return state, totals


def apart(a, b):
    """The largest difference of two states with their totals, relative to their size."""
    pairs = [(getattr(a[0], f), getattr(b[0], f)) for f in a[0]._fields] + [(a[1], b[1])]
    return max(float(np.max(np.abs(x - y), initial=0) / max(1.0, np.max(np.abs(x), initial=0))) for x, y in pairs)


def stepwise(p, card, blocks):
    """The phases of a batch launched one by one, by several blocks: what one launch does by one block here."""
    state = copy_state(p.state)
    block = put(card, p)
    call = _card._Work(card, block, state, BATCH)
    call.together = blocks
    call._pack(state, blocks)
    call.blocks = blocks
    given = call.begin(block, p.order, state, p.settings, p.sides, p.active)
    for start in range(0, len(p.order), BATCH):
        span = (start, min(start + BATCH, len(p.order)))
        call.slopes(given, *span)
        call.launch(call.kernels.step, blocks, given, "data weights scratch numbers", *span)
    call.end(state)
    state.clock[0] += len(p.order)
    return state, call.totals(p.settings)


def gradients(p, card):
    out = numerics.zero_gradient(p.state, p.settings)
    settings = numerics.gradient_settings(p.settings)
    given = (p.order, p.state, settings, *p.sides, p.active, out)
    numerics.gradient_rows(as_rows(p.block.X), p.block.y, p.weight, *given)
    sums, losses = card.gradient(put(card, p), p.order, p.state, p.settings, p.sides, p.active)
    found = np.abs(sums[:, :-1] - out.coef).max(), np.abs(sums[:, -1] - out.intercept).max()
    return float(max(*found, np.abs(losses - out.totals[0]).max()))


def summed(p, card, curved=False, scaled=False, rows=None):
    """How far apart the sums of a full-batch pass are, of CPU and card, by what they are of.

    Second derivatives are of about so many ``rows`` for each feature.
    """
    n_outputs, d = p.state.coef.shape
    model = LinearModel(p.settings, n_outputs, d, p.state.coef.dtype, *p.sides)
    sample = None if rows is None else model.sample(None, rows, 3)
    found = []
    for block in (p.block, put(card, p)):
        sums = model.zero_sums(p.state, curved, scaled)
        # In parts, a later one with what an earlier one has left on the card; some rows twice, in their own order.
        for order in (p.order[:11], p.order[11:], p.order[:0], numerics.BatchOrder(N, None)[3:17]):
            model.add_sums(p.state, block, order, p.active, sums, sample)
        found.append(sums)
    return {
        name: float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))
        for name, a, b in zip(found[0]._fields, *found, strict=True)
        if a.size
    } | {"kept": float(np.count_nonzero(found[0].hessian))}


def summed_on(p, card, rows):
    """The sums that a card makes, with second derivatives of about so many rows for each feature."""
    model = LinearModel(p.settings, *p.state.coef.shape, p.state.coef.dtype, *p.sides)
    sums = model.zero_sums(p.state, True, False)
    model.add_sums(p.state, put(card, p), p.order, p.active, sums, model.sample(None, rows, 3))
    return sums


def passes(card):
    """Sums of full-batch passes: the largest difference of a case, with what it is of."""
    smooth = [(n, loss) for n, loss in LOSSES.items() if loss.number not in KINKED and n != "multinomial"]
    modes = [("regression", n) if loss.regression else (m, n) for n, loss in smooth for m in ("binary", "ova")]
    modes = [*dict.fromkeys(modes), ("softmax", "multinomial")]
    kinds = {"": {}, "by curvature": {"curved": True}, "of some rows": {"curved": True, "rows": 0.4}}
    kinds |= {"with sizes": {"scaled": True}}
    cases = {
        f"{mode} {loss}, {'sparse' if sparse else 'dense'}, {kind}": (
            given,
            {"mode": mode, "loss": loss, "sparse": sparse},
        )
        for number, (mode, loss) in enumerate(modes)
        for place, (kind, given) in enumerate(kinds.items())
        for sparse in (False, True)
        # Every loss with everything, and the kinds of rows in turn; all of them of the two that most fits have.
        if loss in ("log_loss", "multinomial") or (number + place) % 2 == sparse
    }
    for name, params in {
        "float64": {"dtype": "f8", "mode": "softmax", "loss": "multinomial"},
        "float64, sparse": {"dtype": "f8", "mode": "ova", "sparse": True, "stopped": (1,)},
        "no intercept": {"fit_intercept": False, "mode": "softmax", "loss": "multinomial", "weighted": False},
        "l1": {"penalty": "l1", "dtype": "f8"},
        "l1, sparse": {"penalty": "l1", "sparse": True},
    }.items():
        for kind, given in kinds.items():
            if not ("l1" in name and "curved" in given):
                cases[f"{name}, {kind}"] = given, params
    result = {}
    for name, (given, params) in cases.items():
        # With the intercept two squares of columns, the second of them not full.
        found = summed(problem(**params, d=10), card, **given)
        kept = found.pop("kept")
        worst = max(found, key=found.get)
        result[name] = {"apart": found[worst], "of": worst, "kept": kept}
    _card.GRADIENT_ROWS = 4
    for mode, loss, sparse in (("softmax", "multinomial", False), ("ova", "log_loss", True)):
        for kind, given in kinds.items():
            found = summed(problem(mode, loss, sparse, d=10), Card(card.threads), **given)
            kept = found.pop("kept")
            result[f"a few rows at once, {mode}, {kind}"] = {"apart": max(found.values()), "kept": kept}
    _card.GRADIENT_ROWS = 2**18
    # Of blocks of thousands of rows a part is taken for the products of columns.
    _hessian._AT_ONCE, _hessian._GRAM = 8, 0
    found = summed(problem("ova", d=10), card, scaled=True)
    kept = found.pop("kept")
    result["products of some rows"] = {"apart": max(found.values()), "kept": kept}
    p = problem(loss="modified_huber")
    first, again = (summed_on(p, card, 0.4) for _ in range(2))
    same = all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    return {"cases": result, "same bits again": same, "memory": working_memory()}


CASES = {
    **{f"loss {name}": {"loss": name, "mode": "regression"} for name, loss in LOSSES.items() if loss.regression},
    **{f"loss {n}": {"loss": n} for n, loss in LOSSES.items() if not loss.regression and n != "multinomial"},
    "softmax": {"loss": "multinomial", "mode": "softmax"},
    "softmax of sparse rows": {"loss": "multinomial", "mode": "softmax", "sparse": True, "schedule": "adagrad"},
    "ova, a problem stopped": {"loss": "hinge", "mode": "ova", "stopped": (1,)},
    "ova, a problem stopped, sparse": {"loss": "hinge", "mode": "ova", "stopped": (1,), "sparse": True},
    "l1": {"penalty": "l1", "schedule": "constant"},
    "elasticnet, adagrad": {"penalty": "elasticnet", "schedule": "adagrad"},
    "elasticnet, sparse": {"penalty": "elasticnet", "schedule": "adaptive", "sparse": True},
    "no penalty, invscaling": {"penalty": "none", "schedule": "invscaling"},
    "running mean": {"average": 5, "weighted": False},
    "running mean, sparse": {"average": 1, "sparse": True},
    "float64": {"dtype": "f8", "mode": "ova"},
    "float64, sparse": {"dtype": "f8", "mode": "ova", "sparse": True},
    "no intercept": {"fit_intercept": False},
}


def fits(card):
    """Estimators, all strategies, rows on the device against rows on the host: the largest difference of coef_."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((48, 4)).astype("f4")
    y = (X[:, 0] + 0.3 * rng.standard_normal(48) > 0).astype(int)
    lazy = da.from_array(X, chunks=(16, 4)), da.from_array(y, chunks=16)
    found = {}
    for name, given, params in [
        ("averaging", (X, y), {"early_stopping": True, "validation_fraction": 0.25}),
        ("averaging", lazy, {"strategy__n_replicas": 2, "early_stopping": True}),
        ("averaging", lazy, {"strategy__n_replicas": 2, "device_memory": 400}),
        ("bsp", lazy, {"strategy__n_replicas": 2, "strategy__rounds_per_epoch": 3}),
        ("ssp", lazy, {"strategy__n_replicas": 1}),
    ]:
        common = {"loss": "log_loss", "max_iter": 2, "tol": None, "random_state": 0}
        batch = "auto" if name == "bsp" else 10
        own = {k: v for k, v in params.items() if not k.startswith("strategy__")}
        nested = {k: v for k, v in params.items() if k.startswith("strategy__")}

        def fit(device, own=own, name=name, batch=batch, common=common, nested=nested, given=given):
            own = {k: v for k, v in own.items() if device != "cpu" or k != "device_memory"}
            clf = SGDClassifier(**common, **own, device=device, batch_size=batch, strategy=name)
            return clf.set_params(**nested).fit(*given)

        there, here = fit("cuda"), fit("cpu")
        scale = np.abs(here.coef_).max()
        where = "in memory" if given[0] is X else "of Dask"
        found[f"{name} {where} {sorted(own)}"] = {
            "apart": float(np.abs(there.coef_ - here.coef_).max() / scale),
            "gpu_replicas": [int(v) for v in there.history_["gpu_replicas"]],
            "on_cpu": int(here.history_["gpu_replicas"].sum()),
            "from_device": [int(v) for v in there.history_["blocks_from_device"]],
            "from_memory": [int(v) for v in there.history_["blocks_from_memory"]],
            "replicas": int(there.replicas_["gpu"].sum()),
            "rows": len(there.replicas_),
        }
    found["mixed"] = mixed(lazy, strategy=Averaging(2), batch_size=10, max_iter=2)
    reg = SGDRegressor(device="cuda", batch_size=8, max_iter=2, tol=None, random_state=0).fit(X, X[:, 1])
    same = SGDRegressor(device="cpu", batch_size=8, max_iter=2, tol=None, random_state=0).fit(X, X[:, 1])
    found["regressor"] = {"apart": float(np.abs(reg.coef_ - same.coef_).max())}
    return found


def descents(card):
    """Full-batch fits to the optimum, rows on the device against rows on the host."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((60, 5)) < 0.3, 0, rng.standard_normal((60, 5)))
    score = X @ np.array([1.0, -1.0, 0.5, 0.0, 0.0]) + rng.standard_normal(60)
    y, label, weight = (score > 0).astype(int), np.digitize(score, [-0.7, 0.7]), rng.uniform(0.5, 2.0, 60)
    lazy = da.from_array(X, chunks=(20, 5)), da.from_array(y, chunks=20)
    log, many = {"loss": "log_loss"}, {"loss": "multinomial"}
    found = {}
    for name, cls, given, strategy, params in [
        ("newton", SGDClassifier, (X.astype("f4"), y), FullBatch(), log),
        ("newton by some rows", SGDClassifier, lazy, FullBatch(2, hessian_rows=2), log),
        ("newton of sparse rows with weights", SGDClassifier, (sp.csr_array(X), label, weight), FullBatch(), log),
        ("newton, softmax", SGDClassifier, (X, label), FullBatch(solver="newton"), many | {"class_weight": "balanced"}),
        ("lbfgs, softmax", SGDClassifier, (X, label, weight), FullBatch(solver="lbfgs"), many),
        ("lbfgs, l1, of sparse rows", SGDClassifier, (sp.csr_array(X), y), FullBatch(), log | {"penalty": "l1"}),
        ("lbfgs, elasticnet", SGDClassifier, lazy, FullBatch(2), log | {"penalty": "elasticnet", "alpha": 0.01}),
        ("warmed up", SGDClassifier, lazy, FullBatch(1, warm_up=2), log | {"batch_size": 10}),
        ("huber", SGDRegressor, (X, score), FullBatch(), {"loss": "huber", "epsilon": 0.5}),
        ("squares", SGDRegressor, (sp.csr_array(X.astype("f4")), score), FullBatch(solver="lbfgs"), {}),
    ]:
        strict = strategy.set_params(gtol=1e-4 if given[0].dtype == np.float32 else 1e-7)
        fixed = {"tol": None, "max_iter": 60, "random_state": 0, "strategy": strict} | params
        weights = {"sample_weight": given[2]} if len(given) > 2 else {}
        # A warm-up on the CPU takes the same batches where it is told how many rows they have.
        there, here = (cls(device=device, **fixed).fit(*given[:2], **weights) for device in ("cuda", "cpu"))
        found[name] = {
            "apart": float(np.abs(there.coef_ - here.coef_).max() / np.abs(here.coef_).max()),
            "objective": float(there.history_["objective"].iloc[-1] - here.history_["objective"].iloc[-1]),
            "passes": [int(there.n_iter_), int(here.n_iter_)],
            "gpu_replicas": [int(v) for v in there.history_["gpu_replicas"]],
            "on_cpu": int(here.history_["gpu_replicas"].sum()),
        }
    found["mixed"] = mixed(lazy, strategy=FullBatch(2, gtol=1e-7), max_iter=60)
    return found


def working_memory():
    """Bytes that second derivatives take of a card with the most blocks, and what a model says of it before a fit."""
    found = {}
    for name, (mode, loss, d, curved) in {
        "newton": ("binary", "log_loss", 200, True),
        "newton, softmax": ("softmax", "multinomial", 70, True),
        "lbfgs": ("ova", "log_loss", 500, False),
        "lbfgs of many columns": ("binary", "log_loss", 3000, False),
    }.items():
        p = problem(mode, loss)
        k = MODES[mode][1]
        model = LinearModel(p.settings, k, d, np.dtype("f4"), *p.sides)
        curves = _curves.Curves(Card(), put(Card(), p), model.init(), True, _card.GRADIENT_ROWS, 1056)
        wanted = [_curves.Wanted(False, _curves._alone(k))]
        if curved:
            pairs = _curves._together(k) if mode == "softmax" else _curves._alone(k)
            wanted.append(_curves.Wanted(True, pairs, mode == "softmax"))
        elif d < numerics.GRAM_COLUMNS:
            wanted.append(_curves.Wanted(True, ((1, 1),)))
        tables = [curves._table(one) for one in wanted]
        arrays = [*curves._point, curves._curves, *(a for table in tables for a in (table.flat, table.sums))]
        found[name] = [sum(int(a.nbytes) for a in arrays), model.sums_bytes(curved)]
    return found


def mixed(lazy, **own):
    """Two workers, one of which has a card: each replica's task goes by its worker."""
    has_card = numerics.card

    def here():
        try:
            return has_card() if get_worker().name == "with a card" else None
        except ValueError:
            return has_card()

    streaming.card = work.card = here
    params = {"loss": "log_loss", "tol": None, "random_state": 0} | own
    address = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    one = {"cls": Worker, "options": {"nthreads": 1, **address}}
    spec = {"with a card": one, "without": one}
    with SpecCluster(spec, {"cls": Scheduler, "options": address}) as cluster, Client(cluster):
        there, same = (SGDClassifier(device=device, **params).fit(*lazy) for device in ("auto", "cpu"))
    streaming.card = work.card = has_card
    return {
        "apart": float(np.abs(there.coef_ - same.coef_).max() / np.abs(same.coef_).max()),
        "gpu": [int(v) for v in there.history_["gpu_replicas"]],
    }


def kernels(card):
    result = {name: apart(on_cpu(problem(**case)), on_card(problem(**case), card)) for name, case in CASES.items()}
    # A warp of 4 takes 2 rows of 7 at once, then none: neighbours share a row, and rows go to shared memory.
    for nbytes in (8, 0):
        _layout.REGISTER_BYTES = nbytes
        for name in ("binary", "regression"):
            loss = {"loss": "squared_error"} if name == "regression" else {}
            _card.LONG_BATCH = 0 if name == "regression" else 256
            result[f"{nbytes} bytes in registers, {name}"] = apart(
                on_cpu(problem(name, **loss)), on_card(problem(name, **loss), Card(card.threads))
            )
    _layout.TILE_BYTES, _card.LONG_BATCH = 0, 256
    result["rows too long for a tile"] = apart(on_cpu(problem()), on_card(problem(), Card(card.threads)))
    _layout.TILE_BYTES, _layout.REGISTER_BYTES = 40 * 1024, 128
    order = numerics.BatchOrder(N, 5)[3:20]
    p = problem()
    p.order = np.asarray(order)
    expected = on_cpu(p)
    p.order = order
    none = problem()
    none.order = none.order[:0]
    result["no rows"] = apart(on_cpu(none), on_card(none, Card(card.threads)))
    result["an order made on the device"] = apart(expected, on_card(p, card))
    for mode, sparse in (("ova", False), ("ova", True), ("binary", False)):
        p = problem(mode=mode, loss="hinge", sparse=sparse, schedule="adagrad")
        kind = "sparse" if sparse else f"dense, {mode}"
        result[f"several blocks, {kind}"] = apart(on_cpu(p), stepwise(p, card, 3))
        first, second = (stepwise(p, card, 3) for _ in range(2))
        same = all(np.array_equal(x, y) for x, y in zip(first[0], second[0], strict=True))
        result[f"same bits again, {kind}"] = 0.0 if same and np.array_equal(first[1], second[1]) else 1.0
        result[f"gradient, {kind}"] = gradients(p, card)
        scores = card.scores(put(card, p), p.order, p.state.coef, p.state.intercept)
        expected = (p.block.X @ p.state.coef.T)[p.order] + p.state.intercept
        result[f"scores, {kind}"] = float(np.abs(scores - expected).max())
    p = problem(loss="squared_error", mode="regression", schedule="constant", sparse=True)
    p.state.coef[0, 0] = np.nan
    result["what is no number stays none"] = 0.0 if np.isnan(on_card(p, card)[0].coef).all() else 1.0
    return result


def shared_array(self, shape, dtype):
    """Shared memory by the line that asks for it, as numba's simulator has it, but one for all threads.

    There, two threads that ask at the same time for the first time are given one each.
    """
    if shape == 0:
        return shared_array_before(self, shape, dtype)
    frame = sys._getframe(1)
    array = np.empty(shape, as_dtype(dtype))
    return self._allocations.setdefault((frame.f_code.co_filename, frame.f_lineno), array)


shared_array_before = kernelapi.FakeCUDAShared.array
kernelapi.FakeCUDAShared.array = shared_array


class Block(simulator.BlockManager):
    """A block whose threads are coroutines that take turns, each until it waits for the others.

    Numba's own are threads of the system and polls: minutes where the cores have other work. Here the first begins and
    next time the last, an order that kernels must not rely on.
    """

    def run(self, grid_point, *args):
        live = []
        for point in np.ndindex(*self._block_dim):
            thread = Thread(None, self, grid_point, point, self._debug)
            thread.turn = greenlet(lambda: self._f(*args))
            thread.turn.cuda = thread
            live.append(thread)
        while live:
            for thread in live:
                thread.turn.switch()
            live = [thread for thread in reversed(live) if not thread.turn.dead]


class Thread(simulator.BlockThread):
    def syncthreads(self):
        self.turn.parent.switch()


simulator.BlockManager = Block
kernelapi.threading = SimpleNamespace(current_thread=lambda: getcurrent().cuda)

if __name__ == "__main__":
    small = Threads(8, 4)
    if sys.argv[1] in ("kernels", "passes"):
        print(json.dumps(globals()[sys.argv[1]](Card(small))))
    else:
        numerics.card().threads = small
        print(json.dumps({"fits": fits, "descents": descents}[sys.argv[1]](numerics.card())))
