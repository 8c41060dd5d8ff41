"""The WebSocket engine: frames in and out, the closing handshake, limits.

RFC 6455 §5 to §8; RFC 7692; spec attacks D1 to D7; spec limits L25, L36 to L38, L41. The tables go over the ground of the Autobahn
fuzzing client, whose case numbers stand at the headings; each case is fed whole, byte by byte, in chops, and with more behind it.
"""

import functools
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from termserver.config import Limits
from termserver.errors import InvalidMessage
from termserver.wire.events import Closed, Phase, SocketEvent, is_close_code, weight
from termserver.wire.websocket import Terms, WebSocket
from wire.driving import SLOWER, byte_by_byte
from wire.frames import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Sent,
    close,
    deflated,
    fragments,
    frame,
    head,
    in_parts,
    inflated,
    masked,
    read_frames,
)

NOW = 1.0  # seconds: the clock stands, unless a test moves it
NEXT = frame(TEXT, b"next")
MIB = 1 << 20
SINGLY = 400  # bytes of a long input that are fed one by one
HELD = 2 + 4 + 125  # bytes of a control frame, the longest that waits to be whole
OPCODES = [TEXT, BINARY]
CONTROLS = [CLOSE, PING, PONG]
PATTERN = bytes(range(256)) * 257


@functools.cache
def terms(**limits: int) -> Terms:
    """Make what the sockets of a worker have in common; limits without their `websocket_`."""
    return Terms(Limits(**{f"websocket_{name}": value for name, value in limits.items()}))


def socket(window_bits: int = 0, **limits: int) -> WebSocket:
    """Make an engine."""
    return WebSocket(terms(**limits), window_bits)


@dataclass
class Outcome:
    """What became of an input."""

    events: list[SocketEvent] = field(default_factory=list)
    output: bytes = b""
    phase: Phase = Phase.OPEN
    failure: tuple[int, str] | None = None
    at_rest: bool = True  # nothing is half read

    @property
    def sent(self) -> list[Sent]:
        """The frames that went out."""
        return read_frames(self.output)


def take(engine: WebSocket, data: bytes, now: float = NOW) -> list[SocketEvent]:
    """Hand over bytes, and take every message at once."""
    events = engine.receive(data, now)
    engine.credit += sum(weight(event) for event in events if not isinstance(event, Closed))
    return events


def feed(engine: WebSocket, *pieces: bytes, now: float = NOW) -> Outcome:
    """Hand over pieces as a connection does, gather what comes of them."""
    outcome = Outcome()
    for piece in pieces:
        outcome.events += take(engine, piece, now)
        while engine.has_input:
            outcome.events += take(engine, b"", now)
        outcome.output += b"".join(engine.output())
    outcome.phase, outcome.failure = engine.phase, engine.failure
    outcome.at_rest = not engine._held and engine._assembly is None
    return outcome


