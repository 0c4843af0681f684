"""Who may send requests to the server, and how large."""

from __future__ import annotations

import socket
from http.client import HTTPConnection

import pytest
from explorer_client import Client
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.explorer.guard import MOST_BYTES, Guard


def raw(port, *lines):
    """Status and text of the answer to a request of these lines, as they are."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = HTTPConnection("127.0.0.1").response_class(connection)
        answer.begin()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "[::2]", ""])
def test_a_name_that_was_pointed_here_is_refused(explorer, host):
    status, text = raw(explorer.port, "GET /models HTTP/1.1", f"Host: {host.format(port=explorer.port)}")
    assert status == 403 and "this server does not go by the name" in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:{port}", "LOCALHOST:9", "[::1]:80"])
def test_its_own_names_are_taken(explorer, host):
    assert raw(explorer.port, "GET /health HTTP/1.1", f"Host: {host.format(port=explorer.port)}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "http://127.0.0.1:{port}.evil"]
)
def test_pages_of_others_are_refused(explorer, client, origin):
    status, answer = client.post("tokenize", {"prompt": "a"}, Origin=origin.format(port=explorer.port))
    assert status == 403 and answer["detail"].endswith("may not use this server")


def test_its_own_page_is_not(explorer, client):
    assert client.post("tokenize", {"prompt": "a"}, Origin=f"http://127.0.0.1:{explorer.port}")[0] == 200


def test_no_other_page_is_invited(client):
    for headers in ({"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, {}):
        with client._answer("OPTIONS", "interpret", None, headers) as answer:
            assert answer.status in (403, 405) and "access-control-allow-origin" not in answer.headers


def test_what_a_form_of_another_page_could_send_is_refused(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, answer = client.post("tokenize", {"prompt": "a"}, **{"Content-Type": kind})
        assert status == 415 and answer["detail"].startswith("the request must be JSON")


def test_long_requests_are_refused_unread(explorer):
    lines = "POST /tokenize HTTP/1.1", "Host: localhost", "Content-Type: application/json"
    for length in (MOST_BYTES + 1, 10**18):
        status, text = raw(explorer.port, *lines, f"Content-Length: {length}")
        assert status == 413 and "the request is too long" in text


def test_requests_of_unknown_length_are_refused(explorer):
    lines = "POST /tokenize HTTP/1.1", "Host: localhost", "Content-Type: application/json"
    for more in (["Transfer-Encoding: chunked"], ["Content-Length: 5", "Transfer-Encoding: chunked"]):
        status, text = raw(explorer.port, *lines, *more)
        assert status in (400, 411), text
        assert status == 400 or "Content-Length" in text


def test_answers_are_no_pages(client):
    with client._answer("POST", "tokenize", {"prompt": "<script>alert(1)</script>"}, {}) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_runs_its_own_script_alone(client):
    with client._answer("GET", "/", None, {}) as answer:
        policy = answer.headers.get_all("Content-Security-Policy")
    assert len(policy) == 1 and "default-src 'none'; script-src 'sha256-" in policy[0]


@pytest.fixture(scope="module")
def locked(tiny):
    """A server that others on the network could reach."""
    with Explorer(*tiny, host="0.0.0.0") as explorer:
        yield explorer


def test_the_network_needs_a_token(locked):
    assert locked.token and len(locked.token) >= 32
    client = Client(locked.url)
    for path in (
        "/",
        "/models",
        "/health",
        "/openapi.json",
        "/?token=",
        "/?token=wrong",
        f"/models?token={locked.token}x",
    ):
        status, answer = client.get(path)
        assert status == 401 and answer["detail"].startswith("the token is missing or wrong; open the address")
    assert client.post("tokenize", {"prompt": "a"}, Authorization="Bearer wrong")[0] == 401


def test_each_way_of_showing_it_is_taken(locked):
    client = Client(locked.url)
    assert client.get(f"/models?token={locked.token}")[0] == 200
    assert client.post("tokenize", {"prompt": "a"}, Authorization=f"Bearer {locked.token}")[0] == 200
    with client._answer("GET", f"/?token={locked.token}&view=beside", None, {}) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/?view=beside")
        cookie, _, properties = answer.headers["Set-Cookie"].partition(";")
        assert "httponly" in properties.lower() and "samesite=strict" in properties.lower()
    assert client.get("/models", Cookie=f"other=1; {cookie}")[0] == 200


def test_two_servers_of_a_host_keep_their_tokens_apart():
    assert Guard(print, token="a")._cookie != Guard(print, token="b")._cookie


def test_a_token_that_is_no_text_is_wrong(locked):
    assert raw(locked.port, "GET /models?token=%ff%d8 HTTP/1.1", "Host: localhost", "Cookie: a=\xff")[0] == 401


def test_on_the_network_names_of_others_are_refused(locked, tiny):
    """A page whose name was made to point here has no numeric address for its name."""
    request = f"GET /models?token={locked.token} HTTP/1.1"
    for name in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        status, text = raw(locked.port, request, f"Host: {name}")
        assert status in (400, 403) and (status == 400 or "does not go by the name" in text)
    for name in (f"127.0.0.1:{locked.port}", "192.0.2.7", "[2001:db8::1]:8000", "localhost", socket.gethostname()):
        assert raw(locked.port, request, f"Host: {name}")[0] == 200
    with Explorer(*tiny, host="0.0.0.0", names=["mine.example"]) as explorer:
        assert raw(explorer.port, f"GET /models?token={explorer.token} HTTP/1.1", "Host: mine.example")[0] == 200
