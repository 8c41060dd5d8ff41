"""Responses over HTTP/2 (RFC 9113 §8.1, RFC 9110); spec attacks B5 and B10."""

import pytest

from termserver.errors import InvalidMessage
from termserver.wire import h2frames as f
from termserver.wire.events import Rejected
from wire.h2driving import (
    CONNECT,
    EXPECT,
    INTERNAL_ERROR,
    NO_ERROR,
    TE,
    Client,
    Sent,
    data,
    every_way,
    feed,
    fields,
    get,
    headers,
    length,
    post,
    settings,
    window,
)

# ---------------------------------------------------------------------- responses


@every_way
def test_a_whole_response_is_two_frames(way: str) -> None:
    client = Client(way)
    for stream in (1, 3):
        client.send(get(stream))
        client.respond(stream, b"hello", 200, (b"content-type", b"text/plain"))
        assert [(each.kind, each.flags, each.stream) for each in client.take()] == [
            (f.HEADERS, f.END_HEADERS, stream),
            (f.DATA, f.END_STREAM, stream),
        ]
        assert client.answer(stream).heads == [[(b":status", b"200"), (b"content-length", b"5"), (b"content-type", b"text/plain")]]
        assert client.answer(stream).body == b"hello"
    assert client.engine.streams == {}
    assert (client.engine.sender.sent, client.engine.sender.data_frames) == (10, 2)


@pytest.mark.parametrize("stream", [1, 3, 5])
def test_rfc7541_4_2_the_first_block_of_ours_says_that_there_is_no_table(stream: int) -> None:
    client = Client()
    client.send(get(1), get(3), get(5))
    for each in [stream, *{1, 3, 5} - {stream}]:
        client.respond(each)
    blocks = [sent.payload[0] for sent in client.take() if sent.kind == f.HEADERS]
    assert blocks[0] == 0x20
    assert 0x20 not in blocks[1:]


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("first", ["whole", "interim", "chunks", "refusal", "trailers", "upgrade"])
def test_rfc7541_4_2_whatever_is_first(first: str, blocked: bool) -> None:
    client = Client()
    client.send(get(1), headers(3, CONNECT, ended=False), get(5, TE), get(7))
    engine = client.engine
    engine.sender.blocked = blocked
    if first == "whole":
        client.respond(1)
    elif first == "interim":
        engine.interim(1, 103, [(b"link", b"</a>")])
    elif first == "chunks":
        client.begin(1)
    elif first == "refusal":
        engine.reject(1, 503, "busy")
    elif first == "trailers":
        engine.start(5, 200, [], trailers=True)
        engine.write(5, b"", False)
        engine.trailers(5, [(b"a", b"b")], more=False)
    else:
        engine.upgrade(3, [])
    client.respond(7)
    engine.sender.blocked = False
    client.send(get(9))
    client.respond(9)
    blocks = [sent.payload[:1] for sent in client.take() if sent.kind == f.HEADERS]
    assert blocks[0] == b"\x20"
    assert b"\x20" not in blocks[1:]


@every_way
def test_a_response_without_a_length_is_given_one(way: str) -> None:
    client = Client(way)
    client.send(get(1), get(3))
    client.respond(1, b"hello", length=False)
    client.respond(3, b"", length=False)
    assert (client.answer(1).field(b"content-length"), client.answer(1).body) == ([b"5"], b"hello")
    assert (client.answer(3).field(b"content-length"), client.answer(3).ended) == ([b"0"], True)
    assert [each.kind for each in client.sent if each.stream == 3] == [f.HEADERS]


@every_way
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("parts", [[b"a"], [b"", b"a"], [b"a", b""], [b"a", b"b" * 20_000, b"c"], [b"", b""], [b"x" * 40_000]], ids=len)
def test_a_response_in_chunks(way: str, parts: list[bytes], declared: bool) -> None:
    client = Client(way)
    client.send(get(1))
    whole = b"".join(parts)
    client.engine.start(1, 200, [length(len(whole))] if declared else [])
    for part in parts:
        client.engine.write(1, part, True)
    assert not client.answer(1).ended
    client.engine.write(1, b"", False)
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (whole, True, None)
    assert answer.field(b"content-length") == ([b"%d" % len(whole)] if declared else [])
    assert client.engine.streams == {}


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"body"], [b"bo", b"dy"], [b"", b"body", b""]], ids=str)
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304), (b"HEAD", 204), (b"HEAD", 304)]
)
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("trailers", [False, True])
def test_b10_rfc9110_6_4_1_no_body_whatever_the_application_writes(
    method: bytes, status: int, parts: list[bytes], declared: bool, blocked: bool, trailers: bool
) -> None:
    client = Client()
    client.send(headers(1, fields(method, b"/", TE)))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.start(1, status, [length(4)] if declared else [], trailers=trailers)
    for part in parts[:-1]:
        engine.write(1, part, True)
    engine.write(1, parts[-1], False)
    if trailers:
        engine.trailers(1, [(b"a", b"b")], more=False)
    engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.status, answer.body, answer.ended, answer.code) == (status, b"", True, None)
    assert [each.kind for each in client.sent] == [f.HEADERS]
    if status == 204:  # RFC 9110 §8.6
        assert answer.field(b"content-length") == []
    elif declared:
        assert answer.field(b"content-length") == [b"4"]
    assert client.works


