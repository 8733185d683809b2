"""Seeded smooth randomness, numpy only: the scenes are rendered with it too, and reading must not import scipy."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["fractal", "hash01", "resize", "rng_for", "smooth"]


def rng_for(seed: int, *names: str | int) -> np.random.Generator:
    """Random stream of its own for a named purpose: drawing more for one purpose never reshuffles another.

    >>> bool(rng_for(0, "towns").random() == rng_for(0, "towns").random())
    True
    """
    keys = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(seed), *keys])))


def _taps(n_in: int, n_out: int, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Index and weight of each input that an output cell is made of, cell centres aligned."""
    position = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5
    first = np.floor(position).astype(np.int64)
    t = (position - first).astype(np.float32)
    if cubic:
        # Uniform cubic B-spline: not interpolating, but without overshoot, so heights stay monotone.
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        index = first + np.arange(-1, 3)[:, None]
    else:
        weights = np.stack([1 - t, t])
        index = first + np.arange(2)[:, None]
    return np.clip(index, 0, n_in - 1), weights.astype(np.float32)


def resize(array: np.ndarray, shape: tuple[int, int], *, cubic: bool = False) -> np.ndarray:
    """Enlarge a 2-D array smoothly: linear, or a cubic B-spline that rounds off corners.

    >>> resize(np.array([[0.0, 1.0]]), (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    source = np.asarray(array, dtype=np.float32)
    for axis in (0, 1):
        if shape[axis] % source.shape[axis] == 0:
            source = _enlarge(source, shape[axis] // source.shape[axis], axis, cubic)
            continue
        index, weights = _taps(source.shape[axis], shape[axis], cubic)
        wide = (slice(None), None) if axis == 0 else (None, slice(None))
        source = _weighted(source, index, weights[(slice(None), *wide)], axis)
    return source


def _weighted(source: np.ndarray, index: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Sum over the taps; one scratch array serves them all, because fresh memory costs more than the arithmetic."""
    out = np.take(source, index[0], axis=axis)
    out *= weights[0]
    part = np.empty_like(out)
    for k in range(1, len(index)):
        # The indices are within bounds; with this mode NumPy writes straight into `out`.
        np.take(source, index[k], axis=axis, out=part, mode="clip")
        part *= weights[k]
        out += part
    return out


def _enlarge(source: np.ndarray, factor: int, axis: int, cubic: bool) -> np.ndarray:
    """`resize` along one axis by a whole factor: the weights repeat, so slices do what gathering does, much faster."""
    if factor == 1 and not cubic:
        return source
    n = source.shape[axis]
    out = np.empty((n * factor, source.shape[1]) if axis == 0 else (source.shape[0], n * factor), dtype=np.float32)
    total, part = np.empty_like(source), np.empty_like(source)
    padded = np.pad(source, [(2, 2) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    index, weights = _taps(n + 4, (n + 4) * factor, cubic)
    # The clip at the padding's own edge does not reach the part that is kept.
    for phase in range(factor):
        at = 2 * factor + phase
        for k in range(len(index)):
            start = int(index[k][at])
            piece = padded[start : start + n] if axis == 0 else padded[:, start : start + n]
            np.multiply(piece, weights[k][at], out=part if k else total)
            if k:
                total += part
        # Stored once: columns lie `factor` apart, and walking over them for each of the taps is what takes time.
        out[(slice(phase, None, factor), slice(None))[:: 1 if axis == 0 else -1]] = total
    return out


def smooth(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> np.ndarray:
    """Smooth noise of unit variance (about) whose bumps are `cell_px` cells wide."""
    small = (max(2, int(np.ceil(shape[0] / cell_px)) + 3), max(2, int(np.ceil(shape[1] / cell_px)) + 3))
    values = rng.standard_normal(small, dtype=np.float32)
    if cell_px <= 1:
        return values[: shape[0], : shape[1]]
    # The lattice covers a little more than asked, so that cells stay square whatever the shape.
    full = (round(small[0] * cell_px), round(small[1] * cell_px))
    big = resize_window(values, full, shape)
    return big / np.float32(0.47)


def resize_window(values: np.ndarray, full: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """The top-left `shape` corner of `resize(values, full, cubic=True)`, without making the rest."""
    source = values
    for axis in (0, 1):
        index, weights = _taps(source.shape[axis], full[axis], True)
        index, weights = index[:, : shape[axis]], weights[:, : shape[axis]]
        wide = (slice(None), None) if axis == 0 else (None, slice(None))
        source = _weighted(source, index, weights[(slice(None), *wide)], axis)
    return source


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4, gain: float = 0.5
) -> np.ndarray:
    """Sum of `smooth` noises, each half as wide and `gain` times as strong; unit variance (about)."""
    total = np.zeros(shape, dtype=np.float32)
    strength, power = 1.0, 0.0
    for _ in range(octaves):
        total += np.float32(strength) * smooth(rng, shape, cell_px)
        power += strength**2
        strength *= gain
        cell_px /= 2
        if cell_px < 1:
            break
    total /= np.float32(np.sqrt(power))
    return total


def hash01(number: np.ndarray, salt: int = 0) -> np.ndarray:
    """A number in [0, 1) for each integer, the same wherever it is asked: parcels keep their luck across tiles.

    >>> bool(hash01(np.array([7]))[0] == hash01(np.array([1, 7]))[1])
    True
    """
    x = np.asarray(number).astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32)) / np.float32(1 << 24)
