"""Where other out-of-core learners on Dask go wrong or refuse, and what their users ask for: here it works.

The list was drawn up by running dask-ml 2025.1 and dask-glm 0.4; each test is one line of it.
"""

import pickle
import subprocess
import sys

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from daskdml import BSP, Averaging
from daskdml.linear_model import SGDClassifier, SGDRegressor
from tests.conformance.problems import COEF, FEATURES, GOOD, binary, chunked, features, frame, regression, three_classes

pytestmark = pytest.mark.usefixtures("client")


def classifier(**parameters):
    return SGDClassifier(**{"loss": "log_loss", "max_iter": 12, "tol": None, "random_state": 0} | parameters)


def regressor(**parameters):
    return SGDRegressor(**{"max_iter": 12, "tol": None, "random_state": 0} | parameters)


class TestSilentlyWrongElsewhere:
    def test_x_chunked_along_columns_too_trains_on_all_columns(self):
        X, y = binary()
        whole = classifier().fit(*chunked(X, y))
        cut = classifier().fit(da.from_array(X, chunks=(200, 2)), da.from_array(y, chunks=200))
        assert cut.coef_.shape == (1, FEATURES)
        np.testing.assert_array_equal(cut.coef_, whole.coef_)

    @pytest.mark.parametrize("loss", ["hinge", "log_loss", "multinomial"])
    def test_three_classes(self, loss):
        X, y = three_classes()
        assert classifier(loss=loss).fit(*chunked(X, y)).score(X, y) > 0.97

    def test_labels_of_minus_one_and_one_are_labels(self):
        X, y = binary()
        zero_one = classifier().fit(*chunked(X, y))
        signs = classifier().fit(*chunked(X, 2 * y - 1))
        np.testing.assert_array_equal(signs.coef_, zero_one.coef_)
        assert set(np.unique(signs.predict(X))) == {-1, 1}

    def test_predictions_have_the_type_of_the_labels(self):
        X, y = binary()
        clf = classifier().fit(*chunked(X, y))
        lazy = clf.predict(chunked(X, y)[0])
        assert isinstance(lazy, da.Array)
        assert lazy.dtype == lazy.compute().dtype == y.dtype
        boolean = classifier().fit(*chunked(X, y.astype(bool)))
        assert boolean.predict(X).dtype == bool

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_is_refused_with_its_block(self, bad):
        X, y = binary()
        X[1050, 3] = bad
        with pytest.raises(ValueError, match=r"(?is)(nan|inf).*block 5|block 5.*(nan|inf)"):
            classifier().fit(*chunked(X, y))

    def test_features_scaled_by_ten_thousand_train(self):
        X, y = binary()
        clf = classifier(learning_rate="normalized", coordinate_eta0=0.1).fit(*chunked(X * 1e4, y))
        assert np.isfinite(clf.coef_).all()
        assert clf.score(X * 1e4, y) > GOOD
        plain = classifier().fit(*chunked(X * 1e4, y))
        assert np.isfinite(plain.coef_).all()
        assert np.abs(plain.coef_).max() > 0

    def test_the_penalty_counts_and_alpha_means_what_it_says(self):
        X, y = binary()
        norms = [np.linalg.norm(classifier(alpha=alpha).fit(*chunked(X, y)).coef_) for alpha in (1e-4, 1e-2, 1.0)]
        assert norms[0] > norms[1] > norms[2] > 0

    def test_no_hidden_standardisation(self):
        """A column ten times as large gets a coefficient a tenth as large, where there is no penalty."""
        X, y = regression(intercept=0.0)
        wide = X * [10, 1, 1, 1, 1]
        clf = regressor(penalty=None, learning_rate="normalized", coordinate_eta0=0.5).fit(*chunked(wide, y))
        np.testing.assert_allclose(clf.coef_, COEF / [10, 1, 1, 1, 1], atol=0.05)

    def test_the_intercept_is_not_penalised(self):
        X, y = regression(intercept=100.0)
        reg = regressor(alpha=10.0).fit(*chunked(X, y))
        assert np.abs(reg.coef_).max() < 0.5
        assert reg.intercept_[0] == pytest.approx(100, rel=0.02)

    def test_float32_stays_float32(self):
        X, y = binary()
        clf = classifier().fit(*chunked(X.astype(np.float32), y))
        assert clf.coef_.dtype == clf.intercept_.dtype == np.float32
        assert clf.decision_function(chunked(X.astype(np.float32), y)[0]).dtype == np.float32

    def test_score_is_a_number(self):
        X, y = binary()
        clf = classifier().fit(*chunked(X, y))
        assert type(clf.score(*chunked(X, y))) is float
        assert clf.score(*chunked(X, y)) == pytest.approx(accuracy_score(y, clf.predict(X)))