def test_rfc9110_8_6_a_head_has_the_length_that_a_get_would_have() -> None:
    client = Client()
    client.send(headers(1, fields(b"HEAD")), headers(3, fields(b"HEAD")), headers(5, fields(b"HEAD")))
    client.respond(1, b"hello", length=False)
    client.respond(3, b"", length=False)
    client.begin(5)
    assert client.answer(1).field(b"content-length") == [b"5"]
    assert client.answer(3).field(b"content-length") == client.answer(5).field(b"content-length") == []


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("before", [[], [b"ab"], [b"ab", b"c"]], ids=str)
@pytest.mark.parametrize("more", [False, True])
def test_b10_more_than_content_length(before: list[bytes], more: bool, blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    client.engine.sender.blocked = blocked
    client.engine.start(1, 200, [length(3)])
    for part in before:
        client.engine.write(1, part, True)
    with pytest.raises(InvalidMessage, match="longer than its content-length"):
        client.engine.write(1, b"abcdef"[len(b"".join(before)) :], more)
    client.engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (b"abc", True, None)
    assert client.works


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"ab"], [b"a", b"b"], [b"ab", b""]], ids=str)
def test_b10_less_than_content_length(parts: list[bytes], blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    client.engine.sender.blocked = blocked
    client.engine.start(1, 200, [length(3)])
    for part in parts[:-1]:
        client.engine.write(1, part, True)
    with pytest.raises(InvalidMessage, match="bytes short of its content-length"):
        client.engine.write(1, parts[-1], False)
    client.engine.sender.blocked = False
    assert (client.answer(1).ended, client.answer(1).code) == (False, INTERNAL_ERROR)
    assert client.works


def test_b5_a_head_that_may_not_be_said() -> None:
    client = Client()
    client.send(get(1))
    for bad in [[(b"a", b"b\r\nc: d")], [(b"a b", b"c")], [(b"a", b"\0")]]:
        with pytest.raises(InvalidMessage):
            client.engine.start(1, 200, bad)
        with pytest.raises(InvalidMessage):
            client.engine.interim(1, 103, bad)
    assert client.take() == []
    client.respond(1)
    assert client.answer(1).status == 200


@pytest.mark.parametrize("size", [16_384, 16_385, 40_000, 100_000])
def test_rfc9113_4_3_big_heads_of_ours(size: int) -> None:
    client = Client()
    client.send(get(1), get(3, TE), get(5))
    client.respond(1, b"ok", 200, (b"x", b"y" * size))
    client.engine.start(3, 200, [], trailers=True)
    client.engine.write(3, b"body", False)
    client.engine.trailers(3, [(b"x", b"y" * size)], more=False)
    client.respond(5, b"ok", 200, (b"x", b"y" * size))
    for stream in (1, 3, 5):
        assert client.answer(stream).field(b"x") == [b"y" * size]
        assert client.answer(stream).ended
    assert f.CONTINUATION in {each.kind for each in client.sent}
    assert client.works


# ---------------------------------------------------------------------- trailers out


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"a"], [b"a", b"b"], [b"a", b""], [b"x" * 50_000]], ids=len)
@pytest.mark.parametrize("wanted", [False, True])
def test_rfc9113_8_1_trailers_out_for_those_who_take_them(parts: list[bytes], wanted: bool, blocked: bool) -> None:
    client = Client()
    client.send(get(1, *[TE] * wanted))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.start(1, 200, [], trailers=True)
    for part in parts[:-1]:
        engine.write(1, part, True)
    engine.write(1, parts[-1], False)
    assert not client.answer(1).ended
    engine.trailers(1, [(b"X-First", b"1 ")], more=True)
    engine.trailers(1, [(b"x-second", b"2")], more=False)
    engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (b"".join(parts), True, None)
    assert answer.heads[1:] == ([[(b"x-first", b"1"), (b"x-second", b"2")]] if wanted else [])
    assert client.engine.streams == {}
    assert client.works


