"""The example's chat, on Django Channels: what people do in rooms, and what they do to the server when they leave."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from e2e.chat_client import BINARY, CLOSE, TEXT, Chat, RawMember, RedisServer, make_home, talking
from e2e.server import PATIENCE, Client, Server, wait_until

MISSING = (NoSuchElementException, StaleElementReferenceException, IndexError)
SAID = "Żółw & <b>naïve</b> 🐢\nand a second line"
ROOM_NUMBERS = count(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database of our own, as the environment that leads to it."""
    return make_home(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def redis(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of our own."""
    server = RedisServer(tool("redis-server"), tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@contextlib.contextmanager
def stopped_well(chat: Chat) -> Iterator[Chat]:
    """Serve; it has to end well, and without a traceback."""
    with chat:
        yield chat
        assert chat.stop() == 0, chat.log
        assert "Traceback" not in chat.log, chat.log


@pytest.fixture(scope="module", params=["memory", "redis"])
def chat(request: pytest.FixtureRequest, home: dict[str, str]) -> Iterator[Chat]:
    """The example, on each of its channel layers."""
    layer = {"CHAT_REDIS": request.getfixturevalue("redis").url} if request.param == "redis" else {}
    with stopped_well(Chat(home, **layer)) as chat:
        yield chat


@pytest.fixture(scope="module")
def redis_chat(home: dict[str, str], redis: RedisServer) -> Iterator[Chat]:
    """The example on Redis, with a short patience for long polls, and yet longer than redis-py's for its sockets."""
    with stopped_well(Chat(home, CHAT_REDIS=redis.url, CHAT_POLL_SECONDS="6")) as chat:
        yield chat


@pytest.fixture(scope="module")
def memory_chat(home: dict[str, str]) -> Iterator[Chat]:
    """The example as `make demo` serves it."""
    with stopped_well(Chat(home)) as chat:
        yield chat


@pytest.fixture
def room(chat: Chat) -> str:
    """A room where nobody has been."""
    return new_room(chat)


def new_room(chat: Chat) -> str:
    return chat.make_room(f"Room {next(ROOM_NUMBERS)}")


class TestRoom:
    """An AsyncWebsocketConsumer."""

    def test_what_one_says_all_hear_and_the_page_keeps(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin, chat.enter(room, "guest") as guest, chat.enter(room) as visitor:
            admin.say(SAID)
            heard = [member.hear("message") for member in (admin, guest, visitor)]
            assert heard[0] == heard[1] == heard[2]
            assert (heard[0]["author"], heard[0]["text"]) == ("admin", SAID)
            guest.say("Hello, admin")
            assert [member.hear("message")["author"] for member in (admin, guest, visitor)] == ["guest"] * 3
        with chat.browse() as client:
            page = client.get(f"/rooms/{room}/").text
        assert f'id="message-{heard[0]["id"]}"' in page
        assert "Żółw &amp; &lt;b&gt;naïve&lt;/b&gt; 🐢" in page

    def test_messages_of_one_member_keep_their_order(self, chat: Chat, room: str) -> None:
        texts = [str(number) for number in range(50)]
        with chat.enter(room, "admin") as admin, chat.enter(room) as visitor:
            for text in texts:
                admin.say(text)
            for member in (admin, visitor):
                assert [member.hear("message")["text"] for _ in texts] == texts

    def test_what_the_form_posts_reaches_sockets(self, chat: Chat, room: str) -> None:
        with chat.enter(room) as visitor:
            chat.post(room, "guest", "Without JavaScript")
            assert visitor.hear("message")["text"] == "Without JavaScript"

    def test_other_rooms_do_not_hear_it(self, chat: Chat, room: str) -> None:
        other = new_room(chat)
        with chat.enter(room, "admin") as admin, chat.enter(other, "admin") as elsewhere:
            admin.say("here")
            assert admin.hear("message")["text"] == "here"
            elsewhere.say("there")
            assert elsewhere.hear("message")["text"] == "there"

    def test_who_comes_and_goes_is_told(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin:
            assert admin.hear("join")["name"] == "admin"
            with chat.enter(room, "guest") as guest:
                joined = admin.hear("join")
                assert joined["name"] == "guest"
                assert guest.hear("join") == joined
                with chat.open(f"/ws/rooms/{room}/") as visitor:
                    assert sorted(name for _, name in visitor.hear("here")["members"]) == ["", "admin", "guest"]
                    assert admin.hear("join")["name"] == ""
                    assert chat.names(room) == ["", "admin", "guest"]
                admin.hear("leave")
            assert admin.hear("leave")["id"] == joined["id"]
            assert chat.names(room) == ["admin"]
        wait_until(lambda: chat.names(room) == [], "the last to leave")

    def test_who_comes_back_hears_what_was_missed(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin:
            admin.say("first")
            first = admin.hear("message")["id"]
            for text in ("second", "third"):
                admin.say(text)
                admin.hear("message")
        with chat.enter(room, query=f"?after={first}") as visitor:
            assert [visitor.next()["text"] for _ in range(2)] == ["second", "third"]

    @pytest.mark.parametrize("query", ["", "?after=", "?after=-1", "?after=many", "?after=" + "9" * 5_000, "?after=%C2%B2", "?%00=%FF"])
    def test_odd_wishes_are_the_wish_for_nothing(self, chat: Chat, query: str) -> None:
        with chat.enter("lobby", query=query) as visitor:
            assert visitor.next()["type"] == "join"

    def test_too_long_a_message_is_refused_by_name(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin:
            admin.say("x" * 2_001)
            assert "at most 2000 characters" in admin.hear("error", "message")["text"]
            admin.say("shorter")
            assert admin.hear("error", "message")["text"] == "shorter"

    def test_visitors_may_not_talk(self, chat: Chat, room: str) -> None:
        with chat.enter_raw(room) as visitor, chat.enter(room, "admin") as admin:
            visitor.send(TEXT, b'{"text": "Buy this"}')
            opcode, payload = next(frame for frame in frames(visitor) if frame[0] != TEXT)
            assert (opcode, payload) == (CLOSE, (1008).to_bytes(2) + b"Log in to talk.")
            admin.say("last word")  # the consumer passes it on, to a socket that it has closed
            assert admin.hear("message")["text"] == "last word"
            visitor.send(CLOSE, payload[:2])
            assert visitor.client.ended(PATIENCE)
            wait_until(lambda: chat.names(room) == ["admin"], "the visitor to be gone")
        assert "Traceback" not in chat.log

    @pytest.mark.parametrize(("opcode", "payload"), [
        pytest.param(BINARY, b'{"text": "binary"}', id="binary"),
        pytest.param(TEXT, b"", id="empty"),
        pytest.param(TEXT, b"hello", id="no JSON"),
        pytest.param(TEXT, b'["text"]', id="no object"),
        pytest.param(TEXT, b'{"said": "x"}', id="no text"),
        pytest.param(TEXT, b'{"text": 1}', id="a number"),
        pytest.param(TEXT, b'{"text": "\\ud83d"}', id="half a character"),
    ])  # fmt: skip
    def test_nonsense_is_answered_with_1003(self, chat: Chat, opcode: int, payload: bytes) -> None:
        with chat.enter_raw("lobby", "guest") as guest:
            guest.send(opcode, payload)
            closing = next(frame for frame in frames(guest) if frame[0] != TEXT)
            assert closing == (CLOSE, (1003).to_bytes(2) + 'Expected {"text": "…"}.'.encode())
        assert "Traceback" not in chat.log


class TestRefusals:
    """What is refused is refused before it is accepted: as HTTP, with 403."""

    @pytest.mark.parametrize(
        ("path", "origin"),
        [
            pytest.param("/ws/rooms/nowhere/", "{url}", id="no such room"),
            pytest.param("/ws/nowhere/", "{url}", id="no such socket"),
            pytest.param("/ws/rooms/lobby/", "http://example.com", id="foreign origin"),
            pytest.param("/ws/rooms/lobby/", "null", id="null origin"),
            pytest.param("/ws/rooms/lobby/", "", id="no origin"),
            pytest.param("/ws/notices/", "http://127.0.0.1.example.com", id="origin that looks like ours"),
        ],
    )
    def test_is_403(self, memory_chat: Chat, path: str, origin: str) -> None:
        fields = [f"Origin: {origin.format(url=memory_chat.url)}"] if origin else []
        with memory_chat.ask_upgrade(path, *fields) as client:
            assert client.response().status == 403

    def test_a_made_up_session_is_a_visitors(self, memory_chat: Chat) -> None:
        fields = (f"Origin: {memory_chat.url}", f"Cookie: sessionid={'x' * 32}")
        with memory_chat.ask_upgrade("/ws/rooms/lobby/", *fields) as client:
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            assert "admin" not in memory_chat.names("lobby")


def frames(member: RawMember) -> Iterator[tuple[int, bytes]]:
    """Give one frame after the other."""
    while True:
        yield member.frame()


class TestNotices:
    """A WebsocketConsumer: synchronous, in a thread."""

    def test_list_of_rooms_is_told_how_lively_they_are(self, chat: Chat, room: str) -> None:
        with chat.open("/ws/notices/") as one, chat.open("/ws/notices/", "admin") as two:
            for member in (one, two):
                [known] = [each for each in member.next()["rooms"] if each["slug"] == room]
                assert (known["count"], known["latest"]) == (0, None)
            with chat.enter(room, "guest") as guest:
                guest.say("Hello")
                said = guest.hear("message")
            chat.post(room, "admin", "Hello, guest")
            for member in (one, two):
                first, second = member.hear("room"), member.hear("room")
                assert first == {"type": "room", "slug": room, "count": 1, "latest": said["sent_at"]}
                assert (second["slug"], second["count"]) == (room, 2)


class TestFeeds:
    """AsyncHttpConsumers."""

    def test_long_poll_is_answered_when_something_is_said(self, chat: Chat, room: str) -> None:
        with chat.connect() as poll, chat.enter(room, "admin") as admin:
            for text in ("one", "two"):  # the second on the same connection
                ask(chat, poll, f"/poll/rooms/{room}/")
                with talking(admin):
                    answer = poll.response()
                assert (answer.status, answer["content-type"]) == (200, "application/json")
                [message] = json.loads(answer.body)["messages"]
                admin.say(text)
            ask(chat, poll, f"/poll/rooms/{room}/?after={message['id']}")
            assert json.loads(poll.response().body)["messages"][0]["id"] > message["id"]

    @pytest.mark.parametrize(("method", "path", "status"), [
        ("GET", "/poll/rooms/nowhere/", 404), ("GET", "/events/rooms/nowhere/", 404), ("POST", "/poll/rooms/lobby/", 405),
    ])  # fmt: skip
    def test_what_cannot_be_answered_is_refused(self, chat: Chat, method: str, path: str, status: int) -> None:
        with chat.browse() as client:
            assert client.request(method, path).status_code == status

    def test_events_come_as_they_are_said_and_go_on_where_they_were(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin, chat.connect() as stream:
            ask(chat, stream, f"/events/rooms/{room}/")
            head = stream.read_until(b": welcome\n\n")
            assert b"content-type: text/event-stream" in head.lower()
            numbers = []
            for text in ("one", "two"):
                admin.say(text)
                said = admin.hear("message")
                assert stream.read_until(b"\n\n").endswith(f"id: {said['id']}\ndata: {json.dumps(said)}\n\n".encode())
                numbers.append(said["id"])
        with chat.connect() as stream:
            ask(chat, stream, f"/events/rooms/{room}/", f"Last-Event-ID: {numbers[0]}")
            assert f"id: {numbers[1]}\n".encode() in stream.read_until(b'"two"')

    def test_client_that_leaves_is_gone_from_its_group(self, redis_chat: Chat, redis: RedisServer) -> None:
        room = new_room(redis_chat)
        redis.flush()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(redis_chat.connect()) for _ in range(6)]
            for number, client in enumerate(clients):
                ask(redis_chat, client, f"/{'poll' if number % 2 else 'events'}/rooms/{room}/")
            wait_until(lambda: redis.members() == 6, "six in a group")
            for client, leave in zip(clients, (close, close, reset, reset, half_close, half_close), strict=True):
                leave(client)
            wait_until(lambda: redis.members() == 0, "nobody in a group any more")

    def test_silence_is_answered_with_204_and_idle_consumers_live_on(self, redis_chat: Chat) -> None:
        room = new_room(redis_chat)
        with redis_chat.enter(room, "admin") as idle, redis_chat.connect() as poll:
            ask(redis_chat, poll, f"/poll/rooms/{room}/")
            began = time.monotonic()
            answer = poll.response()
            assert (answer.status, answer.body) == (204, b"")
            assert time.monotonic() - began > 5
            idle.say("still here")
            assert idle.hear("message")["text"] == "still here"


def ask(chat: Chat, client: Client, path: str, *fields: str) -> None:
    """Send a GET with the example's Host."""
    client.send("\r\n".join([f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{chat.port}", *fields, "", ""]).encode())


def close(client: Client) -> None:
    client.socket.close()


def reset(client: Client) -> None:
    client.reset()


def half_close(client: Client) -> None:
    client.shut()


LEAVING = (close, reset, half_close)


class TestTwoProcesses:
    """One room, two servers, Redis between them."""

    def test_members_of_both_hear_each_other(self, redis_chat: Chat, home: dict[str, str], redis: RedisServer) -> None:
        room = new_room(redis_chat)
        with stopped_well(Chat(home, CHAT_REDIS=redis.url)) as other:
            with redis_chat.enter(room, "admin") as admin, other.enter(room, "guest") as guest, other.open("/ws/notices/") as list_of_rooms:
                admin.hear("join")
                assert admin.hear("join")["name"] == "guest"
                for speaker, listener in ((admin, guest), (guest, admin)):
                    speaker.say("Can you hear me?")
                    said = speaker.hear("message")
                    assert listener.hear("message") == said
                    assert list_of_rooms.hear("room")["slug"] == room
                redis_chat.post(room, "admin", "By the form")
                assert guest.hear("message")["text"] == "By the form"
                assert other.names(room) == redis_chat.names(room) == ["admin", "guest"]
            wait_until(lambda: redis_chat.names(room) == [], "both to leave")


class TestLeaving:
    """`disconnect()` comes, whatever the client did and whatever the consumer was at."""

    def test_twenty_leave_a_talking_room(self, chat: Chat, room: str) -> None:
        with chat.enter(room, "admin") as admin, contextlib.ExitStack() as stack:
            members = [stack.enter_context(chat.enter_raw(room, "guest")) for _ in range(20)]
            assert chat.names(room) == ["admin", *["guest"] * 20]
            with talking(admin):
                for member in members:
                    assert next(payload for _, payload in frames(member) if b'"message"' in payload)
                for member, leave in zip(members, LEAVING * 7, strict=False):
                    leave(member.client)
                wait_until(lambda: chat.names(room) == ["admin"], "all twenty to be gone")
        wait_until(lambda: chat.names(room) == [], "the last to be gone")

    def test_no_membership_stays_in_redis(self, redis_chat: Chat, redis: RedisServer) -> None:
        room = new_room(redis_chat)
        redis.flush()
        with redis_chat.enter(room, "admin") as admin, contextlib.ExitStack() as stack:
            members = [stack.enter_context(redis_chat.enter_raw(room)) for _ in range(20)]
            assert redis.members() == 21
            with talking(admin):
                for member in members:
                    member.client.reset()
                wait_until(lambda: redis.members() == 1, "all twenty to be gone")

    def test_late_answer_does_not_keep_disconnect_from_coming(self) -> None:
        with Server("chat_faults:app", "--no-access-log") as server, contextlib.ExitStack() as stack:
            members = [stack.enter_context(open_late(server)) for _ in range(9)]
            for member in members:
                member.send(TEXT, b"x")
            wait_until(lambda: server.written.count("asked") == 9, "all questions")
            for member, leave in zip(members, LEAVING * 3, strict=True):
                leave(member.client)
            wait_until(lambda: server.written.count("told 1006") == 9, "disconnect() of all")
            assert server.written.count("answered") == 9
            assert server.stop() == 0
            assert "Traceback" not in server.log, server.log

    @pytest.mark.parametrize(("leave", "sent"), [(close, 1), (reset, 1)])
    def test_documented_stream_ends_soon_after_its_client_left(self, leave: Callable[[Client], None], sent: int) -> None:
        """A client that closes can only be told from one that still reads by what it does with the next part."""
        with Server("chat_faults:app", "--no-access-log") as server, server.connect() as client:
            client.get("/documented")
            client.read_until(b"\n\n")
            server.wait_line("sent", out=True)
            leave(client)
            server.wait_line("told", out=True)
            assert server.written.count("sent") - 1 <= sent
            assert server.stop() == 0
            assert "Traceback" not in server.log, server.log


def open_late(server: Server) -> RawMember:
    client = server.connect()
    client.get("/late", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "==")
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return RawMember(client)


class TestStop:
    """SIGTERM: sockets are closed with 1001, and consumers are told."""

    @pytest.mark.parametrize("layer", ["memory", "redis"])
    def test_members_are_sent_away_and_leave_nothing_behind(self, request: pytest.FixtureRequest, home: dict[str, str], layer: str) -> None:
        redis: RedisServer | None = request.getfixturevalue("redis") if layer == "redis" else None
        if redis:
            redis.flush()
        with Chat(home, **({"CHAT_REDIS": redis.url} if redis else {})) as chat:
            room = new_room(chat)
            with contextlib.ExitStack() as stack:
                members = [stack.enter_context(chat.enter(room, user)) for user in ("admin", "guest", "", "")]
                members.append(stack.enter_context(chat.open("/ws/notices/")))
                stream = stack.enter_context(chat.connect())
                ask(chat, stream, f"/events/rooms/{room}/")
                stream.read_until(b": welcome\n\n")
                assert present(home, room) == 4
                chat.send_signal(signal.SIGTERM)
                assert [member.closed()[0] for member in members] == [1001] * 5
                stream.read_until(b"\r\n0\r\n\r\n")
                assert stream.ended(PATIENCE)
            assert chat.wait() == 0, chat.log
            assert "Traceback" not in chat.log, chat.log
        assert present(home, room) == 0
        assert redis is None or redis.members() == 0

    def test_what_a_killed_process_left_behind_is_forgotten(self, memory_chat: Chat, home: dict[str, str]) -> None:
        room = new_room(memory_chat)
        with Chat(home) as chat, chat.enter(room, "admin"):
            chat.send_signal(signal.SIGKILL)
            chat.wait()
        assert memory_chat.names(room) == ["admin"]
        with contextlib.closing(sqlite3.connect(home["CHAT_DATABASE"], timeout=PATIENCE)) as database, database:
            database.execute("UPDATE rooms_presence SET seen_at = '2001-01-01 00:00:00'")  # its lease is over
        assert memory_chat.names(room) == []
        with memory_chat.enter(room):
            assert present(home, room) == 1


def present(home: dict[str, str], room: str) -> int:
    """Count the sockets in a room, without a server's help."""
    query = "SELECT count(*) FROM rooms_presence JOIN rooms_room ON rooms_room.id = room_id WHERE slug = ?"
    with contextlib.closing(sqlite3.connect(home["CHAT_DATABASE"])) as database:
        found: int = database.execute(query, [room]).fetchone()[0]
        return found


class TestBrowser:
    """The pages in Chromium. Two names of one server have two sets of cookies: two people."""

    def test_two_windows_talk(self, browser: WebDriver, memory_chat: Chat, tmp_path: Path) -> None:
        room = new_room(memory_chat)
        admin = open_window(browser, memory_chat, "127.0.0.1", "admin", f"/rooms/{room}/")
        browser.switch_to.new_window("window")
        guest = open_window(browser, memory_chat, "localhost", "guest", f"/rooms/{room}/")
        for window, text in ((admin, "Hello <b>there</b>, see http://example.com/."), (guest, "Hello yourself"), (admin, "Nice weather")):
            browser.switch_to.window(window)
            browser.find_element(By.NAME, "text").send_keys(text + "\n")
            for other in (admin, guest):
                browser.switch_to.window(other)
                wait(browser, lambda page, text=text: page.find_elements(By.CSS_SELECTOR, ".message .text")[-1].text == text)
                assert browser.find_element(By.NAME, "text").get_attribute("value") == ""
        for window, name in ((admin, "chat-window-1.png"), (guest, "chat-window-2.png")):
            browser.switch_to.window(window)
            wait(browser, lambda page: page.find_element(By.ID, "people").text == "admin and guest")
            assert browser.find_element(By.ID, "state").text == "connected"
            assert browser.find_element(By.LINK_TEXT, "http://example.com/").get_attribute("href") == "http://example.com/"
            assert browser.find_elements(By.CSS_SELECTOR, ".text b") == []
            assert_fine(browser, tmp_path / name)
        browser.close()
        browser.switch_to.window(admin)
        wait(browser, lambda page: page.find_element(By.ID, "people").text == "admin")

    def test_list_of_rooms_counts_along(self, browser: WebDriver, memory_chat: Chat, tmp_path: Path) -> None:
        room = new_room(memory_chat)
        browser.get(memory_chat.url)
        count_of_room = f'[data-slug="{room}"] .count'
        assert browser.find_element(By.CSS_SELECTOR, count_of_room).text == "0 messages"
        with memory_chat.enter(room, "admin") as admin:
            for expected in ("1 message", "2 messages"):
                admin.say("Hello")
                wait(browser, lambda page, expected=expected: page.find_element(By.CSS_SELECTOR, count_of_room).text == expected)
        assert_fine(browser, tmp_path / "rooms.png")

    def test_page_comes_back_after_the_server_did(self, browser: WebDriver, home: dict[str, str], tmp_path: Path) -> None:
        with stopped_well(Chat(home)) as chat:
            room = new_room(chat)
            open_window(browser, chat, "127.0.0.1", "guest", f"/rooms/{room}/")
            chat.send_signal(signal.SIGTERM)
            wait(browser, lambda page: page.find_element(By.ID, "state").text == "reconnecting")
            assert browser.save_screenshot(str(tmp_path / "reconnecting.png"))
            assert chat.wait() == 0
            with stopped_well(Chat(home, port=chat.port)) as again:
                again.post(room, "admin", "While you were away")
                wait(browser, lambda page: page.find_element(By.ID, "state").text == "connected")
                wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, ".message .text").text == "While you were away")
                wait(browser, lambda page: page.find_element(By.ID, "people").text == "guest")

    def test_without_javascript_the_form_posts(self, browser: WebDriver, memory_chat: Chat) -> None:
        room = new_room(memory_chat)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        log_in(browser, memory_chat, "127.0.0.1", "admin")
        browser.get(f"{memory_chat.url}/rooms/{room}/")
        browser.find_element(By.NAME, "text").send_keys("As in 1995")
        browser.find_element(By.CSS_SELECTOR, "#compose button").click()
        wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, ".message .text").text == "As in 1995")


def open_window(browser: WebDriver, chat: Chat, host: str, user: str, path: str) -> str:
    """Log in and open a page in the browser's window; wait until it is connected; give the window."""
    log_in(browser, chat, host, user)
    browser.get(f"http://{host}:{chat.port}{path}")
    wait(browser, lambda page: page.find_element(By.ID, "state").text == "connected")
    return browser.current_window_handle


def log_in(browser: WebDriver, chat: Chat, host: str, user: str) -> None:
    """Give the browser a session."""
    browser.get(f"http://{host}:{chat.port}/healthz")
    browser.add_cookie({"name": "sessionid", "value": chat.session(user)})


def wait(browser: WebDriver, condition: Callable[[WebDriver], object]) -> None:
    """Wait until the page is so; elements that are not there yet, or no longer, count as no."""
    WebDriverWait(browser, PATIENCE, ignored_exceptions=MISSING).until(condition)


def assert_fine(browser: WebDriver, screenshot: Path) -> None:
    """Take a picture; the browser's console has to be empty."""
    assert browser.save_screenshot(str(screenshot))
    assert browser.get_log("browser") == []
