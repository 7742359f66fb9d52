"""Deterministic descent of one function, an evaluation at a time: Newton's method, and L-BFGS with OWL-QN for l1.

Whoever evaluates the function may be a cluster, so nothing here calls it: :func:`begun` and :func:`moved` take what was
found at a point and say, with :func:`trial`, where to look next. All that is remembered is arrays, so a descent
can be saved in the middle and gone on from; SciPy's call the function themselves, and cannot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Of the decrease that the slope promises, what a step has to bring (Armijo).
ENOUGH = 1e-4
# Lengths tried along one direction.
TRIES = 25
# Steps that change nothing that can be measured, before the descent is over.
IDLE = 2
# Of two values, a difference of so many times the noise of one may still be noise.
VAGUE = 100


class Plan(NamedTuple):
    """How to descend.

    Attributes
    ----------
    newton : bool
        By second derivatives, not by a memory of slopes.
    history : int
        Steps that L-BFGS remembers.
    gtol : float
        The descent is over where no component of the slope is larger.
    noise : float
        To how much of itself a value is known: values closer to each other count as equal.
    """

    newton: bool = False
    history: int = 10
    gtol: float = 1e-5
    noise: float = 1e-15


class Descent(NamedTuple):
    """Where a descent is: the best point so far, what is known there, and the step that is tried."""

    point: np.ndarray  # (p,)
    value: np.ndarray  # (1,): with the l1 part
    slope: np.ndarray  # (p,): of the part without it
    step: np.ndarray  # (p,)
    length: np.ndarray  # (1,): of the step, in steps
    moves: tuple[np.ndarray, ...]  # the last changes of the point, (p,) each, the newest last
    bends: tuple[np.ndarray, ...]  # of the slope
    curves: tuple[float, ...]  # the products of both
    scale: np.ndarray  # (p,): about the second derivatives, where they are not made; or (b, b): the inverse
    tally: np.ndarray  # (3,): lengths tried; idle steps; whether it is over

    @property
    def is_over(self) -> bool:
        return bool(self.tally[2])


def begun(
    point: np.ndarray,
    value: float,
    slope: np.ndarray,
    hessian: np.ndarray | None,
    scale: np.ndarray | None,
    lasso: np.ndarray,
    plan: Plan,
) -> Descent:
    """A descent from ``point``, where the function is ``value`` (without l1) with this slope and hessian."""
    scale = np.ones(0) if scale is None else scale
    total = np.array([value + lasso @ np.abs(point)])
    start = Descent(point, total, slope, np.zeros(len(point)), np.ones(1), (), (), (), scale, np.zeros(3))
    return _aimed(start, hessian, lasso, plan)


def trial(descent: Descent, lasso: np.ndarray) -> np.ndarray:
    """The point to evaluate next; the best one where the descent is over."""
    if descent.is_over:
        return descent.point
    found = descent.point + descent.length[0] * descent.step
    if lasso.any():
        # Within the orthant of the point: there the l1 part is a plane.
        side = np.where(descent.point != 0, np.sign(descent.point), -np.sign(_pull(descent, lasso)))
        found = np.where((lasso > 0) & (np.sign(found) != side), 0.0, found)
    return found


def moved(
    descent: Descent,
    point: np.ndarray,
    value: float,
    slope: np.ndarray,
    hessian: np.ndarray | None,
    lasso: np.ndarray,
    plan: Plan,
) -> Descent:
    """The descent after its trial, at ``point`` (as rounded for the evaluation), was found to be ``value``."""
    if descent.is_over:
        return descent
    before, move = float(descent.value[0]), point - descent.point
    total = value + lasso @ np.abs(point)
    promised = float(_pull(descent, lasso) @ move)
    finite = np.isfinite(total) and np.isfinite(slope).all()
    blur = plan.noise * abs(before)
    if not finite or not total <= before + ENOUGH * min(promised, 0.0) + blur:
        if finite and -promised < VAGUE * blur and total < before + VAGUE * blur:
            # Neither what was promised nor what was found differs from the best value by what can be measured.
            tried, idle, _ = descent.tally
            descent = descent._replace(tally=np.array([tried, idle + 1, float(idle + 1 >= IDLE)]))
        return descent if descent.is_over else _shorter(descent, total if finite else np.inf, promised, lasso, plan)
    tried, idle, over = descent.tally
    bend = slope - descent.slope
    moves, bends, curves = descent.moves, descent.bends, descent.curves
    curve = float(move @ bend)
    if not plan.newton and curve > 1e-12 * np.sqrt((move @ move) * (bend @ bend)):
        moves = (*moves, move)[-plan.history :]
        bends = (*bends, bend)[-plan.history :]
        curves = (*curves, curve)[-plan.history :]
    idle = 0.0 if total < before - blur else idle + 1
    there = descent._replace(
        point=point,
        value=np.array([total]),
        slope=slope,
        length=np.ones(1),
        moves=moves,
        bends=bends,
        curves=curves,
        tally=np.array([0.0, idle, float(idle >= IDLE)]),
    )
    return _aimed(there, hessian, lasso, plan)


def _shorter(descent: Descent, total: float, promised: float, lasso: np.ndarray, plan: Plan) -> Descent:
    """The same direction, to where the parabola through what is known of it is least."""
    tried, idle, _ = descent.tally
    above = total - float(descent.value[0]) - promised
    part = float(np.clip(-promised / (2 * above), 0.1, 0.5)) if np.isfinite(above) and above > 0 else 0.1
    length = descent.length * part
    moving = (descent.point + length * descent.step != descent.point).any()
    if tried + 1 < TRIES and moving:
        return descent._replace(length=length, tally=np.array([tried + 1, idle, 0.0]))
    if descent.moves:
        # What is remembered misleads: on along the slope itself.
        fresh = descent._replace(moves=(), bends=(), curves=(), length=np.ones(1), tally=np.array([0.0, idle, 0.0]))
        return _aimed(fresh, None, lasso, plan._replace(newton=False))
    return descent._replace(tally=np.array([tried, idle, 1.0]))


def _pull(descent: Descent, lasso: np.ndarray) -> np.ndarray:
    """The slope with the l1 part: where that has a kink, the one-sided one that descends, or 0."""
    if not lasso.any():
        return descent.slope
    below, above = descent.slope - lasso, descent.slope + lasso
    at_kink = np.where(below > 0, below, np.where(above < 0, above, 0.0))
    return np.where(descent.point != 0, descent.slope + lasso * np.sign(descent.point), at_kink)


def _aimed(descent: Descent, hessian: np.ndarray | None, lasso: np.ndarray, plan: Plan) -> Descent:
    """The direction to try from where a descent has come to; over where it is flat enough."""
    pull = _pull(descent, lasso)
    tried, idle, over = descent.tally
    if over or np.abs(pull).max(initial=0.0) <= plan.gtol:
        return descent._replace(tally=np.array([tried, idle, 1.0]))
    if plan.newton and hessian is not None:
        step = _newton(hessian, pull)
    else:
        step = -_remembered(descent, pull)
        if lasso.any():
            step = np.where(step * pull < 0, step, np.where(lasso > 0, 0.0, step))
    if not step @ pull < 0:
        step = -_divided(pull, descent.scale)
    return descent._replace(step=step)


def _newton(hessian: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """Minus the inverse of the hessian times the slope; what is singular is given a little of the unit matrix."""
    # Here, because workers import numerics too, and make no steps.
    from scipy.linalg import cho_factor, cho_solve

    size = max(float(np.trace(hessian)) / len(hessian), np.finfo(float).tiny)
    for damping in (0.0, 1e-12, 1e-9, 1e-6, 1e-3):
        try:
            factor = cho_factor(hessian + damping * size * np.eye(len(hessian)), check_finite=False)
        except np.linalg.LinAlgError:
            continue
        step = -cho_solve(factor, pull, check_finite=False)
        if np.isfinite(step).all():
            return step
    return -pull / size


def _remembered(descent: Descent, pull: np.ndarray) -> np.ndarray:
    """The product of the inverse hessian that L-BFGS remembers with ``pull``: the two-loop recursion."""
    # Of BLAS, because NumPy would write each product down first: with a million parameters that is half of the time.
    from scipy.linalg.blas import daxpy

    q = pull.copy()
    pairs = list(zip(descent.moves, descent.bends, descent.curves, strict=True))
    parts = []
    for move, bend, curve in reversed(pairs):
        parts.append(float(move @ q) / curve)
        q = daxpy(bend, q, a=-parts[-1])
    q = _divided(q, descent.scale)
    if pairs:
        _, bend, curve = pairs[-1]
        q *= curve / float(bend @ _divided(bend, descent.scale))
    for (move, bend, curve), part in zip(pairs, reversed(parts), strict=True):
        q = daxpy(move, q, a=part - float(bend @ q) / curve)
    return q


def _divided(vector: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A vector over the second derivatives, as far as they are known."""
    if scale.ndim == 2:
        return (vector.reshape(-1, len(scale)) @ scale).reshape(-1)
    return vector / scale if len(scale) else vector