@pytest.mark.parametrize("declared", [False, True])
def test_rfc9113_8_1_trailers_that_are_none(declared: bool) -> None:
    client = Client()
    client.send(get(1, TE))
    client.engine.start(1, 200, [length(4)] if declared else [], trailers=True)
    client.engine.write(1, b"body", False)
    client.engine.trailers(1, [], more=False)
    assert (client.answer(1).body, client.answer(1).ended, len(client.answer(1).heads)) == (b"body", True, 1)


@pytest.mark.parametrize("bad", [[(b"content-length", b"1")], [(b"a", b"\n")], [(b"transfer-encoding", b"chunked")]], ids=str)
def test_rfc9110_6_5_1_trailers_that_may_not_be_said(bad: list[tuple[bytes, bytes]]) -> None:
    client = Client()
    client.send(get(1, TE))
    client.engine.start(1, 200, [], trailers=True)
    client.engine.write(1, b"body", False)
    with pytest.raises(InvalidMessage):
        client.engine.trailers(1, bad, more=False)
    assert not client.answer(1).ended
    client.engine.trailers(1, [(b"a", b"b")], more=False)
    assert client.answer(1).ended


# ---------------------------------------------------------------------- 1xx, Expect


@pytest.mark.parametrize("blocked", [False, True])
def test_rfc9113_8_1_interim_responses(blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.interim(1, 103, [(b"link", b"</a>")])
    engine.interim(1, 103, [])
    engine.start(1, 200, [])
    engine.interim(1, 102, [])  # the head is still held back
    engine.write(1, b"ok", False)
    engine.interim(1, 103, [])
    engine.sender.blocked = False
    answer = client.answer(1)
    assert answer.interims == [103, 103, 102]
    assert (answer.heads[0], answer.status, answer.body) == ([(b":status", b"103"), (b"link", b"</a>")], 200, b"ok")
    assert not [each for each in client.sent if each.kind == f.HEADERS and each.flags & f.END_STREAM]


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_rfc9113_8_1_interim_responses_before_one_without_a_body(method: bytes, blocked: bool) -> None:
    client = Client()
    client.send(headers(1, fields(method)))
    client.engine.sender.blocked = blocked
    client.engine.interim(1, 103, [])
    client.engine.interim(1, 103, [])
    client.respond(1, b"", length=False)
    client.engine.sender.blocked = False
    assert (client.answer(1).interims, client.answer(1).status, client.answer(1).ended) == ([103, 103], 200, True)


def test_no_interim_response_comes_after_the_final_head() -> None:
    client = Client()
    client.send(get(1))
    client.begin(1)
    client.take()
    client.engine.interim(1, 103, [])
    client.engine.interim(99, 103, [])
    assert client.take() == []


@every_way
def test_rfc9110_10_1_1_expect_is_answered_once_the_application_reads(way: str) -> None:
    client = Client(way)
    client.send(post(1, EXPECT))
    assert client.take() == []
    client.engine.wants_continue(1)
    client.engine.wants_continue(1)
    client.engine.wants_continue(99)
    assert client.answer(1).interims == [100]
    client.send(data(1, b"x", ended=True))
    client.respond(1)
    assert (client.answer(1).interims, client.answer(1).status) == ([100], 200)


@every_way
@pytest.mark.parametrize("sent", [data(1, b"x"), data(1, b"x", ended=True), data(1, ended=True)])
def test_rfc9110_10_1_1_no_100_when_the_body_is_here(way: str, sent: bytes) -> None:
    client = Client(way)
    client.send(post(1, EXPECT), sent, post(3))
    client.engine.wants_continue(1)
    client.engine.wants_continue(3)
    assert client.take() == []


def test_rfc9110_10_1_1_no_100_after_the_final_head() -> None:
    client = Client()
    client.send(post(1, EXPECT))
    client.begin(1)
    client.engine.wants_continue(1)
    assert client.answer(1).interims == []


# ---------------------------------------------------------------------- early answers


@every_way
def test_rfc9113_8_1_an_early_answer(way: str) -> None:
    client = Client(way)
    client.send(post(1), data(1, b"x"))
    client.respond(1, b"enough")
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).code) == (b"enough", True, NO_ERROR)
    assert client.sent[-1] == Sent(f.RST_STREAM, 0, 1, bytes(4))
    client.events.clear()
    client.send(data(1, bytes(16_384)), data(1, b"y"), window(1, 5), headers(1, [(b"a", b"b")]))
    assert (client.events, client.goaways) == ([], [])
    assert client.works


