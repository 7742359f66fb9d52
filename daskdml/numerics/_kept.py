"""Where compiled kernels are kept on disk: a file for each kernel and each kind of arguments, whole or not there.

Numba's own cache numbers its files and writes down which is whose in another. Two processes that compile a kernel for
two kinds of arguments at the same time take the same number, and from then on the one kind may be answered with the
machine code of the other, which reads and writes anywhere. Workers that begin together are such processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile


class KeptKernel(IndexDataCacheFile):
    """The files of one kernel, each named after its key and holding it.

    A key is what numba distinguishes: the types of the arguments, the processor, the byte code.
    """

    def save(self, key: Any, data: Any) -> None:
        # The kernel can be called all the same: what a full disk does not take costs the next process time.
        with contextlib.suppress(OSError):
            self._save_data(self._name(key), (self._header(), self._dump((key, data))))

    def load(self, key: Any) -> Any:
        # Whatever is the matter with a file, the kernel is compiled anew.
        with contextlib.suppress(Exception):
            header, kept = self._load_data(self._name(key))
            if header == self._header():
                found, data = pickle.loads(kept)
                return data if found == key else None
        return None

    def has(self, key: Any) -> bool:
        """Whether there is a file for a key, made of the same as this would be."""
        with contextlib.suppress(Exception):
            header, _ = self._load_data(self._name(key))
            return bool(header == self._header())
        return False

    def flush(self) -> None:
        for path in Path(self._cache_path).glob(self._data_name_pattern.format(name="*")):
            path.unlink(missing_ok=True)

    @classmethod
    def of(cls, file: IndexDataCacheFile, parts: str) -> KeptKernel:
        """In the place of numba's own ``file``; ``parts`` stands for what else the kernel is made from."""
        base = file._index_name.removesuffix(".nbi")
        kept = cls(file._cache_path, base, (file._source_stamp, parts))
        kept._data_name_pattern = base + ".{name}.nbc"
        return kept

    def _name(self, key: Any) -> str:
        # By its text: pickles of equal keys differ from process to process.
        return self._data_name_pattern.format(name=hashlib.sha256(repr(key).encode()).hexdigest()[:16])

    def _header(self) -> tuple[str, Any]:
        # Looked at before the rest, which another numba's classes are needed for.
        return numba.__version__, self._source_stamp
