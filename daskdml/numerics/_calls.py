"""Calling a kernel of many arguments, from Python and from the loop over epochs, without numba's wrapper for it.

A wrapper takes two dozen arrays out of tuples of Python's, and a first fit waits a fifth of a second for it; a loop
that is compiled for each kind of rows and settings takes as long again, and more. Here all arguments are laid out once
as a list of words of 64 bits, and a few instructions of machine code, made anew in each process, pass them on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np
from llvmlite import ir
from numba import _helperlib, typeof, types, uintp
from numba._dispatcher import compute_fingerprint
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from daskdml.numerics._compiled import kept

_WORD, _STATUS = ir.IntType(64), ir.IntType(32)
_ENTRY = ir.FunctionType(_STATUS, [_WORD.as_pointer()])
_CALLED = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_HELPERS: dict[str, int] = _helperlib.c_helpers  # type: ignore[attr-defined]
_ADAPT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(_HELPERS["adapt_ndarray"])
_REALS = (float, np.floating)
# What numba passes before the arguments: where a function says what it returns, and what it raises.
_RESULTS = 2


class Call:
    """A kernel with its arguments, to be called any number of times.

    Arrays are passed as where they are: they are kept alive, and what is in them when it is called is what counts.

    Attributes
    ----------
    entry, words : int
        Addresses of machine code, and of what it is called with.
    """

    def __init__(self, entry: int, target: int, n_words: int, args: tuple[Any, ...]):
        self._args = args
        self._words = np.empty(1 + n_words, dtype=np.uint64)
        self.entry, self.words = entry, self._words.ctypes.data
        self._words[0] = target
        _lay_out(args, self._words, self._words.view(np.float64), self.words, 1)

    def __call__(self) -> None:
        # Without Python's lock, as ctypes calls.
        if _CALLED(self.entry)(self.words):
            raise MemoryError("there is no memory for what a kernel keeps beside its arguments")


class Kernel:
    """A function that is compiled for each kind of arguments it is called with, and kept on disk, as `kernel` is.

    Of numbers, arrays, None, and tuples of them; it returns nothing, and raises nothing but MemoryError.

    Parameters
    ----------
    function : callable
        Of a file, in Python that numba compiles.

    Raises
    ------
    TypeError
        When it is called and returns something, or is given something else.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.numerics import Kernel, train_rows_plain
    >>> isinstance(train_rows_plain, Kernel)
    True
    """

    __name__: str

    def __init__(self, function: Callable[..., None]):
        update_wrapper(self, function)
        self._compiled = kept(function, no_cpython_wrapper=True)
        self._found: dict[bytes, tuple[int, int, int]] = {}

    @property
    def signatures(self) -> list[Any]:
        """For which types of arguments it is compiled in this process, or was loaded."""
        return list(self._compiled.signatures)

    def __call__(self, *args: Any) -> None:
        self.prepared(args)()

    def prepared(self, args: tuple[Any, ...]) -> Call:
        """A call with these arguments, which are checked now."""
        try:
            # What numba itself knows arguments by: finding out their types takes as long as ten epochs over few rows.
            key = compute_fingerprint(args)
        except RuntimeError:
            # There are values it does not know; which one, it does not say.
            _refuse(args)
            raise
        if key not in self._found:
            self._found[key] = self._made(args)
        return Call(*self._found[key], args)

    def _made(self, args: tuple[Any, ...]) -> tuple[int, int, int]:
        _refuse(args)
        kinds = tuple(map(typeof, args))
        if kinds not in self._compiled.overloads:
            self._compiled.compile(kinds)
        made = self._compiled.overloads[kinds]
        if made.signature.return_type != types.none:
            raise TypeError(f"{self.__name__} returns {made.signature.return_type}, and a kernel nothing")
        target = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
        called = made.target_context.call_conv.get_function_type(types.none, kinds)
        return _entry(called), target, len(called.args) - _RESULTS


def _refuse(value: Any) -> None:
    """Raise where there is more than numbers, arrays, None and tuples of them."""
    if isinstance(value, tuple):
        for part in value:
            _refuse(part)
    elif value is not None and not isinstance(value, (np.ndarray, int, np.integer, np.bool_, *_REALS)):
        raise TypeError(f"a kernel takes numbers, arrays, None and tuples of them, not {type(value).__name__}")


def _lay_out(values: tuple[Any, ...], words: np.ndarray, reals: np.ndarray, start: int, at: int) -> int:
    """Write values from word ``at`` on, in the order in which numba passes their parts; returns where they end.

    ``reals`` is the same memory as ``words``, which begins at ``start``.
    """
    for value in values:
        if isinstance(value, np.ndarray):
            # What numba's own wrappers take an array apart with: five words, its shape and its strides.
            _ADAPT(value, start + 8 * at)
            at += 5 + 2 * value.ndim
        elif isinstance(value, tuple):
            at = _lay_out(value, words, reals, start, at)
        else:
            if isinstance(value, _REALS):
                reals[at] = value
            else:
                words[at] = 0 if value is None else int(value) & 0xFFFFFFFFFFFFFFFF
            at += 1
    return at


# By what is called: addresses of machine code, and what holds it.
_entries: dict[str, tuple[int, Any]] = {}


@global_compiler_lock
def _entry(kind: ir.FunctionType) -> int:
    """Machine code that calls a function of this type with words: the first is where that function is."""
    name = str(kind)
    if name not in _entries:
        library = cpu_target.target_context.codegen().create_library("daskdml_entry")
        module = library.create_ir_module("daskdml_entry")
        function = ir.Function(module, _ENTRY, "daskdml_entry")
        builder = ir.IRBuilder(function.append_basic_block())

        def word(n: int) -> Any:
            return builder.load(builder.gep(function.args[0], [_STATUS(n)]))

        callee = builder.inttoptr(word(0), kind.as_pointer())
        results = [builder.alloca(part.pointee) for part in kind.args[:_RESULTS]]
        values = [_value(builder, word(n + 1), part) for n, part in enumerate(kind.args[_RESULTS:])]
        status = builder.call(callee, results + values)
        # Numba knows two ways of all being well.
        well = builder.or_(
            builder.icmp_signed("==", status, RETCODE_OK), builder.icmp_signed("==", status, RETCODE_NONE)
        )
        builder.ret(builder.select(well, _STATUS(0), _STATUS(1)))
        library.add_ir_module(module)
        library.finalize()
        _entries[name] = library.get_pointer_to_function("daskdml_entry"), library
    return _entries[name][0]


def _value(builder: Any, word: Any, kind: Any) -> Any:
    if isinstance(kind, ir.PointerType):
        return builder.inttoptr(word, kind)
    if isinstance(kind, ir.DoubleType):
        return builder.bitcast(word, kind)
    if isinstance(kind, ir.FloatType):
        return builder.fptrunc(builder.bitcast(word, ir.DoubleType()), kind)
    return word if kind.width == 64 else builder.trunc(word, kind)


@intrinsic
def called(typingctx, entry, words):
    """Call what `Call` stands for, from compiled code; its status, 0 where all is well."""

    def codegen(context, builder, signature, args):
        entry = builder.inttoptr(args[0], _ENTRY.as_pointer())
        return builder.call(entry, [builder.inttoptr(args[1], _WORD.as_pointer())])

    return types.int32(uintp, uintp), codegen
