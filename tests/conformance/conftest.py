"""Collects scikit-learn's tests beside daskdml's own."""

import pytest

from tests.conformance import suite

COUNTED = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.addinivalue_line("markers", "no_check_spmatrix: scikit-learn's own, without meaning here")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    of_suite = [
        item
        for item in items
        if getattr(item, "originalname", None) in getattr(getattr(item, "module", None), "FROM_SKLEARN", ())
    ]
    foreign = [item for item in of_suite if not suite.is_ours(item.name)]
    items[:] = [item for item in items if item not in foreign]
    config.hook.pytest_deselected(items=foreign)
    ours = [item for item in of_suite if item not in foreign]
    config.stash[COUNTED] = [item.name for item in ours]
    for item in ours:
        reason = suite.EXCLUDED.get(item.name) or suite.EXCLUDED.get(item.originalname)
        if reason:
            # What hangs on rounding may pass on another machine.
            item.add_marker(pytest.mark.xfail(reason=reason, strict=reason is not suite.ON_THE_MARGIN))


@pytest.fixture
def counted(request):
    """Names of the tests of scikit-learn's that are about daskdml's estimators."""
    return request.config.stash[COUNTED]


@pytest.fixture
def global_random_seed():
    """The seed scikit-learn's tests use unless told otherwise."""
    return 42
