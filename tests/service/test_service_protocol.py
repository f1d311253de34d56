"""HTTP over raw connections: limits outside bodies, hosts and origins, half-closed clients, request bodies, the log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import socket
import time

import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
import uvicorn
from service_parts import FORM, form, picture, running
from starlette.datastructures import Headers

from paddle_resnet.errors import UsageError
from paddle_resnet.service import Settings, protocol
from paddle_resnet.service.access import HostPolicy, read_token
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.request_body import split_body
from paddle_resnet.service.server import _bind

pytestmark = pytest.mark.slow

HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "UNWANTED_SECONDS", 0.2)
        with running(patch, tmp_path_factory.mktemp("none")) as service:
            yield service


def status(response):
    return int(response.split(b" ", 2)[1])


def in_json(response):
    return json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"]


def head_of(size):
    start = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\nX: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize(("size", "expected"), [(32 * 2**10, 200), (32 * 2**10 + 1, 431), (108 * 2**10, 431)])
def test_a_head_is_counted_before_it_is_parsed(service, size, expected):
    response = service.talk(head_of(size))
    assert status(response) == expected
    assert expected == 200 or in_json(response) == "head_too_large"


@pytest.mark.parametrize(
    "rest",
    [
        b"1\r\na\r\n0\r\nX: y\r\n\r\n",  # a trailer
        b"1\r\na\r\n0\r\nX" + b"y" * 40_000,  # the name of one that does not end
        b"1\r\na\r\n0\r\nX: " + b"y" * 40_000,
        b"1;" + b"x" * 40_000,  # an extension of a chunk
        b"1\r\na\r\n" * 20_000,  # more framing than body
        b"0" * 40_000,
        b"zzz\r\n",
    ],
)
def test_bytes_around_a_body_are_bounded(service, rest):
    response = service.talk(CHUNKED, rest)
    assert (status(response), in_json(response)) == (400, "malformed_request")
    assert response.count(b"HTTP/1.1 ") == 1


def test_long_bodies_may_have_many_chunks(service):
    body = picture(size=(300, 300), kind="BMP")
    pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert len(chunks) - len(body) > 15_000
    assert status(service.talk(CHUNKED.replace(b"\r\n\r\n", b"\r\n" + END), chunks)) == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + END,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n" + END,
        b"GET / HTTP/1.1\r\nHost:\r\n" + END,
        b"GET / HTTP/1.1\r\nHost: a@localhost\r\n" + END,
    ],
)
def test_malformed_requests_are_refused_in_json(service, request_):
    response = service.talk(request_)
    assert (status(response), in_json(response)) == (400, "malformed_request")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://localhost/healthz?a=b HTTP/1.1\r\n" + HOST + END,
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
    ],
)
def test_unusual_requests_are_answered(service, request_):
    assert status(service.talk(request_)) == 200


def test_an_error_waits_for_the_response_before_it(service):
    service.predictor.gate.clear()
    body = picture()
    whole = b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(whole + body + b"nonsense\r\n\r\n")
        time.sleep(0.1)
        service.predictor.gate.set()
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ") and received.count(b"HTTP/1.1 ") == 1


def test_a_connection_has_one_request_at_a_time(service):
    """The others are closed with the connection: their client sends them again."""
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    assert service.talk(one * 5000).count(b"HTTP/1.1 ") == 1
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        for _ in range(3):
            connection.sendall(one)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_too_many_connections_close_those_of_the_largest_client(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, max_connections=20) as service, contextlib.ExitStack() as open_:
        first = open_.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        for _ in range(30):
            flooding = socket.create_connection(("127.0.0.1", service.port), source_address=("127.0.0.2", 0))
            open_.enter_context(flooding)
            flooding.sendall(b"POST /predict HTTP/1.1\r\n")
        first.settimeout(60)
        first.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + END)
        assert first.recv(100).startswith(b"HTTP/1.1 200 ")
        assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_a_request_beyond_all_connections_is_told_to_come_again(monkeypatch, tmp_path):
    whole = b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    whole = whole % len(picture()) + picture()
    with running(monkeypatch, tmp_path, max_connections=2) as service, contextlib.ExitStack() as open_:
        service.predictor.gate.clear()
        waiting = []
        for number in (1, 2):  # one by one: the second would close the first while that has sent nothing
            waiting.append(open_.enter_context(socket.create_connection(("127.0.0.1", service.port))))
            waiting[-1].sendall(whole)
            service.wait_for_images(number)
        refused = service.talk(whole)
        assert status(refused) == 503 and in_json(refused) == "unavailable" and b"\r\nretry-after: 1\r\n" in refused
        service.predictor.gate.set()
        assert [status(connection.recv(65536)) for connection in waiting] == [200, 200]


def test_connections_that_come_at_once_are_bounded(service):
    """Those that are closed end later, and must not count until then: honest requests would be refused for them."""
    config = uvicorn.Config(lambda scope: None, log_config=None)
    state = uvicorn.server.ServerState()

    async def scenario():
        transports = [FakeTransport(number % 3) for number in range(100)]
        for transport in transports:
            options = {"config": config, "server_state": state, "app_state": {}}
            protocol.BoundedHttpProtocol(max_connections=20, **options).connection_made(transport)
            assert len(state.connections) <= 20
        assert sum(transport.aborted for transport in transports) == 100 - len(state.connections)
        assert not any(transport.written for transport in transports)

    asyncio.run(scenario())


class FakeTransport:
    def __init__(self, client):
        self.client, self.aborted, self.written = client, False, b""

    def get_extra_info(self, name):
        return (f"127.0.0.{self.client}", 1000) if name in ("peername", "sockname") else None

    def abort(self):
        self.aborted = True

    def write(self, data):
        self.written += data


# --- hosts and origins


def refused(headers, names=(), origins=(), bound="0.0.0.0"):
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    try:
        settings = Settings(model="any", allow_origins=origins)
        HostPolicy(names, settings.allow_origins, bound).check(Headers(raw=raw))
    except ServiceError as error:
        return error.status
    return None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:80", "a.localhost", "127.0.0.1:8000", "[::1]:8000", "10.0.0.5"]
)
def test_loopback_names_and_addresses_are_allowed(host):
    assert refused([("Host", host)]) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", "app", "a.com"]
)
def test_other_names_need_an_option(host):
    assert refused([("Host", host)]) == 403
    assert refused([("Host", host.upper() + ".:81")], names=[host]) is None
    assert refused([("Host", host)], names=["*"]) is None
    assert refused([("Host", host)], bound=host) is None


def test_names_below_a_domain():
    assert refused([("Host", "a.b.org")], names=["*.b.org"]) is None
    assert refused([("Host", "ab.org")], names=["*.b.org"]) == 403


OURS = ("Host", "10.0.0.5:8000")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("Origin", "http://10.0.0.5:8000")], None),
        ([("Origin", "HTTP://LOCALHOST:3000")], None),
        ([("Origin", "http://[::1]:3000")], None),
        ([("Origin", "http://10.0.0.5:8001")], 403),
        ([("Origin", "http://10.0.0.5")], 403),
        ([("Origin", "https://evil.example")], 403),
        ([("Origin", "http://localhost.evil.example")], 403),
        ([("Origin", "http://localhost@evil.example")], 403),
        ([("Origin", "null")], 403),
        ([("Origin", "")], 403),
        ([("Origin", "file://")], 403),
        ([("Origin", "http://10.0.0.5:8000"), ("Origin", "https://evil.example")], 400),
    ],
)
def test_pages_of_other_sites_are_refused(headers, expected):
    assert refused([OURS, *headers]) == expected


@pytest.mark.parametrize("written", ["https://good.example/", "https://GOOD.example", "https://good.example:443"])
def test_allowed_sites_pass(written):
    page = [OURS, ("Origin", "https://Good.example")]
    assert refused(page) == 403
    assert refused(page, origins=[written]) is None
    for other in ("http://good.example", "https://good.example:80", "https://good.example:8443"):
        assert refused([OURS, ("Origin", other)], origins=[written]) == 403


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("good.example:443", "https://good.example", None),  # a proxy may add the port, browsers leave it out
        ("Good.example:80", "http://good.example", None),
        ("10.0.0.5:443", "https://10.0.0.5", None),
        ("[2001:db8::80]:443", "https://[2001:db8::80]", None),
        ("good.example:80", "https://good.example", 403),
        ("good.example:443", "http://good.example", 403),
        ("good.example:8443", "https://good.example", 403),
        ("good.example:443", "https://evil.example", 403),
        ("good.example:443", "https://evil.example:443", 403),
        ("evil.example:443", "https://evil.example", 403),
    ],
)
def test_the_usual_port_in_host_is_none(host, origin, expected):
    assert refused([("Host", host), ("Origin", origin)], names=["good.example"]) == expected


@pytest.mark.parametrize("path", ["/predict", "/predict?other=1", "/healthz", "/nowhere"])
def test_hosts_are_checked_on_every_path(service, path):
    response = httpx.post(service.url + path, content=picture(), headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "host_not_allowed")


# --- methods, addresses, bodies


@pytest.mark.parametrize("path", ["/", "/docs", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body(service, path):
    response = httpx.head(service.url + path)
    assert (response.status_code, response.content) == (200, b"") and int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize(("method", "path", "allow"), [("PUT", "/predict", "POST"), ("POST", "/model", "GET, HEAD")])
def test_405_names_the_allowed_methods(service, method, path, allow):
    response = httpx.request(method, service.url + path)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)
    assert allow in response.json()["error"]["message"]


def test_allowed_sites_may_read_responses(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path, allow_origins=("https://Good.example:443/",)) as service:
        ours = {"Origin": "https://good.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        response = httpx.options(f"{service.url}/predict", headers={**ours, **asked})
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://good.example"
        for body, expected in ((picture(), 200), (b"text", 422)):
            response = httpx.post(f"{service.url}/predict", content=body, headers={**ours, "Content-Type": "image/png"})
            assert response.status_code == expected
            assert response.headers["Access-Control-Allow-Origin"] == "https://good.example"
        response = httpx.options(f"{service.url}/predict", headers={"Origin": "https://evil.example", **asked})
        assert response.status_code == 400 and "Access-Control-Allow-Origin" not in response.headers


def test_a_token_is_needed_for_all_but_health_and_pages(monkeypatch, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    with running(monkeypatch, tmp_path, token_file=file) as service:
        for header in (None, "Bearer", "Bearer other", "Basic s3cret-token", "Bearer s3cret-token2", "Bearer \xff"):
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            response = httpx.get(f"{service.url}/model", headers=headers)
            assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        refused = [("POST", "/predict"), ("POST", "/explain"), ("GET", "/metrics"), ("GET", "/nowhere"), ("GET", "/v2")]
        for method, path in refused:
            assert httpx.request(method, service.url + path).status_code == 401
        assert httpx.get(f"{service.url}/v2/models/colours").json() == {"error": response.json()["error"]["message"]}
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/static/index.js"):
            assert httpx.get(service.url + path).status_code == 200
        headers = {"Authorization": "bearer s3cret-token", "Content-Type": "image/png"}
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=headers).status_code == 200


def test_a_token_file_may_be_in_the_encodings_of_windows(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "token").write_bytes("s3cret-token\r\n".encode(encoding))
        assert read_token(tmp_path / "token") == b"s3cret-token"


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no-such-host.invalid"])
def test_a_host_that_is_no_name_is_one_line(tmp_path, host):
    with pytest.raises(UsageError, match=r"8000: cannot listen there .*; choose another --host or --port"):
        _bind(Settings(model=tmp_path, host=host))


def test_no_redirect_repeats_the_host(service):
    response = httpx.post(f"{service.url}/predict/", content=picture())
    assert response.status_code == 404 and "location" not in response.headers


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", " DATA:;base64,"])
def test_base64_may_be_wrapped_and_a_data_url(prefix):
    text = prefix + base64.encodebytes(picture()).decode().replace("\n", "\r\n")
    assert split_body(json.dumps({"images": [text]}).encode(), "application/json", 4) == [picture()]


def test_base64_may_be_url_safe_and_without_padding():
    data = bytes(range(256)) + b"\xfb"
    text = base64.urlsafe_b64encode(data).decode()
    assert "-" in text and "_" in text and text.endswith("=")
    body = json.dumps({"images": [text, text.rstrip("=")]}).encode()
    assert split_body(body, "application/json", 4) == [data, data]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"image": "YQ=="}', "(images: Field required)"),
        (b'{"images": ["YQ==", 7]}', "(images.1: Input should be a valid string)"),
        (b'["YQ=="]', "another shape than the page /docs says"),
        (b'{"images": ["YQ=="], "top": 1}', "(Extra inputs are not permitted)"),
        (b'{"images": ["YQ=="], "images": ["Yg=="]}', "not valid JSON"),
        (b'{"images": NaN}', "not valid JSON"),
        (b'{"images": ' + b"1" * 9999 + b"}", "not valid JSON"),
        (b'{"images": [' + b"[]," * 99_999 + b"[]]}", "more than 100,000 lists; in /v2, send `data` as one flat list"),
        (json.dumps({"images": ["YQ=="] * 5}).encode(), "more than 4 images"),
        (b'{"images": {}}', "(images: Input should be a valid list)"),
    ],
)
def test_wrong_json_is_told_the_expected_shape(body, says):
    with pytest.raises(ServiceError) as error:
        split_body(body, "application/json", 4)
    assert says in error.value.message


def test_a_form_is_split_as_httpx_joins_it():
    random_ = random.Random(0)
    parts = [
        random_.randbytes(random_.randrange(300)) + random_.choice([b"", b"\r\n", b"\r\n--", b"--"]) for _ in "a" * 20
    ]
    for boundary in ("b", "'()+_,-./:=? b", 60 * "x"):
        quoted = f'Multipart/Form-Data; charset=x; boundary="{boundary}"'
        files = [("images", (f"{number}.png", part)) for number, part in enumerate(parts)]
        request = httpx.Request(
            "POST", "http://a", files=files, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
        body = request.read()
        assert boundary.encode() in body and split_body(body, quoted, 20) == parts
        with pytest.raises(ServiceError, match="more than 19"):
            split_body(body, quoted, 19)


def test_a_text_field_in_a_form_is_an_error_of_its_own(service):
    body = form([picture()])[: -len(b"--x7--\r\n")]
    body += b'--x7\r\nContent-Disposition: form-data; name="top"\r\n\r\n1\r\n--x7--\r\n'
    response = httpx.post(f"{service.url}/predict", content=body, headers=FORM)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "text_field")
    assert "?top=1" in response.json()["error"]["message"]
