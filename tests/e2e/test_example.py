"""The example project under termserver: what Django people do with a server, done by real clients."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.chrome.webdriver import WebDriver

    from .conftest import Served

MISSING = (NoSuchElementException, StaleElementReferenceException, IndexError)
EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"
LARGE = 64 * 1024 * 1024
FLAT = 24 * 1024 * 1024
"""Memory that a transfer of any size may cost."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database and a folder of our own."""
    home = tmp_path_factory.mktemp("chat")
    return {"CHAT_DATABASE": str(home / "db.sqlite3"), "CHAT_UPLOADS": str(home / "uploads"), "CHAT_DEBUG": "1"}


@pytest.fixture(scope="module")
def served(environment: dict[str, str], serve: Callable[..., Served]) -> Iterator[Served]:
    """The example with its demo data; it has to end well and without a traceback."""
    subprocess.run([sys.executable, "manage.py", "demo"], cwd=EXAMPLE, env={**os.environ, **environment}, check=True, timeout=120)
    served = serve("chat.asgi:application", "--bind", "127.0.0.1:0", cwd=EXAMPLE, environment=environment)
    yield served
    code = served.stop()
    assert code == 0, served.log
    assert "Traceback" not in served.log, served.log


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    """Where it listens."""
    return f"http://{served.wait_listening()}"


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client with cookies, logged out."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def token(page: httpx.Response) -> str:
    """CSRF token of the form on a page."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found is not None, page.text
    return found[1]


def submit(client: httpx.Client, form: str, fields: dict[str, str], to: str | None = None) -> httpx.Response:
    """Fill in the form of one page and send it, to the same address or another."""
    return client.post(to or form, data={**fields, "csrfmiddlewaretoken": token(client.get(form))})


def log_in(client: httpx.Client, form: str = "/accounts/login/") -> httpx.Response:
    """Log the demo's admin in."""
    answer = submit(client, form, {"username": "admin", "password": "admin"})
    assert answer.status_code == 302
    return answer


class TestPages:
    """Django's everyday work, by httpx."""

    def test_list_of_rooms_is_a_page(self, client: httpx.Client) -> None:
        answer = client.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert "Lobby" in answer.text
        assert "Kitchen" in answer.text

    def test_head_has_the_headers_of_get_and_no_body(self, client: httpx.Client) -> None:
        head, get = client.head("/rooms/lobby/"), client.get("/rooms/lobby/")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]

    def test_unknown_address_is_djangos_404(self, client: httpx.Client) -> None:
        assert client.get("/rooms/nowhere/").status_code == 404

    def test_path_and_query_reach_django_as_sent(self, client: httpx.Client) -> None:
        answer = client.get("/accounts/login/", params={"next": "/rooms/l%C3%B6we/?a=b&c=d"})
        assert 'value="/rooms/l%C3%B6we/?a=b&amp;c=d"' in answer.text

    def test_many_requests_share_a_connection(self, client: httpx.Client) -> None:
        streams = {id(client.get("/healthz").extensions["network_stream"]) for _ in range(20)}
        assert len(streams) == 1


class TestForms:
    """Sessions, CSRF, forms."""

    def test_a_form_without_its_token_is_refused(self, client: httpx.Client) -> None:
        assert client.post("/accounts/login/", data={"username": "admin", "password": "admin"}).status_code == 403

    def test_session_lasts_from_login_to_logout(self, client: httpx.Client) -> None:
        log_in(client)
        assert "Log out" in client.get("/").text
        submit(client, "/", {}, to="/accounts/logout/")
        assert "Log out" not in client.get("/").text

    def test_wrong_password_shows_the_form_again(self, client: httpx.Client) -> None:
        answer = submit(client, "/accounts/login/", {"username": "admin", "password": "guess"})
        assert answer.status_code == 200
        assert "correct username and password" in answer.text

    def test_room_is_created_and_talked_in(self, client: httpx.Client) -> None:
        log_in(client)
        answer = submit(client, "/new/", {"name": "Reading Corner", "topic": "Books"})
        assert answer.headers["location"] == "/rooms/reading-corner/"
        said = "Żółw & <naïve> 🐢"
        answer = submit(client, "/rooms/reading-corner/", {"text": said}, to="/rooms/reading-corner/post/")
        assert answer.headers["location"] == "/rooms/reading-corner/"
        assert "Żółw &amp; &lt;naïve&gt; 🐢" in client.get("/rooms/reading-corner/").text

    def test_room_of_a_taken_name_is_refused_in_the_form(self, client: httpx.Client) -> None:
        log_in(client)
        answer = submit(client, "/new/", {"name": "Lobby"})
        assert answer.status_code == 200
        assert "errorlist" in answer.text

    def test_who_is_logged_out_is_sent_to_the_login(self, client: httpx.Client) -> None:
        assert client.get("/new/").headers["location"] == "/accounts/login/?next=/new/"


class TestAdmin:
    """Django's admin."""

    def test_login_leads_to_lists_of_rooms_and_messages(self, client: httpx.Client) -> None:
        answer = log_in(client, "/admin/login/?next=/admin/")
        assert answer.headers["location"] == "/admin/"
        assert "Site administration" in client.get("/admin/").text
        assert "Lobby" in client.get("/admin/rooms/room/").text
        assert "Welcome!" in client.get("/admin/rooms/message/").text