def ways(data: bytes) -> Iterable[list[bytes]]:
    """Give the ways in which bytes may come; of long ones, only the beginning in single bytes."""
    singly = min(len(data), SINGLY)
    yield byte_by_byte(data[:singly]) + in_parts(data[singly:], 997)
    yield [data[:1], data[1:]]
    yield [data[: len(data) // 2], data[len(data) // 2 :]]
    yield in_parts(data, 7 if len(data) < 5_000 else 4_099)


def feed_every_way(data: bytes, window_bits: int = 0, **limits: int) -> Outcome:
    """Feed `data` whole, in all ways it may come, and with a message behind it: the outcome, which has to be the same each time."""
    whole = feed(socket(window_bits, **limits), data)
    for pieces in ways(data):
        outcome = feed(socket(window_bits, **limits), *pieces)
        assert outcome == whole, f"{len(pieces)} pieces"
    for pieces in ([data + NEXT], [*byte_by_byte(data[:SINGLY]), data[SINGLY:] + NEXT], [data, NEXT]):
        outcome = feed(socket(window_bits, **limits), *pieces)
        if whole.phase is not Phase.OPEN:  # nothing is read any more
            assert outcome == whole
        elif whole.at_rest:
            assert (outcome.events, outcome.output) == ([*whole.events, "next"], whole.output)
    return whole


def read(data: bytes, window_bits: int = 0, **limits: int) -> list[SocketEvent]:
    """Give the events of frames that are right, and call for no answer."""
    outcome = feed_every_way(data, window_bits, **limits)
    assert (outcome.phase, outcome.failure, outcome.sent, outcome.at_rest) == (Phase.OPEN, None, [], True)
    return outcome.events


def fails(data: bytes, code: int, *before: SocketEvent, sent: Iterable[Sent] = (), window_bits: int = 0, **limits: int) -> str:
    """See that frames are answered with a close code, what came before them was handed out, and nothing is read behind; give the reason."""
    outcome = feed_every_way(data, window_bits, **limits)
    assert outcome.phase is Phase.FAILED
    assert outcome.failure is not None
    reason = outcome.failure[1]
    assert outcome.failure == (code, reason)
    assert outcome.events == [*before, Closed(1006, reason)]
    assert outcome.sent == [*sent, Sent(CLOSE, struct.pack("!H", code) + reason.encode())]
    return reason


def bytes_until_failed(data: bytes, window_bits: int = 0, **limits: int) -> int:
    """Give the number of bytes after which `data` has failed, fed one by one."""
    engine = socket(window_bits, **limits)
    for i in range(len(data)):
        engine.receive(data[i : i + 1], NOW)
        if engine.phase is Phase.FAILED:
            return i + 1
    raise AssertionError("it did not fail")


# ---------------------------------------------------------------------- 1: framing

SIZES = [0, 1, 124, 125, 126, 127, 128, 383, 384, 65_535, 65_536]


def text_of(size: int) -> str:
    """Make a text of so many bytes, of characters of every length."""
    text = "aé€🐢" * (size // 10)
    return text + "*" * (size - len(text.encode()))


@pytest.mark.parametrize("size", SIZES)
def test_case_1_1_text(size: int) -> None:
    text = text_of(size)
    assert read(frame(TEXT, text.encode())) == [text]


@pytest.mark.parametrize("size", SIZES)
def test_case_1_2_binary(size: int) -> None:
    assert read(frame(BINARY, PATTERN[:size])) == [PATTERN[:size]]


@pytest.mark.parametrize("size", SIZES)
def test_case_1_what_is_sent(size: int) -> None:
    engine = socket()
    engine.send(text_of(size))
    engine.send(PATTERN[:size])
    out = engine.output()
    assert all(type(piece) is bytes for piece in out)
    assert read_frames(b"".join(out)) == [Sent(TEXT, text_of(size).encode()), Sent(BINARY, PATTERN[:size])]
    assert engine.output() == []


def test_a_long_payload_is_not_copied() -> None:
    engine = socket()
    engine.send(PATTERN)
    assert engine.output()[1] is PATTERN


@pytest.mark.parametrize("text", ["\ud800", "a" * 2_000 + "\udfff"])
def test_text_that_is_no_unicode_is_the_applications_fault(text: str) -> None:
    engine = socket(15)
    with pytest.raises(InvalidMessage, match="surrogates"):
        engine.send(text)
    assert (engine.output(), engine.phase) == ([], Phase.OPEN)
    engine.send("fine")
    assert read_frames(b"".join(engine.output())) == [Sent(TEXT, b"fine")]


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1\0\2", MASK], ids=bytes.hex)
@pytest.mark.parametrize("size", [0, 1, 5, 126, 1_000])
def test_rfc6455_5_3_every_mask(size: int, mask: bytes) -> None:
    data = b"".join([frame(TEXT, b"a", fin=False, mask=mask), frame(PING, b"xyz", mask=mask), frame(CONT, b"b" * size, mask=MASK)])
    outcome = feed_every_way(frame(BINARY, PATTERN[:size], mask=mask) + data)
    assert (outcome.events, outcome.sent) == ([PATTERN[:size], "a" + "b" * size], [Sent(PONG, b"xyz")])


@pytest.mark.parametrize("opcode", [CONT, *OPCODES, *CONTROLS])
@pytest.mark.parametrize("size", [0, 5])
def test_d4_rfc6455_5_1_a_frame_that_is_not_masked(opcode: int, size: int) -> None:
    data = frame(opcode, b"12345"[:size], mask=None)
    assert fails(data + bytes(6), 1002) == "a frame that is not masked"
    assert bytes_until_failed(data) == 2


@pytest.mark.parametrize(("size", "width"), [(0, 2), (1, 2), (125, 2), (0, 8), (1, 8), (125, 8), (126, 8), (65_535, 8)], ids=str)
@pytest.mark.parametrize("opcode", OPCODES)
def test_rfc6455_5_2_a_length_has_its_shortest_form(opcode: int, size: int, width: int) -> None:
    data = frame(opcode, bytes(size), width=width)
    assert fails(data, 1002) == "a length that is not in its shortest form"
    assert bytes_until_failed(data) == 2 + width  # the payload is not awaited
    fails(frame(TEXT, b"a", fin=False) + frame(CONT, bytes(size), width=width), 1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_rfc6455_5_2_the_first_bit_of_a_length_is_0(length: int) -> None:
    fails(head(BINARY, length), 1002, message=0, frame=0)


# ---------------------------------------------------------------------- 2: pings and pongs


@pytest.mark.parametrize("payload", [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
def test_case_2_1_to_2_4_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    outcome = feed_every_way(frame(PING, payload))
    assert (outcome.events, outcome.sent, outcome.phase) == ([], [Sent(PONG, payload)], Phase.OPEN)


@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.parametrize("size", [126, 127, 65_535, 65_536])
def test_case_2_5_a_control_frame_is_at_most_125_bytes(opcode: int, size: int) -> None:
    data = frame(opcode, b"\xfe" * size)
    assert fails(data, 1002) == "a control frame that is fragmented or too long"
    assert bytes_until_failed(data) == 2


@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("opcode", CONTROLS)
def test_case_2_5_whatever_the_form_of_its_length(opcode: int, width: int) -> None:
    assert bytes_until_failed(frame(opcode, b"", width=width)) == 2


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload", b"\xfe" * 125])
def test_case_2_7_to_2_9_a_pong_that_nobody_asked_for(payload: bytes) -> None:
    assert read(frame(PONG, payload)) == []
    outcome = feed_every_way(frame(PONG, payload) + frame(PING, b"ping"))
    assert (outcome.events, outcome.sent) == ([], [Sent(PONG, b"ping")])


def test_case_2_10_ten_pings() -> None:
    outcome = feed_every_way(b"".join(frame(PING, b"payload-%d" % i) for i in range(10)))
    assert outcome.sent == [Sent(PONG, b"payload-%d" % i) for i in range(10)]


def test_pings_are_answered_in_their_place() -> None:
    outcome = feed_every_way(frame(TEXT, b"a") + frame(PING, b"1") + frame(BINARY, b"b") + frame(PING, b"2") + frame(TEXT, b"c"))
    assert (outcome.events, outcome.sent) == (["a", b"b", "c"], [Sent(PONG, b"1"), Sent(PONG, b"2")])


def test_a_ping_of_ours() -> None:
    engine = socket()
    engine.ping()
    assert read_frames(b"".join(engine.output())) == [Sent(PING, b"")]
    assert feed(engine, frame(PONG)).events == []


# ---------------------------------------------------------------------- 3: reserved bits

RESERVED = list(range(1, 8))


@pytest.mark.parametrize("window_bits", [0, 15])
@pytest.mark.parametrize("rsv", RESERVED)
@pytest.mark.parametrize("opcode", [*OPCODES, *CONTROLS])
def test_case_3_reserved_bits(opcode: int, rsv: int, window_bits: int) -> None:
    if window_bits and rsv == RSV1 and opcode in OPCODES:
        return  # that is a compressed message
    data = frame(opcode, b"Hello" if opcode in OPCODES else b"", rsv=rsv)
    assert fails(data, 1002, window_bits=window_bits) == "a reserved bit that nothing was negotiated for"
    assert bytes_until_failed(data, window_bits) == 2
    before = frame(TEXT, b"a") + frame(PING, b"b")
    fails(before + data, 1002, "a", sent=[Sent(PONG, b"b")], window_bits=window_bits)
    fails(frame(TEXT, b"a", fin=False) + data, 1002, window_bits=window_bits)


@pytest.mark.parametrize("window_bits", [0, 15])
@pytest.mark.parametrize("rsv", RESERVED)
@pytest.mark.parametrize("fin", [False, True])
def test_rfc7692_6_1_reserved_bits_of_a_continuation(fin: bool, rsv: int, window_bits: int) -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONT, b"b", fin=fin, rsv=rsv)
    fails(data, 1002, window_bits=window_bits)
    if window_bits:
        fails(frame(TEXT, deflated(b"a"), fin=False, rsv=RSV1) + frame(CONT, b"", fin=fin, rsv=rsv), 1002, window_bits=window_bits)


# ---------------------------------------------------------------------- 4: opcodes


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"])
def test_case_4_opcodes_that_are_none(opcode: int, payload: bytes) -> None:
    data = frame(opcode, payload)
    assert fails(data, 1002) == "an unknown opcode"
    assert bytes_until_failed(data) == 2
    fails(frame(TEXT, b"Hello") + data + frame(PING), 1002, "Hello")
    fails(frame(TEXT, b"Hello", fin=False) + data, 1002)


# ---------------------------------------------------------------------- 5: fragmentation


@pytest.mark.parametrize("opcode", CONTROLS)
def test_case_5_1_and_5_2_a_control_frame_in_fragments(opcode: int) -> None:
    data = frame(opcode, b"", fin=False)
    assert fails(data + frame(CONT), 1002) == "a control frame that is fragmented or too long"
    assert bytes_until_failed(data) == 2


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize(
    "parts",
    [
        [b"fragment1", b"fragment2"],
        [b"", b""],
        [b"", b"", b""],
        [b"a", b""],
        [b"", b"a"],
        [b"a", b"", b"b", b"", b""],
        [b"x"] * 100,
        [b"x" * 125, b"y" * 126, b"z" * 127],
        in_parts(b"0123456789" * 7_000, 13_001),
        [b"x" * 65_536, b"y" * 65_535],
    ],
    ids=lambda parts: f"{len(parts)} of {len(parts[0])}",
)
def test_case_5_3_to_5_5_fragments(opcode: int, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert read(b"".join(fragments(opcode, parts))) == [whole.decode() if opcode == TEXT else whole]


@pytest.mark.parametrize("opcode", OPCODES)
def test_case_5_6_to_5_8_a_ping_between_fragments_is_answered_ahead_of_the_message(opcode: int) -> None:
    first, second = fragments(opcode, [b"fragment1", b"fragment2"])
    engine = socket()
    assert feed(engine, first).output == b""
    outcome = feed(engine, frame(PING, b"ping payload"))
    assert (outcome.events, outcome.sent) == ([], [Sent(PONG, b"ping payload")])
    whole = b"fragment1fragment2"
    assert feed(engine, second).events == [whole.decode() if opcode == TEXT else whole]
    outcome = feed_every_way(first + frame(PING, b"ping payload") + frame(PONG) + second)
    assert len(outcome.events) == len(outcome.sent) == 1


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("payload", [b"", b"non-continuation payload"])
def test_case_5_9_to_5_14_a_continuation_of_nothing(payload: bytes, fin: bool) -> None:
    data = frame(CONT, payload, fin=fin)
    assert fails(data + frame(TEXT, b"Hello"), 1002) == "a continuation of nothing, or a message inside a message"
    assert bytes_until_failed(data) == 2
    fails(frame(TEXT, b"a") + data, 1002, "a")


def test_case_5_15_a_continuation_of_a_message_that_is_whole() -> None:
    data = b"".join(fragments(TEXT, [b"fragment1", b"fragment2"]))
    fails(data + frame(CONT, b"fragment3", fin=False) + frame(TEXT, b"fragment4"), 1002, "fragment1fragment2")


def test_case_5_16_and_5_17_a_continuation_of_nothing_again() -> None:
    for fin in (False, True):
        data = frame(CONT, b"fragment1", fin=fin) + frame(TEXT, b"fragment2", fin=False) + frame(CONT, b"fragment3")
        fails(data * 2, 1002)


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("payload", [b"", b"fragment2"])
def test_case_5_18_a_message_inside_a_message(opcode: int, fin: bool, payload: bytes) -> None:
    before = frame(TEXT, b"fragment1", fin=False)
    fails(before + frame(opcode, payload, fin=fin), 1002)
    assert bytes_until_failed(before + frame(opcode, payload, fin=fin)) == len(before) + 2


@pytest.mark.parametrize("opcode", OPCODES)
def test_case_5_19_and_5_20_a_message_with_pings_all_over(opcode: int) -> None:
    parts = [b"fragment%d" % i for i in range(1, 6)]
    first, second, third, fourth, fifth = fragments(opcode, parts)
    data = first + second + frame(PING, b"pongme 1!") + third + fourth + frame(PING, b"pongme 2!") + fifth
    outcome = feed_every_way(data)
    whole = b"".join(parts)
    assert outcome.events == [whole.decode() if opcode == TEXT else whole]
    assert outcome.sent == [Sent(PONG, b"pongme 1!"), Sent(PONG, b"pongme 2!")]


# ---------------------------------------------------------------------- 6: UTF-8

VALID = [
    pytest.param(text.encode(), id=name)
    for name, text in {
        "empty": "",
        "NUL": "\x00",
        "1: Greek": "κόσμε",
        "Hello-µ@ßöäüàá-UTF-8!!": "Hello-µ@ßöäüàá-UTF-8!!",
        "2.1 first of 1 byte": "\u0000",
        "2.1 first of 2": "\u0080",
        "2.1 first of 3": "\u0800",
        "2.1 first of 4": "\U00010000",
        "2.2 last of 1 byte": "\u007f",
        "2.2 last of 2": "\u07ff",
        "2.2 last of 3": "\uffff",
        "2.2 last of 4": "\U0010ffff",
        "2.3 ahead of the surrogates": "\ud7ff",
        "2.3 behind the surrogates": "\ue000",
        "2.3 replacement character": "\ufffd",
        "BOM": "\ufeffx",
        "5.3 noncharacters": "\ufdd0\ufdef\ufffe\uffff"
        + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17)),
        "all lengths": "aé€🐢" * 3,
    }.items()
]

# Octets, and how many of them are needed to see that no UTF-8 begins with them (RFC 3629 §4).
INVALID = [
    pytest.param(bytes.fromhex(octets), id=f"{name}: {octets}")
    for name, octets in [
        ("3.1 continuation", "80"),
        ("3.1 continuation", "bf"),
        ("3.1 continuations", "80bf80"),
        *[("3.1 each continuation", f"{byte:02x}") for byte in range(0x81, 0xBF, 7)],
        *[("3.2 a lonely start", f"{byte:02x}20") for byte in [*range(0xC2, 0xF5, 5), 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4]],
        ("3.3 last byte missing", "c320"),
        ("3.3 last byte missing", "e08020"),
        ("3.3 last byte missing", "e0a020"),
        ("3.3 last byte missing", "f0908020"),
        ("3.3 last byte missing", "f4808020"),
        ("3.3 a character inside another", "e2c3a9"),
        ("3.3 a character inside another", "f09fc3a9"),
        ("3.5 impossible", "fe"),
        ("3.5 impossible", "ff"),
        ("3.5 impossible", "fefeffff"),
        ("4.1 overlong slash", "c0af"),
        ("4.1 overlong slash", "e080af"),
        ("4.1 overlong slash", "f08080af"),
        ("4.1 overlong slash", "f8808080af"),
        ("4.1 overlong slash", "fc80808080af"),
        ("4.2 longest overlong", "c1bf"),
        ("4.2 longest overlong", "e09fbf"),
        ("4.2 longest overlong", "f08fbfbf"),
        ("4.2 longest overlong", "f887bfbfbf"),
        ("4.2 longest overlong", "fc83bfbfbfbf"),
        ("4.3 overlong NUL", "c080"),
        ("4.3 overlong NUL", "e08080"),
        ("4.3 overlong NUL", "f0808080"),
        ("5.1 surrogate", "eda080"),
        ("5.1 surrogate", "edadbf"),
        ("5.1 surrogate", "edae80"),
        ("5.1 surrogate", "edafbf"),
        ("5.1 surrogate", "edb080"),
        ("5.1 surrogate", "edbfbf"),
        ("5.2 surrogates in a pair", "eda080edb080"),
        ("5.2 surrogates in a pair", "edafbfedbfbf"),
        ("2.2 beyond Unicode", "f4908080"),
        ("2.2 beyond Unicode", "f7bfbfbf"),
        ("2.2 of five bytes", "f888808080"),
        ("2.2 of six bytes", "fc8480808080"),
    ]
]

CUT = [
    pytest.param(bytes.fromhex(octets), id=octets)
    for octets in ("c3", "e2", "e282", "e0a0", "ed9f", "f0", "f09f", "f09f90", "f48f", "f48fbf")
]

# What stands ahead of the bad octets: the validator looks at sixteen bytes at a time.
AHEAD = ["", "κόσμε", "x" * 15, "x" * 16, "é" * 8, "x" * 100 + "€"]


def may_become_text(data: bytes) -> bool:
    """Whether some octets make UTF-8 of this. CPython's own decoder sees a surrogate one octet late."""
    for second in (b"\x80", b"\x90", b"\xa0"):
        for rest in (b"", second, second + b"\x80", second + b"\x80\x80"):
            with suppress(UnicodeDecodeError):
                (data + rest).decode()
                return True
    return False


def octets_until_invalid(data: bytes) -> int:
    """Give the number of octets after which no text can begin so."""
    return next(i for i in range(len(data) + 1) if not may_become_text(data[:i]))


@pytest.mark.parametrize("data", VALID)
def test_case_6_valid_in_one_frame_and_in_fragments_of_any_size(data: bytes) -> None:
    text = data.decode()
    assert read(frame(TEXT, data)) == [text]
    for size in (1, 2, 3, 5):
        assert read(b"".join(fragments(TEXT, in_parts(data, size)))) == [text]
    assert read(b"".join(fragments(TEXT, [b"", *in_parts(data, 1), b""]))) == [text]
    assert read(frame(TEXT, deflated(data), rsv=RSV1), 15) == [text]


@pytest.mark.parametrize("data", INVALID)
def test_case_6_invalid_in_one_frame_and_in_fragments(data: bytes) -> None:
    for ahead in ("", "κόσμε"):
        bad = ahead.encode() + data + b"edited"
        assert fails(frame(TEXT, bad), 1007) == "text that is not UTF-8"
        fails(b"".join(fragments(TEXT, in_parts(bad, 1))), 1007)
        fails(b"".join(fragments(TEXT, [ahead.encode(), data, b"edited"])), 1007)
        fails(frame(TEXT, deflated(bad), rsv=RSV1), 1007, window_bits=15)


@pytest.mark.parametrize("data", INVALID)
def test_case_6_4_it_fails_at_the_first_bad_octet_of_a_frame(data: bytes) -> None:
    for ahead in AHEAD:
        bad = ahead.encode() + data + b"x" * 20
        at = octets_until_invalid(bad)
        for length in (len(bad), 200, 100_000):  # the rest of the payload is not awaited
            start = head(TEXT, max(length, len(bad)))
            assert bytes_until_failed(start + masked(bad)) == len(start) + at
            # The same in one chop, the frame not whole.
            for upto in (at - 1, at):
                outcome = feed(socket(), start + masked(bad)[:upto])
                assert outcome.phase is (Phase.FAILED if upto == at else Phase.OPEN)


@pytest.mark.parametrize("data", INVALID)
def test_case_6_4_it_fails_at_the_first_bad_fragment(data: bytes) -> None:
    for ahead in AHEAD:
        start = frame(TEXT, ahead.encode(), fin=False)
        at = octets_until_invalid(data + b"x" * 20)
        good, bad = frame(CONT, data[: at - 1], fin=False), frame(CONT, (data + b"x" * 20)[at - 1 : at], fin=False)
        engine = socket()
        assert feed(engine, start, good).phase is Phase.OPEN
        assert feed(engine, bad).failure == (1007, "text that is not UTF-8")


@pytest.mark.parametrize("data", CUT)
def test_case_6_a_sequence_that_is_cut_at_the_end_of_the_message(data: bytes) -> None:
    for ahead in AHEAD:
        fails(frame(TEXT, ahead.encode() + data), 1007)
        fails(b"".join(fragments(TEXT, [ahead.encode(), *in_parts(data, 1)])), 1007)
        fails(b"".join(fragments(TEXT, [ahead.encode() + data, b""])), 1007)
        assert feed_every_way(frame(TEXT, ahead.encode() + data, fin=False)).phase is Phase.OPEN


def test_case_6_a_sequence_is_not_continued_in_the_next_message() -> None:
    fails(frame(TEXT, b"\xe2\x82") + frame(TEXT, b"\xac"), 1007)
    assert read(b"".join(fragments(TEXT, [b"\xe2\x82", b"\xac"])) + frame(TEXT, b"a") + frame(TEXT, b"")) == ["€", "a", ""]


def test_binary_is_no_text() -> None:
    assert read(frame(BINARY, b"\xff\xc0")) == [b"\xff\xc0"]
    assert read(b"".join(fragments(BINARY, [b"\xff", b"\xc0"]))) == [b"\xff\xc0"]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5), st.sampled_from(AHEAD))
def test_text_is_utf_8_for_us_where_it_is_for_python(data: bytes, cuts: list[int], ahead: str) -> None:
    data = ahead.encode() + data
    outcome = feed(socket(), b"".join(fragments(TEXT, cut(data, cuts))))
    try:
        assert outcome.events == [data.decode()]
    except UnicodeDecodeError:
        assert outcome.failure == (1007, "text that is not UTF-8")


# ---------------------------------------------------------------------- 7: the closing handshake

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1099, 1100, 2000, 2999, 5000, 9999, 65_535]


def test_which_codes_a_close_frame_may_hold() -> None:
    assert {code for code in range(1 << 16) if is_close_code(code)} == set(EXTERNAL_CLOSE_CODES) | set(range(3_000, 5_000))


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_case_7_1_1_messages_and_then_the_end(count: int) -> None:
    outcome = feed_every_way(frame(TEXT, b"Hello") * count + close(1000))
    assert outcome.events == ["Hello"] * count + [Closed(1000, "")]
    assert (outcome.sent, outcome.phase, outcome.failure) == ([Sent(CLOSE, struct.pack("!H", 1000))], Phase.DONE, None)


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(close(1000), id="7.1.2 another"),
        pytest.param(frame(PING, b"ping"), id="7.1.3 a ping"),
        pytest.param(frame(TEXT, b"Hello"), id="7.1.4 a message"),
        pytest.param(frame(CONT, b"fragment2"), id="7.1.5 the rest of a message"),
        pytest.param(frame(TEXT, b"x" * 262_144) + close(1000) + frame(PING), id="7.1.6 much"),
        pytest.param(b"\xff" * 100, id="no frames"),
        pytest.param(close(1000)[:3], id="part of a frame"),
    ],
)
def test_case_7_1_nothing_is_read_behind_a_close_frame(behind: bytes) -> None:
    for before in (b"", frame(TEXT, b"fragment1", fin=False)):
        outcome = feed_every_way(before + close(1000) + behind)
        assert (outcome.events, outcome.sent, outcome.phase) == ([Closed(1000, "")], [Sent(CLOSE, b"\x03\xe8")], Phase.DONE)


