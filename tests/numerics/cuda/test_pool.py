"""With RMM, numba does not say what a card has left; RMM is asked then. With a fake RMM, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from types import ModuleType, SimpleNamespace

from daskdml.numerics.cuda import Card, _card


def refuses():
    raise RuntimeError("get_memory_info is not there")


rmm = ModuleType("rmm")
rmm.mr = sys.modules["rmm.mr"] = ModuleType("rmm.mr")
sys.modules["rmm"] = rmm
rmm.mr.available_device_memory = lambda: (10, 80)
card = Card()
_card._SIMULATED = False
_card.cuda = SimpleNamespace(current_context=lambda: SimpleNamespace(get_memory_info=refuses))
for resource in (SimpleNamespace(pool_size=lambda: 60), SimpleNamespace()):
    rmm.mr.get_current_device_resource = lambda resource=resource: resource
    print(*card.memory())
"""


def test_what_is_free_includes_the_pool():
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["70 80", "10 80"], done.stderr[-2000:]