class TestStaticFiles:
    """Files of the project and of Django's admin."""

    @pytest.mark.parametrize(
        ("path", "kind"),
        [("chat.css", "text/css"), ("chat.js", "text/javascript"), ("icon.svg", "image/svg+xml"), ("admin/css/base.css", "text/css")],
    )
    def test_file_has_its_type_and_is_not_sent_twice(self, client: httpx.Client, path: str, kind: str) -> None:
        answer = client.get(f"/static/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert len(answer.content) == int(answer.headers["content-length"]) > 0
        again = client.get(f"/static/{path}", headers={"If-Modified-Since": answer.headers["last-modified"]})
        assert (again.status_code, again.content) == (304, b"")


class TestStreaming:
    """Bodies that take their time."""

    def test_events_arrive_one_by_one(self, client: httpx.Client) -> None:
        with client.stream("GET", "/stream/", headers={"Last-Event-ID": "41"}) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["transfer-encoding"] == "chunked"
            data = (line.removeprefix("data: ").split() for line in answer.iter_lines() if line.startswith("data: "))
            events = [next(data) for _ in range(3)]
        assert [number for number, _ in events] == ["42", "43", "44"]
        assert float(events[0][1]) < float(events[1][1]) < float(events[2][1])

    def test_upload_goes_to_disk_and_is_hashed(
        self, client: httpx.Client, served: Served, environment: dict[str, str], tmp_path: Path
    ) -> None:
        part, digest, file = os.urandom(1024 * 1024), hashlib.sha256(), tmp_path / "large.bin"
        with file.open("wb") as out:
            for _ in range(LARGE // len(part)):
                digest.update(part)
                out.write(part)
        form = client.get("/upload/")
        before = served.peak_memory()
        with file.open("rb") as content:
            answer = client.post("/upload/", data={"csrfmiddlewaretoken": token(form)}, files={"file": (file.name, content)})
        assert answer.status_code == 302
        page = client.get("/upload/").text
        assert digest.hexdigest() in page
        assert f"{LARGE} bytes" in page
        assert served.peak_memory() - before < FLAT
        assert list(Path(environment["CHAT_UPLOADS"]).iterdir()) == []

    def test_download_arrives_whole(self, client: httpx.Client, served: Served) -> None:
        expected = hashlib.sha256(bytes(range(256)) * (LARGE // 256) + bytes(range(7))).hexdigest()
        before, digest = served.peak_memory(), hashlib.sha256()
        with client.stream("GET", f"/download/{LARGE + 7}/") as answer:
            assert answer.headers["content-length"] == str(LARGE + 7)
            for part in answer.iter_raw():
                digest.update(part)
        assert digest.hexdigest() == expected
        assert served.peak_memory() - before < FLAT

    def test_download_abandoned_half_way_harms_nobody(self, client: httpx.Client) -> None:
        with client.stream("GET", f"/download/{LARGE}/") as answer:
            next(answer.iter_raw())
        assert client.get("/healthz").text == "ok\n"


class TestBrowser:
    """The pages in Chromium."""

    def test_admin_logs_in_and_posts_a_message(self, browser: WebDriver, url: str, tmp_path: Path) -> None:
        browser.get(url)
        browser.find_element(By.LINK_TEXT, "Log in").click()
        browser.find_element(By.NAME, "username").send_keys("admin")
        browser.find_element(By.NAME, "password").send_keys("admin\n")
        wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, ".who").text == "admin")
        browser.find_element(By.PARTIAL_LINK_TEXT, "Lobby").click()
        browser.find_element(By.NAME, "text").send_keys("Hello from Chromium\n")
        wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, ".message .text")[-1].text == "Hello from Chromium")
        assert_fine(browser, tmp_path / "room.png")

    def test_admin_site_is_styled(self, browser: WebDriver, url: str, tmp_path: Path) -> None:
        browser.get(f"{url}/admin/rooms/message/")
        browser.find_element(By.NAME, "username").send_keys("admin")
        browser.find_element(By.NAME, "password").send_keys("admin\n")
        wait(browser, lambda page: page.find_element(By.ID, "result_list"))
        assert browser.execute_script("return getComputedStyle(document.getElementById('header')).display") in {"flex", "grid"}
        assert_fine(browser, tmp_path / "admin.png")

    def test_event_source_receives_numbers(self, browser: WebDriver, url: str, tmp_path: Path) -> None:
        browser.get(f"{url}/clock/")
        wait(browser, lambda page: page.find_element(By.ID, "tick").text == "3")
        assert browser.find_element(By.ID, "status").text == "connected"
        assert_fine(browser, tmp_path / "clock.png")

    def test_upload_form_shows_the_hash(self, browser: WebDriver, url: str, tmp_path: Path) -> None:
        file = tmp_path / "small.bin"
        file.write_bytes(bytes(range(256)) * 5_000)
        browser.get(f"{url}/upload/")
        browser.find_element(By.NAME, "file").send_keys(str(file))
        browser.find_element(By.CSS_SELECTOR, "#upload button").click()
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, ".uploads code").text == expected)
        assert_fine(browser, tmp_path / "upload.png")


def wait(browser: WebDriver, condition: Callable[[WebDriver], object]) -> None:
    """Wait until the page is so; elements that are not there yet, or no longer, count as no."""
    WebDriverWait(browser, 20, ignored_exceptions=MISSING).until(condition)


def assert_fine(browser: WebDriver, screenshot: Path) -> None:
    """Take a picture; the browser's console has to be empty."""
    assert browser.save_screenshot(str(screenshot))
    assert browser.get_log("browser") == []