def test_case_7_3_1_no_code() -> None:
    outcome = feed_every_way(close())
    assert (outcome.events, outcome.sent, outcome.phase) == ([Closed(1005, "")], [Sent(CLOSE, b"")], Phase.DONE)


@pytest.mark.parametrize("byte", [b"a", b"\x03", b"\x00"])
def test_case_7_3_2_one_byte_is_no_code(byte: bytes) -> None:
    assert fails(frame(CLOSE, byte), 1002) == "a close code that no frame may hold"


@pytest.mark.parametrize("reason", ["", "Hello World!", "*" * 123, "é" * 61, "€" * 41, "\x00"])
@pytest.mark.parametrize("code", GOOD_CODES)
def test_case_7_3_and_7_7_code_and_reason(code: int, reason: str) -> None:
    outcome = feed_every_way(close(code, reason.encode()))
    assert (outcome.events, outcome.phase, outcome.failure) == ([Closed(code, reason)], Phase.DONE, None)
    assert outcome.sent == [Sent(CLOSE, struct.pack("!H", code) + reason.encode())]


@pytest.mark.parametrize("size", [124, 125, 1_000])
def test_case_7_3_6_a_reason_of_more_than_123_bytes(size: int) -> None:
    data = close(1000, b"*" * size)
    fails(data, 1002)
    assert bytes_until_failed(data) == 2


