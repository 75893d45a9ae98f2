"""A texture and its half-sized means, down to 1 × 1 (Williams 1983, "Pyramidal parametrics")."""

from __future__ import annotations

import numpy as np

from preprocess.compiled import compile_kernel, eight_bytes_at

_HALVES = np.uint64(0x000200020002)  # for rounding quarters of three sums
_RED_BLUE, _GREEN = np.uint32(0x00FF00FF), np.uint32(0x0000FF00)  # of a packed texel: room for sums of four


class MipChain:
    """A texture u8 (h, w, 3) and its half-sized means down to 1 × 1, each rounded to 8 bits.

    texture: the full size itself, not a copy. coarser u32 (n,), red + 256 green + 65536 blue: all other levels one behind the
    other, row by row. starts, heights, widths i64, one per level: starts: its begin in `coarser` (0 for the full size).
    """

    def __init__(self, texture: np.ndarray) -> None:
        sizes = [texture.shape[:2]]
        while max(sizes[-1]) > 1:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        self.texture = np.ascontiguousarray(texture).view()
        self.texture.flags.writeable = False  # as some decoders give it: for both, kernels are compiled once
        self.heights, self.widths = (np.array(side, np.int64) for side in zip(*sizes, strict=True))
        counts = self.heights * self.widths
        counts[0] = 0
        self.starts = np.cumsum(counts) - counts
        self.coarser = np.empty(int(counts.sum()), np.uint32)
        for k in range(1, len(sizes)):
            if k == 1:
                _halve_full_size(self.texture, self._packed(1))
            else:
                _halve(self._packed(k - 1), self._packed(k))

    def __len__(self) -> int:
        return len(self.starts)

    def _packed(self, k: int) -> np.ndarray:
        height, width = int(self.heights[k]), int(self.widths[k])
        return self.coarser[self.starts[k] : self.starts[k] + height * width].reshape(height, width)

    def level(self, k: int) -> np.ndarray:
        """Return level k, u8 (h, w, 3): 0 is the texture itself, not a copy; each further level is half as large."""
        if k == 0:
            return self.texture
        packed = self._packed(k)
        return np.stack([packed & 255, packed >> 8 & 255, packed >> 16], axis=-1).astype(np.uint8)


@compile_kernel
def _halve_full_size(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Average blocks of two by two texels, rounded; an odd last row or column counts twice."""
    height, width = fine.shape[0], fine.shape[1]
    flat = fine.reshape(height, 3 * width)
    pairs = np.zeros(3 * width + 8, np.uint16)  # sums of a row and the next one; eight bytes of them are read at once
    begin = np.int64(pairs.ctypes.data)
    for i in range(coarse.shape[0]):
        top, bottom, out = flat[2 * i], flat[min(2 * i + 1, height - 1)], coarse[i]
        for k in range(len(top)):
            pairs[k] = np.uint16(top[k]) + np.uint16(bottom[k])
        for k in range(3 * width, 3 * width + 3):
            pairs[k] = pairs[k - 3]
        for j in range(len(out)):
            # Red, green and blue in 16 bits each.
            mean = (eight_bytes_at(begin + 12 * j) + eight_bytes_at(begin + 12 * j + 6) + _HALVES) >> np.uint64(2)
            red, green, blue = mean, mean >> np.uint64(8), mean >> np.uint64(16)
            out[j] = np.uint32((red & np.uint64(0xFF)) | (green & np.uint64(0xFF00)) | (blue & np.uint64(0xFF0000)))


@compile_kernel
def _halve(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Halve a level, as `_halve_full_size`."""
    for i in range(coarse.shape[0]):
        top, bottom, out = fine[2 * i], fine[min(2 * i + 1, fine.shape[0] - 1)], coarse[i]
        pairs = fine.shape[1] // 2
        for j in range(pairs):
            out[j] = _mean(top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1])
        if pairs < len(out):
            out[pairs] = _mean(top[2 * pairs], top[2 * pairs], bottom[2 * pairs], bottom[2 * pairs])


@compile_kernel
def _mean(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> np.uint32:
    """Average packed texels; bits above the lower 24 are ignored."""
    red_green = (a & _RED_BLUE) + (b & _RED_BLUE) + (c & _RED_BLUE) + (d & _RED_BLUE) + np.uint32(0x00020002)
    green = (a & _GREEN) + (b & _GREEN) + (c & _GREEN) + (d & _GREEN) + np.uint32(0x00000200)
    return np.uint32((red_green >> np.uint32(2) & _RED_BLUE) | (green >> np.uint32(2) & _GREEN))
