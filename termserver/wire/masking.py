"""Undoing a client's masking (RFC 6455 §5.3): every payload byte is XORed with one of four. No I/O.

Short payloads are XORed as two integers. From 384 bytes on the C function under autobahn's masker (NVX, SSE2) does it, in a buffer that is
kept: autobahn's own wrapper makes two buffers and a garbage-collected handle for each payload, which costs more than the work
(benchmarks/micro/unmask.py). Where autobahn was built without NVX, its masker in Python serves.
"""

from typing import Any, Final

from autobahn.websocket.xormasker import create_xor_masker

_BY_INTEGER: Final = 384  # bytes below which two integers are cheaper
_BUFFER: Final = 262_144  # as much as one read brings; a multiple of four, so that the mask is not turned between two parts


class Unmasker:
    """The buffer of one worker: it is not to be shared between threads."""

    __slots__ = ("_buffer", "_ffi", "_lib")

    def __init__(self) -> None:
        """Find the C function; its buffer is made at the first payload that is long enough."""
        masker: Any = create_xor_masker(b"\0\0\0\0", _BY_INTEGER)
        self._ffi: Any = getattr(masker, "ffi", None)
        self._lib: Any = getattr(masker, "lib", None)
        self._buffer: Any = None

    def unmask(self, data: bytes, start: int, end: int, mask: bytes) -> bytes:
        """Give `data[start:end]` without its mask, four bytes that begin to count at `start`."""
        size = end - start
        if size < _BY_INTEGER:
            key = (mask * ((size >> 2) + 1))[:size]
            return (int.from_bytes(data[start:end], "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
        if self._lib is None:
            unmasked: bytes = create_xor_masker(mask, size).process(data[start:end])
            return unmasked
        if self._buffer is None:
            self._buffer = self._ffi.new("uint8_t[]", _BUFFER)
        if size <= _BUFFER:
            return self._unmask_part(memoryview(data)[start:end], mask)
        view = memoryview(data)
        return b"".join([self._unmask_part(view[at : min(at + _BUFFER, end)], mask) for at in range(start, end, _BUFFER)])

    def _unmask_part(self, part: memoryview, mask: bytes) -> bytes:
        ffi, lib, buffer, size = self._ffi, self._lib, self._buffer, len(part)
        ffi.memmove(buffer, part, size)
        handle = lib.nvx_xormask_new(mask)
        lib.nvx_xormask_process(handle, buffer, size)
        lib.nvx_xormask_free(handle)
        result: bytes = ffi.buffer(buffer, size)[:]
        return result