@pytest.mark.parametrize("data", [*INVALID[::7], *CUT])
def test_case_7_5_a_reason_that_is_not_utf_8(data: bytes) -> None:
    assert fails(close(1000, "κόσμε".encode() + data), 1007) == "a close reason that is not UTF-8"
    fails(close(1000, data), 1007)


@pytest.mark.parametrize("reason", [b"", b"reason", b"\xff"])
@pytest.mark.parametrize("code", BAD_CODES)
def test_case_7_9_and_7_13_codes_that_no_frame_may_hold(code: int, reason: bytes) -> None:
    assert fails(close(code, reason), 1002) == "a close code that no frame may hold"
    fails(frame(TEXT, b"a") + close(code, reason), 1002, "a")


# ---------------------------------------------------------------------- the closing handshake in both orders


def closing(window_bits: int = 0, **limits: int) -> WebSocket:
    """Give an engine whose Close frame is out."""
    engine = socket(window_bits, **limits)
    engine.close(1001, "going away")
    assert read_frames(b"".join(engine.output())) == [Sent(CLOSE, b"\x03\xe9going away")]
    assert engine.phase is Phase.CLOSING
    return engine


def use(engine: WebSocket) -> None:
    """Command everything there is."""
    engine.send("text")
    engine.send(b"bytes" * 1_000)
    engine.send("text" * 1_000)
    engine.ping()
    engine.close(1000, "again")


def test_rfc6455_7_1_the_peer_closes() -> None:
    engine = socket(15)
    assert feed(engine, close(1000)).phase is Phase.DONE
    use(engine)
    assert engine.output() == []
    assert feed(engine, NEXT, close(1000), b"\xff" * 10) == Outcome(phase=Phase.DONE)


@pytest.mark.parametrize(
    ("answer", "closed"), [(close(1001), Closed(1001, "")), (close(), Closed(1005, "")), (close(4000, b"why"), Closed(4000, "why"))]
)
def test_rfc6455_7_1_we_close(answer: bytes, closed: Closed) -> None:
    for pieces in ([answer], byte_by_byte(answer), [answer + NEXT], [answer, NEXT, answer]):
        engine = closing()
        assert feed(engine, *pieces) == Outcome([closed], b"", Phase.DONE)
        use(engine)
        assert engine.output() == []


def test_rfc6455_7_1_close_frames_that_cross() -> None:
    engine = socket()
    engine.close(1001)
    outcome = feed(engine, close(1000))  # sent before ours was there
    assert (outcome.events, outcome.sent, outcome.phase) == ([Closed(1000, "")], [Sent(CLOSE, b"\x03\xe9")], Phase.DONE)


def test_rfc6455_5_5_1_nothing_is_sent_behind_a_close_frame() -> None:
    engine = closing(15)
    use(engine)
    outcome = feed(engine, frame(PING, b"ping"))
    assert (engine.output(), outcome.output, engine.phase) == ([], b"", Phase.CLOSING)


@pytest.mark.parametrize("cut_size", [1, 3, 1_000_000])
def test_messages_are_discarded_behind_our_close_frame(cut_size: int) -> None:
    data = frame(TEXT, b"a") + b"".join(fragments(BINARY, [b"b", b"c"])) + frame(PING, b"d") + frame(TEXT, deflated(b"e"), rsv=RSV1)
    assert feed(closing(15), *in_parts(data + close(1001), cut_size)) == Outcome([Closed(1001, "")], b"", Phase.DONE)


def test_a_message_that_was_begun_before_our_close_frame_is_discarded() -> None:
    engine = socket()
    assert feed(engine, frame(TEXT, b"a", fin=False)).events == []
    engine.close(1001)
    assert feed(engine, frame(CONT, b"b"), NEXT, close(1001)).events == [Closed(1001, "")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"a", mask=None), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(CONT, b"a"), 1002),
        (close(1005), 1002),
        (head(TEXT, MIB + 1), 1009),
    ],
)
def test_a_fault_behind_our_close_frame_is_the_end_and_has_no_answer(data: bytes, code: int) -> None:
    for pieces in ([data], byte_by_byte(data), [NEXT + data + NEXT]):
        outcome = feed(closing(), *pieces)
        assert outcome.failure is not None
        assert outcome.failure[0] == code
        assert outcome == Outcome([Closed(1006, outcome.failure[1])], b"", Phase.FAILED, outcome.failure)


def test_a_fault_is_the_end() -> None:
    engine = socket(15)
    assert feed(engine, frame(3)).phase is Phase.FAILED
    use(engine)
    assert engine.output() == []
    assert feed(engine, NEXT, close(1000), frame(PING)) == Outcome(phase=Phase.FAILED, failure=engine.failure)


def test_a_close_frame_without_reason_or_code() -> None:
    engine = socket()
    engine.close()
    engine.close(4000)
    assert read_frames(b"".join(engine.output())) == [Sent(CLOSE, b"\x03\xe8")]


def test_what_was_sent_ahead_of_a_close_frame_leaves_ahead_of_it() -> None:
    engine = socket()
    engine.send("a")
    engine.ping()
    engine.send(b"b" * 5_000)
    engine.close(1000)
    assert [one.opcode for one in read_frames(b"".join(engine.output()))] == [TEXT, PING, BINARY, CLOSE]


# ---------------------------------------------------------------------- 9 and 10: limits


def until_header_refused(data: bytes, length: int, **limits: int) -> None:
    """See that `data`, then the header of a frame of `length` bytes, is refused when that header's length is here."""
    start = head(CONT if data else BINARY, length)
    fails(data + start, 1009, **limits)
    assert bytes_until_failed(data + start, 0, **limits) == len(data) + len(start) - 4  # ahead of the mask