class TestRefusedElsewhere:
    def test_data_frames_in_fit_and_predict(self):
        X, y = binary()
        df = frame(X, y)
        clf = classifier().fit(df[list("abcde")], df["y"])
        assert list(clf.feature_names_in_) == list("abcde")
        predicted = clf.predict(df[list("abcde")])
        assert predicted.npartitions == df.npartitions
        result = predicted.compute()
        assert isinstance(result, pd.Series)
        assert result.index.equals(df.index.compute())
        assert (result.to_numpy() == y).mean() > GOOD

    def test_unknown_chunk_sizes(self):
        X, y = binary()
        df = frame(X, y)
        unknown, target = df[list("abcde")].to_dask_array(), df["y"].to_dask_array()
        assert np.isnan(unknown.shape[0])
        clf = classifier().fit(unknown, target)
        assert clf.score(unknown, target) > GOOD
        assert (clf.predict(unknown).compute() == y).mean() > GOOD

    def test_empty_partitions(self):
        X, y = binary()
        df = frame(X, y)
        some = df.map_partitions(lambda part: part[part.index < 500], meta=df._meta)
        assert (some.map_partitions(len).compute() == 0).any()
        clf = classifier().fit(some[list("abcde")], some["y"])
        assert clf.score(some[list("abcde")], some["y"]) > 0.9
        assert len(clf.predict(some[list("abcde")]).compute()) == 500

    def test_numpy_x_with_dask_y_and_the_other_way_round(self):
        X, y = binary()
        dask_X, dask_y = chunked(X, y)
        for one, other in ((X, dask_y), (dask_X, y)):
            assert classifier().fit(one, other).score(X, y) > GOOD

    def test_x_and_y_and_weights_chunked_differently(self):
        X, y = binary()
        weights = np.linspace(0.5, 1.5, len(y))
        dask_X = da.from_array(X, chunks=(200, -1))
        alike = classifier().fit(dask_X, da.from_array(y, chunks=200), sample_weight=da.from_array(weights, chunks=200))
        apart = classifier().fit(dask_X, da.from_array(y, chunks=330), sample_weight=da.from_array(weights, chunks=70))
        np.testing.assert_array_equal(apart.coef_, alike.coef_)

    def test_sparse_blocks(self):
        X, y = binary()
        X[X < 0.5] = 0
        # As in scikit-learn, the intercept of sparse data learns more slowly; without one, sparse is dense.
        dense = classifier(fit_intercept=False).fit(*chunked(X, y))
        blocks = da.from_array(X, chunks=(200, -1)).map_blocks(scipy.sparse.csr_matrix)
        sparse = classifier(fit_intercept=False).fit(blocks, da.from_array(y, chunks=200))
        np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-6)
        np.testing.assert_array_equal(sparse.predict(blocks).compute(), dense.predict(X))

    def test_blocks_of_pydata_sparse(self):
        sparse = pytest.importorskip("sparse", reason="pydata/sparse is not installed")
        X, y = binary()
        X[X < 0.5] = 0
        blocks = da.from_array(X, chunks=(200, -1)).map_blocks(sparse.COO.from_numpy)
        clf = classifier(fit_intercept=False).fit(blocks, da.from_array(y, chunks=200))
        np.testing.assert_allclose(clf.coef_, classifier(fit_intercept=False).fit(*chunked(X, y)).coef_, rtol=1e-6)

    def test_string_labels_without_classes_given(self):
        X, y = three_classes()
        names = np.array(["setosa", "versicolor", "virginica"])[y]
        clf = classifier().fit(*chunked(X, names))
        assert clf.classes_.tolist() == ["setosa", "versicolor", "virginica"]
        assert (clf.predict(chunked(X, names)[0]).compute() == names).mean() > 0.97

    def test_constant_columns(self):
        X, y = binary()
        X = np.column_stack([X, np.zeros(len(X)), np.ones(len(X))])
        for learning_rate in ("optimal", "adagrad", "normalized"):
            clf = classifier(learning_rate=learning_rate, coordinate_eta0=0.1).fit(*chunked(X, y))
            assert clf.score(X, y) > GOOD
            assert clf.coef_[0, 5] == 0

    def test_one_class_in_a_block(self):
        X, y = three_classes()
        order = np.argsort(y, kind="stable")
        clf = classifier().fit(*chunked(X[order], y[order]))
        assert clf.score(X, y) > GOOD

    def test_sample_weight(self):
        X, y = binary()
        wrong = np.where(np.arange(len(y)) % 3 == 0, 1 - y, y)
        clf = classifier().fit(*chunked(X, wrong), sample_weight=da.from_array((wrong == y) * 1.0, chunks=200))
        assert clf.score(X, y) > GOOD
        assert clf.score(X, wrong, sample_weight=(wrong == y) * 1.0) == pytest.approx(
            clf.score(X[wrong == y], y[wrong == y])
        )

    def test_balanced_classes(self):
        X = features()
        y = (X[:, 0] + 0.5 * features(1)[:, 0] > 1.8).astype(int)
        recall = {
            weight: (classifier(class_weight=weight).fit(*chunked(X, y)).predict(X)[y == 1] == 1).mean()
            for weight in (None, "balanced")
        }
        assert recall["balanced"] > 0.85 > recall[None]

    def test_early_stopping(self):
        X, y = binary()
        clf = classifier(early_stopping=True, tol=1e-3, n_iter_no_change=2, max_iter=200).fit(*chunked(X, y))
        assert clf.n_iter_ < 200
        scores = clf.history_["validation_score"].dropna()
        assert len(scores) == clf.n_iter_
        assert scores.iloc[-1] > 0.9

    def test_warm_start(self):
        X, y = binary()
        clf = classifier(warm_start=True, max_iter=1).fit(*chunked(X, y))
        first = clf.history_["loss"].iloc[0]
        assert clf.fit(*chunked(X, y)).history_["loss"].iloc[0] < first

    def test_l1_and_elastic_net(self):
        X, y = regression(intercept=0.0)
        noise = np.column_stack([X, features(7), features(8)])
        for penalty, ratio in (("l1", {}), ("elasticnet", {"l1_ratio": 0.7})):
            reg = regressor(penalty=penalty, alpha=0.1, **ratio).fit(*chunked(noise, y))
            assert np.count_nonzero(reg.coef_[FEATURES:]) < FEATURES
            assert np.abs(reg.coef_[:3]).min() > 0.5

    @pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss"])
    def test_scorers(self, scoring):
        X, y = binary()
        scores = cross_val_score(classifier(), X, y, scoring=scoring, cv=3)
        assert scores.min() > (0.95 if scoring == "roc_auc" else -0.35)

    def test_a_fitted_model_is_pickled_and_used_without_a_cluster(self, tmp_path):
        X, y = binary()
        clf = classifier().fit(*chunked(X, y))
        (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
        np.save(tmp_path / "X.npy", X)
        code = (
            "import pickle, sys, numpy as np\n"
            "clf = pickle.load(open(sys.argv[1] + '/clf.pickle', 'rb'))\n"
            "np.save(sys.argv[1] + '/y.npy', clf.predict(np.load(sys.argv[1] + '/X.npy')))\n"
            "from distributed import Client; print(len(Client._instances))"
        )
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120)
        assert done.stdout == "0\n", done.stderr
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), clf.predict(X))