@every_way
@pytest.mark.parametrize("response", ["chunks", "no content", "trailers", "rejected"])
def test_rfc9113_8_1_every_kind_of_early_answer(way: str, response: str) -> None:
    client = Client(way)
    client.send(post(1, TE), data(1, b"x"))
    engine = client.engine
    if response == "chunks":
        client.begin(1)
        engine.write(1, b"x", False)
    elif response == "no content":
        client.respond(1, b"", 204, length=False)
    elif response == "trailers":
        engine.start(1, 200, [], trailers=True)
        engine.write(1, b"x", False)
        engine.trailers(1, [(b"a", b"b")], more=False)
    else:
        assert engine.reject(1, 408, "slow") == Rejected(408, "slow")
    assert (client.answer(1).ended, client.answer(1).code) == (True, NO_ERROR)
    client.send(data(1, b"late", ended=True))
    assert client.works


def test_rfc9113_8_1_an_answer_that_waits_is_still_early() -> None:
    client = Client()
    client.send(settings((4, 0)), post(1))
    client.respond(1, b"wait")
    client.send(data(1, b"x"))
    assert (client.answer(1).ended, client.answer(1).code) == (False, None)
    client.send(window(1, 4))
    assert (client.answer(1).body, client.answer(1).code) == (b"wait", NO_ERROR)


def test_an_answer_that_waits_until_the_request_is_whole_is_not_early() -> None:
    client = Client()
    client.send(settings((4, 0)), post(1))
    client.respond(1, b"wait")
    client.send(data(1, b"x", ended=True), window(1, 4))
    assert (client.answer(1).body, client.answer(1).code) == (b"wait", None)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("request_fields", "status"),
    [
        pytest.param(fields(b"BREW"), 501, id="an unknown method"),
        pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1")], 501, id="CONNECT"),
        pytest.param(fields(b"GET", b"/", (b"expect", b"more")), 417, id="an unknown expectation"),
        pytest.param([each for each in fields() if each[0] != b":authority"], 400, id="no authority"),
        pytest.param(fields(b"GET", b"/" + b"x" * 9_000), 414, id="a long path"),
        pytest.param(fields(b"GET", b"/", (b"a", b"x" * 9_000)), 431, id="a long field"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_requests_that_are_refused_with_a_status(request_fields: list[tuple[bytes, bytes]], status: int, ended: bool) -> None:
    client = feed(Client, headers(1, request_fields, ended=ended))
    assert [type(event) for event in client.events] == [Rejected]
    assert client.events[0].status == status
    answer = client.answer(1)
    assert (answer.status, answer.ended, answer.code) == (status, True, None if ended else NO_ERROR)
    assert answer.field(b"content-type") == [b"text/plain"]
    assert answer.field(b"content-length") == [b"%d" % len(answer.body)]
    assert client.engine.calls == 0
    assert client.works


def test_a_refusal_of_head_has_no_body() -> None:
    client = feed(Client, headers(1, fields(b"HEAD", b"/", (b"expect", b"more"))))
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).ended) == (417, b"", True)


@pytest.mark.parametrize("started", [False, True])
def test_reject(started: bool) -> None:
    client = Client()
    client.send(get(1), get(3), get(5), get(7))
    engine = client.engine
    if started:  # a head that is held back is forgotten
        for stream in (1, 3, 5):
            engine.start(stream, 200, [length(5)], trailers=True)
    assert engine.reject(1, 503, "busy") == Rejected(503, "busy")
    engine.reject(3, 503, "busy", [(b"x", b"y")])
    engine.reject(5, 504, "slow")
    assert client.answer(1).field(b"retry-after") == [b"1"]
    assert (client.answer(3).field(b"retry-after"), client.answer(3).field(b"x")) == ([], [b"y"])
    assert (client.answer(5).status, client.answer(5).field(b"retry-after"), client.answer(5).ended) == (504, [], True)
    client.begin(7)
    engine.reject(7, 500, "late")
    assert (client.answer(7).status, client.answer(7).ended, client.answer(7).code) == (200, False, INTERNAL_ERROR)
    assert engine.reject(99, 500, "gone") == Rejected(500, "gone")
    assert client.works