@pytest.mark.parametrize("size", [4, 125, 126, 5_000, 65_535, 65_536])
def test_l36_the_limit_of_a_message_is_exact(size: int) -> None:
    for opcode in OPCODES:
        payload = b"x" * size
        whole = payload.decode() if opcode == TEXT else payload
        assert read(frame(opcode, payload), message=size) == [whole]
        assert read(frame(opcode, payload), frame=size) == [whole]
        assert read(b"".join(fragments(opcode, in_parts(payload, size // 3 + 1))), message=size) == [whole]
        assert fails(frame(opcode, payload + b"x"), 1009, message=size) == "a message that is too large"
        fails(frame(opcode, payload + b"x"), 1009, frame=size)
        fails(NEXT + frame(opcode, payload + b"x"), 1009, "next", message=size)
    until_header_refused(b"", size + 1, message=size)
    until_header_refused(b"", size + 1, frame=size)


def test_l36_the_fragments_of_a_message_count_together() -> None:
    data = frame(BINARY, b"x" * 60, fin=False)
    assert read(data + frame(CONT, b"y" * 40), message=100) == [b"x" * 60 + b"y" * 40]
    until_header_refused(data, 41, message=100)
    fails(data + frame(CONT, b"y" * 40, fin=False) + frame(CONT, b"z"), 1009, message=100)
    assert read(data + frame(CONT, b"y" * 40, fin=False) + frame(CONT, b""), message=100)
    assert read((data + frame(CONT, b"y" * 40)) * 3, message=100) == [b"x" * 60 + b"y" * 40] * 3
    assert read(data + frame(CONT, b"y" * 60), message=120, frame=60)
    until_header_refused(data, 61, message=200, frame=60)


@pytest.mark.parametrize("length", [MIB + 1, 1 << 30, (1 << 63) - 1])
@pytest.mark.parametrize("opcode", OPCODES)
def test_d1_a_frame_that_is_too_large_is_refused_by_its_header(opcode: int, length: int) -> None:
    data = head(opcode, length)
    assert fails(data, 1009) == "a message that is too large"
    assert bytes_until_failed(data) == 10


def test_l36_a_mebibyte_is_allowed() -> None:
    for payload in (bytes(MIB), PATTERN * 15 + bytes(MIB - len(PATTERN) * 15)):
        assert read(frame(BINARY, payload)) == [payload]
        assert read(b"".join(fragments(BINARY, in_parts(payload, 1_300)))) == [payload]  # case 10.1.1
    assert read(frame(TEXT, b"x" * MIB)) == ["x" * MIB]


def test_l36_no_limit() -> None:
    payload = bytes(2 * MIB)
    assert feed(socket(message=0, frame=0), *in_parts(frame(BINARY, payload), 65_536)).events == [payload]
    assert feed(socket(15, message=0, frame=0, deflate_ratio=0), frame(BINARY, deflated(payload), rsv=RSV1)).events == [payload]
    assert feed(socket(message=0, frame=0), head(BINARY, (1 << 63) - 1)).phase is Phase.OPEN


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("part", [b"", b"a"])
def test_d2_l37_the_limit_of_fragments_is_exact(limit: int, part: bytes) -> None:
    parts = [part] * limit
    assert read(b"".join(fragments(TEXT, parts)) * 2, fragments=limit) == [(part * limit).decode()] * 2
    data = b"".join(fragments(TEXT, [*parts, part]))
    assert fails(data, 1009, fragments=limit) == "a message in too many fragments"
    open_ended = b"".join(frame(TEXT if not i else CONT, part, fin=False) for i in range(limit))
    assert feed_every_way(open_ended, fragments=limit).phase is Phase.OPEN
    assert bytes_until_failed(open_ended + head(CONT, 1), 0, fragments=limit) == len(open_ended) + 2


def test_d2_l37_1024_fragments() -> None:
    assert read(b"".join(fragments(TEXT, [b"a"] * 1_024))) == ["a" * 1_024]
    fails(b"".join(fragments(TEXT, [b"a"] * 1_025)), 1009)
    assert read(b"".join(fragments(TEXT, [b"a"] * 2_000)), fragments=0) == ["a" * 2_000]


def test_d2_control_frames_are_no_fragments() -> None:
    first, second = fragments(TEXT, [b"a", b"b"])
    assert feed_every_way(first + frame(PING) * 20 + frame(PONG) * 20 + second, fragments=2).events == ["ab"]


def test_d2_dribbled_bytes_cost_no_more_than_they_are() -> None:
    size = 10_000
    for data in (frame(BINARY, bytes(size)), b"".join(fragments(TEXT, [b"x" * 100] * (size // 100)))):
        pieces = byte_by_byte(data[:-1])
        engine = socket()
        tracemalloc.start()
        try:
            feed(engine, *pieces)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 1.5 * size + 5_000
        assert len(engine._held) <= HELD


def test_d1_a_long_frame_that_is_announced_costs_nothing() -> None:
    engine = socket()
    tracemalloc.start()
    try:
        feed(engine, head(BINARY, MIB))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5_000


# ---------------------------------------------------------------------- 12 and 13: permessage-deflate


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1_024, 4_096, 8_192, 16_384, 32_768, 65_536])
def test_case_12_compressed_messages_of_every_size(size: int, bits: int, level: int) -> None:
    text = text_of(size)
    for opcode, data, message in ((TEXT, text.encode(), text), (BINARY, PATTERN[:size], PATTERN[:size])):
        payload = deflated(data, bits=bits, level=level)
        assert read(frame(opcode, payload, rsv=RSV1), 15) == [message]
        parts = fragments(opcode, in_parts(payload, len(payload) // 3 + 1), rsv=RSV1)
        assert feed(socket(15), parts[0], frame(PING), *parts[1:]).events == [message]


def test_case_12_what_is_compressed_and_what_is_not_may_alternate() -> None:
    data = frame(TEXT, b"plain") + frame(TEXT, deflated(b"squeezed"), rsv=RSV1)
    assert read(data * 3, 15) == ["plain", "squeezed"] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_rfc7692_6_1_fragments_of_a_compressed_message(size: int) -> None:
    payload = deflated(("κόσμε" * 50).encode())
    data = fragments(TEXT, in_parts(payload, size), rsv=RSV1)
    assert read(b"".join(data), 15) == ["κόσμε" * 50]
    outcome = feed_every_way(frame(PING, b"x").join(data), 15)
    assert (outcome.events, len(outcome.sent)) == (["κόσμε" * 50], len(data) - 1)
    assert read(
        b"".join([frame(TEXT, b"", fin=False, rsv=RSV1), *[frame(CONT, part, fin=False) for part in in_parts(payload, size)], frame(CONT)]),
        15,
    )


@pytest.mark.parametrize("payload", [b"\x00", b"", b"\x02\x00", b"\x03\x00", b"\x03\x00\x00", b"\x01\x00\x00\xff\xff"])
@pytest.mark.parametrize("opcode", OPCODES)
def test_rfc7692_7_2_3_6_the_empty_message(opcode: int, payload: bytes) -> None:
    assert read(frame(opcode, payload, rsv=RSV1), 15) == ["" if opcode == TEXT else b""]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("f248cdc9c90700", id="7.2.3.1"),
        pytest.param("000500faff48656c6c6f00", id="7.2.3.3 not compressed"),
        pytest.param("f348cdc9c9070000", id="7.2.3.4 BFINAL"),
        pytest.param("f24805000000ffffcac9c90700", id="7.2.3.5 two blocks"),
    ],
)
def test_rfc7692_7_2_3_examples(payload: str) -> None:
    assert read(frame(TEXT, bytes.fromhex(payload), rsv=RSV1), 15) == ["Hello"]
    assert read(b"".join(fragments(TEXT, in_parts(bytes.fromhex(payload), 3), rsv=RSV1)), 15) == ["Hello"]


def test_rfc7692_7_2_3_2_there_is_no_context_to_refer_to() -> None:
    first, second = bytes.fromhex("f248cdc9c90700"), bytes.fromhex("f200110000")
    fails(frame(TEXT, first, rsv=RSV1) + frame(TEXT, second, rsv=RSV1), 1007, "Hello", window_bits=15)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\x07",
        b"Hello, world",
        bytes.fromhex("f348cdc9c90700") + b"x",
        bytes.fromhex("f348cdc9c90700f248cdc9c90700"),
        b"\x78\x9c\x03\x00",
    ],
)
def test_case_13_garbage(payload: bytes) -> None:
    reason = "a compressed message that is no DEFLATE stream"
    for opcode in OPCODES:
        assert fails(frame(opcode, payload, rsv=RSV1), 1007, window_bits=15) == reason
        fails(b"".join(fragments(opcode, in_parts(payload, 1), rsv=RSV1)), 1007, window_bits=15)


def test_l36_l41_the_limit_of_a_compressed_message_is_exact() -> None:
    for limit in (100, 1_000, 65_536):
        payload = deflated(b"x" * limit)
        assert read(frame(TEXT, payload, rsv=RSV1), 15, message=limit) == ["x" * limit]
        assert fails(frame(TEXT, deflated(b"x" * (limit + 1)), rsv=RSV1), 1009, window_bits=15, message=limit) == (
            "a compressed message that is too large"
        )


def test_l36_a_compressed_message_is_held_to_the_limits_before_it_is_whole() -> None:
    start = head(BINARY, 1_017, rsv=RSV1)  # compression may add 16 bytes
    fails(start, 1009, window_bits=15, message=1_000)
    fails(start, 1009, window_bits=15, frame=1_000)
    assert bytes_until_failed(start, 15, message=1_000) == 4


def test_l41_the_ratio_counts_above_64_kib() -> None:
    assert read(frame(BINARY, deflated(bytes(65_536)), rsv=RSV1), 15) == [bytes(65_536)]
    fails(frame(BINARY, deflated(bytes(65_537)), rsv=RSV1), 1009, window_bits=15)
    assert read(frame(BINARY, deflated(bytes(65_537)), rsv=RSV1), 15, deflate_ratio=0) == [bytes(65_537)]
    message = PATTERN + bytes(100_000)
    payload = deflated(message)
    ratio = -(-len(message) // len(payload))
    assert read(frame(BINARY, payload, rsv=RSV1), 15, deflate_ratio=ratio) == [message]
    fails(frame(BINARY, payload, rsv=RSV1), 1009, window_bits=15, deflate_ratio=ratio - 1)


def test_d3_a_bomb_costs_little_memory() -> None:
    bomb = frame(BINARY, deflated(bytes(64 * MIB), level=9), rsv=RSV1)
    for ratio in (0, 25):
        engine = socket(15, deflate_ratio=ratio)
        tracemalloc.start()
        try:
            assert feed(engine, bomb).failure == (1009, "a compressed message that is too large")
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB
        assert kept < 10_000


@pytest.mark.parametrize("bits", range(9, 16))
def test_l41_messages_from_1_kib_are_compressed_for_the_window(bits: int) -> None:
    engine = socket(bits)
    pattern = bytes(range(200)) * 400  # zlib looks back by less than its window
    messages: list[str | bytes] = [text_of(1_024), pattern[:1_024], text_of(5_000), pattern, b"x" * 100_000, pattern, text_of(1_024)]
    for message in messages:
        engine.send(message)
    frames = read_frames(b"".join(engine.output()))
    assert [one.compressed for one in frames] == [True] * len(messages)
    for message, one in zip(messages, frames, strict=True):
        data = inflated(one.payload, bits=bits)
        assert (data.decode() if one.opcode == TEXT else data) == message


@pytest.mark.parametrize("message", ["", "x", "x" * 125, "x" * 126, "x" * 1_023, b"x" * 1_023, b""])
def test_l41_messages_under_1_kib_are_not_compressed(message: str | bytes) -> None:
    engine = socket(15)
    engine.send(message)
    data = message.encode() if isinstance(message, str) else message
    assert read_frames(b"".join(engine.output())) == [Sent(TEXT if isinstance(message, str) else BINARY, data)]


def test_what_does_not_become_smaller_is_not_compressed() -> None:
    engine = socket(15)
    noise = (3**20_000).to_bytes(4_000, "big")[-2_000:]
    engine.send(noise)
    engine.send(noise * 2)
    first, second = read_frames(b"".join(engine.output()))
    assert first == Sent(BINARY, noise)
    assert second.compressed
    assert inflated(second.payload) == noise * 2


def test_nothing_is_compressed_where_it_was_not_negotiated() -> None:
    engine = socket()
    engine.send("x" * 5_000)
    assert read_frames(b"".join(engine.output())) == [Sent(TEXT, b"x" * 5_000)]


def test_a_message_to_a_whole_room_is_compressed_once() -> None:
    engines = [socket(15) for _ in range(3)]
    for engine in engines:
        engine.send("hello " * 2_000)
    [first], second, third = (read_frames(b"".join(engine.output())) for engine in engines)
    assert [first] == second == third
    assert inflated(first.payload) == b"hello " * 2_000


# ---------------------------------------------------------------------- the queue


@pytest.mark.parametrize("queue", [1, 2, 16])
def test_l38_no_more_messages_at_once_than_the_queue_holds(queue: int) -> None:
    engine = socket(queue=queue)
    count = queue * 3 + 1
    data = b"".join(frame(TEXT, b"%d" % i) for i in range(count))
    events = engine.receive(data, NOW)
    assert events == [str(i) for i in range(queue)]
    rounds = [events]
    while engine.has_input:
        rounds.append(engine.receive(b"", NOW))
    assert [len(events) for events in rounds] == [queue] * 3 + [1]
    assert [event for events in rounds for event in events] == [str(i) for i in range(count)]
    assert engine._held == b""


def test_l38_a_queue_that_is_just_full_holds_nothing() -> None:
    engine = socket(queue=2)
    assert engine.receive(frame(TEXT, b"a") * 2, NOW) == ["a", "a"]
    assert not engine.has_input
    assert engine.receive(frame(TEXT, b"a") * 2 + frame(TEXT, b"b")[:3], NOW) == ["a", "a"]
    assert engine.has_input
    assert engine.receive(b"", NOW) == []
    assert not engine.has_input
    assert engine.receive(frame(TEXT, b"b")[3:], NOW) == ["b"]


def test_l38_more_bytes_may_come_while_some_are_held() -> None:
    engine = socket(queue=1)
    assert engine.receive(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c")[:4], NOW) == ["a"]
    assert engine.receive(frame(TEXT, b"c")[4:], NOW) == ["b"]
    assert engine.has_input
    assert engine.receive(b"", NOW) == ["c"]
    assert not engine.has_input


def test_l38_what_is_behind_the_queue_is_neither_answered_nor_judged() -> None:
    engine = socket(queue=1)
    assert engine.receive(frame(TEXT, b"a") + frame(PING) + frame(3), NOW) == ["a"]
    assert (engine.output(), engine.phase, engine.has_input) == ([], Phase.OPEN, True)
    assert engine.receive(b"", NOW) == [Closed(1006, "an unknown opcode")]
    assert [one.opcode for one in read_frames(b"".join(engine.output()))] == [PONG, CLOSE]
    assert not engine.has_input


def test_l38_a_close_frame_behind_a_full_queue() -> None:
    engine = socket(queue=2)
    assert engine.receive(frame(TEXT, b"a") * 2 + close(1000), NOW) == ["a", "a"]
    assert (engine.phase, engine.has_input) == (Phase.OPEN, True)
    assert engine.receive(b"", NOW) == [Closed(1000, "")]
    assert (engine.phase, engine.has_input) == (Phase.DONE, False)


def test_l38_the_end_is_no_message() -> None:
    engine = socket(queue=2)
    assert engine.receive(frame(TEXT, b"a") + close(1000) + NEXT * 3, NOW) == ["a"]
    assert engine.receive(b"", NOW) == [Closed(1000, "")]
    assert not engine.has_input


@pytest.mark.parametrize("end", [close(1000), frame(3), frame(TEXT, b"\xff"), frame(TEXT, b"\xff" * 9)[:12]])
def test_the_end_waits_until_what_came_before_it_can_be_answered(end: bytes) -> None:
    engine = socket()
    assert engine.receive(frame(TEXT, b"a") + end, NOW) == ["a"]
    assert engine.has_input
    engine.send("answer")
    assert b"".join(engine.output()) == b"\x81\x06answer"
    events = engine.receive(b"", NOW)
    assert [type(event) for event in events] == [Closed]
    assert b"".join(engine.output())[0] == 0x88


def test_l36_compression_that_adds_bytes_is_not_counted() -> None:
    data = random.Random(1).randbytes(1 << 20)  # noqa: S311 - bytes that cannot be made fewer
    engine, squeezed = socket(15), deflated(data)
    assert len(squeezed) > len(data)
    assert take(engine, frame(BINARY, squeezed, rsv=RSV1)) == [data]
    assert engine.receive(bytes((0xC2, 0xFF)) + ((1 << 20) + 4_096).to_bytes(8, "big"), NOW)[0] == Closed(
        1006, "a message that is too large"
    )


def test_l38_messages_in_fragments_and_long_ones_count() -> None:
    engine = socket(15, queue=2)
    fragmented = b"".join(fragments(TEXT, [b"a", b"b"]))
    squeezed = frame(TEXT, deflated(b"c"), rsv=RSV1)
    assert engine.receive((fragmented + squeezed) * 2, NOW) == ["ab", "c"]
    assert engine.has_input
    assert engine.receive(b"", NOW) == ["ab", "c"]


def test_l38_no_limit() -> None:
    engine = socket(queue=0)
    outcome = feed(engine, NEXT * 1_000)
    assert outcome.events == ["next"] * 1_000
    assert not engine.has_input


@pytest.mark.parametrize("wire", [frame(PONG), frame(PING), frame(CONT, fin=False)])
def test_one_turn_reads_a_bounded_number_of_frames(wire: bytes) -> None:
    engine = socket(fragments=0, pings=0)
    data = (frame(TEXT, fin=False) if wire == frame(CONT, fin=False) else b"") + wire * 1_000
    assert engine.receive(data, NOW) == []
    assert engine.has_input
    turns = 1
    while engine.has_input:
        assert engine.receive(b"", NOW) == []
        turns += 1
    assert turns == 4
    assert feed(engine, frame(CONT, b"a") if engine._assembly else NEXT).events


@pytest.mark.parametrize(("text", "weighs"), [("x" * 40_000, 40_000), ("é" + "x" * 19_999, 80_000)])
def test_l10_messages_that_wait_weigh_so_much_at_the_most(text: str, weighs: int) -> None:
    engine = socket()
    assert weight(text) == weighs
    data = frame(TEXT, text.encode()) * 3
    first = engine.receive(data, NOW)
    assert len(first) == (2 if weighs < 65_536 else 1)
    assert engine.has_input
    assert engine.receive(b"", NOW) == []
    engine.credit += weighs * len(first)
    assert engine.receive(b"", NOW)


def test_l10_compressed_messages_weigh_what_they_become() -> None:
    engine = socket(15)
    bomb = frame(BINARY, deflated(bytes(65_536)), rsv=RSV1)
    assert len(engine.receive(bomb * 10, NOW)) == 1
    assert len(engine._held) == len(bomb) * 9


def test_l38_what_is_held_when_we_close_is_discarded() -> None:
    engine = socket(queue=1)
    assert engine.receive(NEXT * 3 + close(1000), NOW) == ["next"]
    engine.close(1001)
    events: list[SocketEvent] = []
    while engine.has_input:
        events += engine.receive(b"", NOW)
    assert events == [Closed(1000, "")]
    assert engine.phase is Phase.DONE


@pytest.mark.parametrize("count", [15, 16, 17, 100])
def test_l38_what_is_discarded_fills_no_queue(count: int) -> None:
    """The answer to our Close frame must not wait behind messages that nobody will take: nothing would ask for the rest."""
    engine = closing()
    assert engine.receive(NEXT * count + close(1001), NOW) == [Closed(1001, "")]
    assert (engine.phase, engine.has_input) == (Phase.DONE, False)


# ---------------------------------------------------------------------- the rate of pings, and pongs that wait


def pinged(engine: WebSocket, count: int, now: float) -> bool:
    """Ping so often; whether the peer is still welcome. Every ping is answered until it is not."""
    outcome = feed(engine, frame(PING, b"x") * count, now=now)
    if outcome.phase is Phase.OPEN:
        assert outcome.sent == [Sent(PONG, b"x")] * count
        return True
    assert outcome.failure == (1008, "too many pings")
    assert outcome.events == [Closed(1006, "too many pings")]
    assert outcome.sent[-1].code == 1008
    assert all(one == Sent(PONG, b"x") for one in outcome.sent[:-1])
    return False


def test_d7_l25_the_rate_and_the_burst_are_exact() -> None:
    assert pinged(socket(), 400, NOW)
    assert not pinged(socket(), 401, NOW)
    engine = socket()
    for _ in range(400):
        assert pinged(engine, 1, NOW)
    assert not pinged(engine, 1, NOW)


def test_d7_l25_credit_comes_with_time() -> None:
    engine = socket()
    assert pinged(engine, 400, 1_000.0)
    assert pinged(engine, 5, 1_001.0)
    assert pinged(engine, 1, 1_001.25)
    assert pinged(engine, 299, 1_061.0)
    assert not pinged(engine, 1, 1_061.0)


def test_d7_l25_credit_is_bounded() -> None:
    engine = socket()
    assert pinged(engine, 1, NOW)
    assert pinged(engine, 400, 1e6)
    assert not pinged(engine, 1, 1e6)


@pytest.mark.parametrize("rate", [1, 60])
def test_l25_another_rate(rate: int) -> None:
    engine = socket(pings=rate)
    assert pinged(engine, rate + 100, NOW)
    assert pinged(engine, rate, NOW + 60)
    assert not pinged(engine, 1, NOW + 60)


def test_l25_five_a_second_for_an_hour_are_welcome() -> None:
    engine = socket()
    assert all(pinged(engine, 50, float(second)) for second in range(1, 3_600, 10))


def test_l25_no_limit() -> None:
    assert pinged(socket(pings=0), 10_000, NOW)


def test_l25_pongs_are_not_counted() -> None:
    assert feed(socket(pings=1), frame(PONG) * 1_000).phase is Phase.OPEN


def test_l25_pings_are_not_counted_behind_our_close_frame() -> None:
    assert feed(closing(), frame(PING) * 1_000 + close(1001)) == Outcome([Closed(1001, "")], b"", Phase.DONE)


def test_d7_only_the_newest_ping_is_answered_while_pongs_are_held() -> None:
    engine = socket()
    engine.holds_pongs = True
    assert feed(engine, frame(PING, b"1"), NEXT, frame(PING, b"2"), frame(PING, b"3")).output == b""
    engine.send("a")  # what the application says is not held
    assert read_frames(b"".join(engine.output())) == [Sent(TEXT, b"a")]
    engine.holds_pongs = False
    assert read_frames(b"".join(engine.output())) == [Sent(PONG, b"3")]
    assert engine.output() == []
    assert feed(engine, frame(PING, b"4")).sent == [Sent(PONG, b"4")]


def test_d7_pongs_that_are_held_are_counted_too() -> None:
    engine = socket()
    engine.holds_pongs = True
    outcome = feed(engine, frame(PING) * 401)
    assert outcome.failure == (1008, "too many pings")
    assert [one.code for one in outcome.sent] == [1008]


def test_rfc6455_5_5_1_no_pong_behind_our_close_frame() -> None:
    engine = socket()
    engine.holds_pongs = True
    feed(engine, frame(PING, b"1"))
    engine.close(1000)
    engine.holds_pongs = False
    assert read_frames(b"".join(engine.output())) == [Sent(CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    ("end", "code"), [pytest.param(close(1000), 1000, id="the peer's close frame"), pytest.param(frame(3), 1002, id="the peer's fault")]
)
@pytest.mark.parametrize("released", ["ahead", "behind", "between"])
def test_rfc6455_5_5_1_no_pong_that_was_held_behind_the_end(end: bytes, code: int, released: str) -> None:
    engine = socket()
    engine.holds_pongs = True
    feed(engine, frame(PING, b"1"))
    engine.holds_pongs = released != "ahead"
    engine.receive(end, NOW)
    out = b"".join(engine.output()) if released == "behind" else b""
    engine.holds_pongs = False
    out += b"".join(engine.output())
    frames = read_frames(out)
    assert frames[-1].opcode == CLOSE
    assert frames[-1].code == code


# ---------------------------------------------------------------------- laws


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(c, len(data)) for c in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


MASKS = st.sampled_from([MASK, b"\0\0\0\0", b"\1\0\0\xff"])
TEXTS = st.one_of(st.text(max_size=20), st.builds(lambda text, times: text * times, st.text(max_size=8), st.sampled_from([20, 130, 300])))
MESSAGES = st.one_of(TEXTS, TEXTS.map(str.encode), st.binary(max_size=30))
CUTS = st.lists(st.integers(0, 700), max_size=5)


@dataclass
class Said:
    """What a client says, as frames, and what has to come of it."""

    data: bytes
    events: list[SocketEvent]
    pongs: list[bytes]


@st.composite
def conversations(draw: st.DrawFn) -> Said:
    """Make messages in fragments, compressed or not, with control frames anywhere, and perhaps a Close frame."""
    said = Said(b"", [], [])

    def control() -> None:
        payload = draw(st.binary(max_size=125))
        opcode = draw(st.sampled_from([PING, PONG]))
        if opcode == PING:
            said.pongs.append(payload)
        said.data += frame(opcode, payload, mask=draw(MASKS))

    for message in draw(st.lists(MESSAGES, max_size=6)):
        data = message.encode() if isinstance(message, str) else message
        squeezed = draw(st.booleans())
        parts = cut(deflated(data) if squeezed else data, draw(CUTS))
        opcode = TEXT if isinstance(message, str) else BINARY
        for i, part in enumerate(parts):
            first = RSV1 if squeezed and not i else 0
            said.data += frame(opcode if not i else CONT, part, fin=i == len(parts) - 1, rsv=first, mask=draw(MASKS))
            if draw(st.integers(0, 4)) == 0:
                control()
        said.events.append(message)
    if draw(st.booleans()):
        code, reason = draw(st.sampled_from(GOOD_CODES)), draw(st.text(max_size=20))
        said.data += close(code, reason.encode())
        said.events.append(Closed(code, reason))
    return said


@given(conversations(), CUTS, st.sampled_from([1, 3, 16]))
def test_any_split_of_what_is_right_gives_what_was_said(said: Said, cuts: list[int], queue: int) -> None:
    whole = feed(socket(15, queue=queue), said.data)
    assert whole.events == said.events
    frames = whole.sent
    assert [one.payload for one in frames if one.opcode == PONG] == said.pongs
    assert len(frames) == len(said.pongs) + (whole.phase is Phase.DONE)
    assert whole.failure is None
    assert feed(socket(15, queue=queue), *cut(said.data, cuts)) == whole
    assert feed(socket(15, queue=queue), *byte_by_byte(said.data)) == whole


ANY_FRAMES = st.builds(
    lambda opcode, payload, fin, rsv, mask, width: frame(
        opcode, payload, fin=fin, rsv=rsv, mask=mask, width=width if width or len(payload) < 126 else None
    ),
    st.sampled_from([CONT, TEXT, TEXT, BINARY, BINARY, CLOSE, PING, PONG, 3, 15]),
    st.one_of(
        st.sampled_from(
            [b"", b"a", b"\xc3", b"\xa9", b"\xff", b"\x03\xe8", b"\x00", b"x" * 40, b"x" * 126, b"\xf2\x48\xcd\xc9\xc9\x07\x00"]
        ),
        st.binary(max_size=8),
    ),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 0, RSV1, RSV2, RSV3]),
    st.sampled_from([MASK, MASK, MASK, MASK, None]),
    st.sampled_from([None, None, None, None, None, 2, 8]),
)
RIGHT_FRAMES = st.builds(
    lambda opcode, payload, fin: frame(opcode, payload, fin=fin or opcode >= CLOSE),
    st.sampled_from([CONT, TEXT, BINARY, PING, PONG]),
    st.sampled_from([b"", b"a", b"\xc3", b"\xa9", b"x" * 20]),
    st.booleans(),
)
BITS = st.one_of(RIGHT_FRAMES, RIGHT_FRAMES, RIGHT_FRAMES, ANY_FRAMES, st.binary(max_size=4))
STREAMS = st.lists(BITS, max_size=10).map(b"".join)
SMALL = {"message": 50, "frame": 45, "fragments": 4, "queue": 2, "pings": 1}


@pytest.mark.parametrize("window_bits", [0, 12])
@pytest.mark.parametrize("limits", [{}, SMALL], ids=["usual limits", "small limits"])
@given(STREAMS, CUTS)
def test_any_split_of_anything_gives_the_same(limits: dict[str, int], window_bits: int, data: bytes, cuts: list[int]) -> None:
    whole = feed(socket(window_bits, **limits), data)
    assert feed(socket(window_bits, **limits), *cut(data, cuts)) == whole
    assert feed(socket(window_bits, **limits), *byte_by_byte(data)) == whole


COMMANDS: dict[str, Callable[[WebSocket], None]] = {
    "text": lambda engine: engine.send("a"),
    "long text": lambda engine: engine.send("a" * 2_000),
    "bytes": lambda engine: engine.send(b"a" * 5_000),
    "ping": lambda engine: engine.ping(),
    "close": lambda engine: engine.close(1000, "why"),
    "hold": lambda engine: setattr(engine, "holds_pongs", True),
    "release": lambda engine: setattr(engine, "holds_pongs", False),
}


@example(["hold", frame(PING), close(1000), "release"], 0)
@example(["hold", frame(PING), frame(3), "release"], 0)
@given(st.lists(st.one_of(BITS, BITS, st.sampled_from(sorted(COMMANDS))), max_size=16), st.sampled_from([0, 15]))
def test_no_input_raises_nothing_is_sent_behind_the_end_and_no_buffer_outgrows_its_limit(
    steps: list[bytes | str], window_bits: int
) -> None:
    engine = socket(window_bits, **SMALL)
    out = b""
    ends = 0
    for i, step in enumerate(steps):
        if isinstance(step, str):
            COMMANDS[step](engine)
            out += b"".join(engine.output())
            continue
        events = engine.receive(step, float(i + 1))
        while engine.has_input:
            assert len(events) <= SMALL["queue"] + 1
            events += engine.receive(b"", float(i + 1))
        ends += sum(type(event) is Closed for event in events)
        assert ends == (engine.phase in {Phase.DONE, Phase.FAILED})
        assert (engine.failure is not None) is (engine.phase is Phase.FAILED)
        assert len(engine._held) <= HELD
        assert engine._assembly is None or len(engine._assembly.data) <= SMALL["message"]
        assert not events or all(len(event) <= SMALL["message"] for event in events if not isinstance(event, Closed))
        out += b"".join(engine.output())
    opcodes = [one.opcode for one in read_frames(out)]
    assert opcodes.count(CLOSE) == (engine.phase is not Phase.OPEN)
    assert CLOSE not in opcodes[:-1]


@given(st.lists(st.binary(max_size=40), max_size=12), st.sampled_from([0, 15]))
def test_arbitrary_bytes_end_in_a_phase(pieces: list[bytes], window_bits: int) -> None:
    outcome = feed(socket(window_bits), *pieces)
    assert outcome.phase in {Phase.OPEN, Phase.DONE, Phase.FAILED}
    assert [one.opcode for one in outcome.sent].count(CLOSE) == (outcome.phase is not Phase.OPEN)


# ---------------------------------------------------------------------- a client nobody here wrote


def their_client(window_bits: int) -> Protocol:
    """Make a client of `websockets`, its handshake done."""
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    if window_bits:
        client.extensions = [PerMessageDeflate(True, True, window_bits, 15)]
    return client


@given(st.lists(st.tuples(MESSAGES, CUTS), max_size=5), st.sampled_from([0, 9, 12, 15]))
def test_messages_go_there_and_back(messages: list[tuple[str | bytes, list[int]]], window_bits: int) -> None:
    client, engine = their_client(window_bits), socket(window_bits)
    expected = [message for message, _ in messages]
    for message, cuts in messages:
        data = message.encode() if isinstance(message, str) else message
        parts = cut(data, cuts)
        say = client.send_text if isinstance(message, str) else client.send_binary
        say(parts[0], fin=len(parts) == 1)
        for i, part in enumerate(parts[1:], 2):
            client.send_continuation(part, fin=i == len(parts))
    assert feed(engine, *client.data_to_send()).events == expected
    for message in expected:
        engine.send(message)
    for piece in engine.output():
        client.receive_data(piece)
    assert [heard(event) for event in client.events_received()] == expected


def heard(event: object) -> str | bytes:
    """Give the message in a frame of theirs."""
    if not isinstance(event, Frame):
        raise TypeError(event)
    return bytes(event.data).decode() if event.opcode is Opcode.TEXT else bytes(event.data)


@pytest.mark.parametrize("reason", ["", "because", "é" * 60])
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_either_side_closes(code: int, reason: str) -> None:
    client, engine = their_client(0), socket()
    client.send_close(code, reason)
    outcome = feed(engine, *client.data_to_send())
    assert outcome.events == [Closed(code, reason)]
    client.receive_data(outcome.output)
    client.receive_eof()
    assert (client.close_code, client.close_reason) == (code, reason)

    client, engine = their_client(0), socket()
    engine.close(code, reason)
    client.receive_data(b"".join(engine.output()))
    assert feed(engine, *client.data_to_send()) == Outcome([Closed(code, reason)], b"", Phase.DONE)
    client.receive_eof()
    assert (client.close_code, client.close_reason) == (code, reason)


@pytest.mark.parametrize("data", [frame(3), frame(TEXT, b"\xff"), head(TEXT, MIB + 1), frame(PING) * 401, frame(TEXT, b"\xff", rsv=RSV1)])
def test_every_reason_of_ours_is_a_right_close_frame(data: bytes) -> None:
    client, engine = their_client(0), socket()
    client.receive_data(feed(engine, data).output)
    client.receive_eof()
    assert (client.close_code, client.close_reason) == engine.failure


# ---------------------------------------------------------------------- cost


def cpu(data: list[bytes], window_bits: int = 0, **limits: int) -> float:
    """Give the seconds of this process's own CPU that it takes to read."""
    engine = socket(window_bits, **limits)
    before = time.process_time()
    feed(engine, *data)
    return time.process_time() - before


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(BINARY, bytes(200_000 // SLOWER)), id="a message"),
        pytest.param(frame(TEXT, b"x" * (200_000 // SLOWER)), id="a text"),
        pytest.param(frame(PING, bytes(125)) * (1_500 // SLOWER), id="pings"),
        pytest.param(NEXT * (20_000 // SLOWER), id="short messages"),
        pytest.param(b"".join(fragments(TEXT, [b"x"] * (20_000 // SLOWER))), id="fragments"),
    ],
)
def test_e8_single_bytes_cost_little(data: bytes) -> None:
    assert cpu(byte_by_byte(data), pings=0, fragments=0) < 4


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT) * 43_000, id="empty messages"),
        pytest.param(frame(PING) * 43_000, id="pings"),
        pytest.param(frame(TEXT, fin=False) + frame(CONT, fin=False) * 43_000, id="empty fragments"),
        pytest.param(b"".join(fragments(BINARY, [b"x"] * 37_000)), id="fragments of a byte"),
        pytest.param(frame(TEXT, deflated(b""), rsv=RSV1) * 37_000, id="compressed messages of nothing"),
    ],
)
def test_e8_the_worst_of_one_read_costs_little(data: bytes) -> None:
    assert cpu([data], 15, pings=0, fragments=0) < 1 * SLOWER