class TestAskedFor:
    def test_epochs_are_counted_and_stopping_is_by_tolerance(self):
        X, y = regression()
        full = regressor(max_iter=7).fit(*chunked(X, y))
        assert (full.n_iter_, full.history_["epoch"].max()) == (7, 7)
        assert regressor(max_iter=500, tol=1e-3).fit(*chunked(X, y)).n_iter_ < 500

    def test_minibatch_sgd(self):
        X, y = binary()
        clf = classifier(max_iter=5, strategy=BSP(rounds_per_epoch=8), learning_rate="constant", eta0=1.0).fit(
            *chunked(X, y)
        )
        assert clf.score(X, y) > GOOD

    def test_a_search_by_scikit_learn(self):
        X, y = binary()
        search = GridSearchCV(classifier(max_iter=5), {"alpha": [1e-4, 100.0]}, cv=3).fit(X, y)
        assert search.best_params_ == {"alpha": 1e-4}
        assert search.best_score_ > 0.9

    def test_a_search_over_the_strategy(self):
        X, y = binary()
        estimator = classifier(max_iter=5, strategy=Averaging(n_replicas=2))
        search = GridSearchCV(estimator, {"strategy__rounds_per_epoch": [1, 4]}, cv=2).fit(X, y)
        assert search.best_estimator_.strategy.rounds_per_epoch == search.best_params_["strategy__rounds_per_epoch"]

    def test_one_step_at_a_time(self):
        X, y = binary()
        clf = classifier()
        for part in range(10):
            rows = slice(200 * part, 200 * (part + 1))
            clf.partial_fit(
                da.from_array(X[rows], chunks=(100, -1)), da.from_array(y[rows], chunks=100), classes=[0, 1]
            )
        assert clf.score(X, y) > 0.9
