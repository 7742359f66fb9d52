"""scikit-learn's tests of SGDClassifier and SGDRegressor, run on daskdml's; see suite.py."""

from tests.conformance import suite

_module = suite.load()
FROM_SKLEARN = {name: test for name, test in vars(_module).items() if name.startswith("test_") and callable(test)}
globals().update(FROM_SKLEARN)


def test_at_least_95_percent_pass(counted):
    """Every test that is not excluded has to pass by itself; here the excluded ones are counted."""
    excluded = [name for name in counted if name in suite.EXCLUDED or name.split("[")[0] in suite.EXCLUDED]
    assert len(counted) > 200
    assert len(excluded) <= 0.05 * len(counted), excluded


def test_every_exclusion_names_a_test_and_a_reason(counted):
    names = set(counted) | {name.split("[")[0] for name in counted}
    for name, reason in suite.EXCLUDED.items():
        assert name in names, f"{name} is excluded, but scikit-learn has no such test"
        assert len(reason.split()) > 4, f"{name} is excluded without a reason"


def test_both_estimators_are_swapped():
    import daskdml.linear_model as ours

    assert _module.linear_model.SGDClassifier is ours.SGDClassifier
    assert issubclass(_module._SparseSGDRegressor, ours.SGDRegressor)
