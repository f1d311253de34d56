"""Fetching a file from a server on this machine: whole, resumed, damaged, absent."""

import contextlib
import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import serving

from paddle_resnet import download
from paddle_resnet.download import fetch
from paddle_resnet.errors import RunFailure, UsageError

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(CONTENT) as server:
        yield server


def test_a_file_arrives_whole_with_its_progress(server, tmp_path):
    progress = []
    destination = tmp_path / "new" / "file.bin"
    fetch(server.url, destination, MD5, lambda done, total: progress.append((done, total)))
    assert destination.read_bytes() == CONTENT
    assert [path.name for path in destination.parent.iterdir()] == ["file.bin"]
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert progress == sorted(progress)


def test_an_earlier_part_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:700_000])
    progress = []
    fetch(server.url, tmp_path / "file.bin", MD5, lambda done, total: progress.append((done, total)))
    assert server.ranges == ["bytes=700000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert progress[0][0] > 700_000
    assert progress[-1] == (len(CONTENT), len(CONTENT))


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:700_000])
    fetch(server.url, tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_whole_part_is_taken(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 2_000_000], ids=["shorter", "longer"])
def test_a_part_of_another_file_starts_again(server, tmp_path, stale):
    (tmp_path / "file.bin.part").write_bytes(stale)
    fetch(server.url, tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.break_after = 300_000
    fetch(server.url, tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_wrong_md5_leaves_nothing(server, tmp_path):
    with pytest.raises(UsageError, match=f"MD5 is {MD5}, expected {'0' * 32}"):
        fetch(server.url, tmp_path / "file.bin", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_survives_a_failure(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"precious")
    with contextlib.suppress(UsageError):
        fetch(server.url, tmp_path / "file.bin", "0" * 32)
    assert (tmp_path / "file.bin").read_bytes() == b"precious"


def test_no_md5_takes_the_file_unchecked(server, tmp_path):
    fetch(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_missing_file_says_what_to_put_where(server, tmp_path):
    address = server.url.replace("file.bin", "absent.bin")
    with pytest.raises(UsageError, match="404") as caught:
        fetch(address, tmp_path / "absent.bin", MD5)
    assert address in str(caught.value)
    assert str(tmp_path / "absent.bin") in str(caught.value)


def test_no_server_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(UsageError, match="cannot be downloaded") as caught:
            fetch(address, tmp_path / "file.bin", MD5)
    assert address in str(caught.value)
    assert str(tmp_path / "file.bin") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unwritable_folder_is_a_run_failure(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunFailure, match="cannot be written"):
        fetch(server.url, tmp_path / "taken" / "file.bin", MD5)


def test_two_processes_download_a_file_once(tmp_path, monkeypatch):
    """They would write one part, and the slower one would not find it."""
    fetched = []

    def slowly(url, destination, part, progress):
        fetched.append(url)
        time.sleep(0.3)
        part.write_bytes(b"content")

    monkeypatch.setattr(download, "_transfer_whole", slowly)
    with ThreadPoolExecutor(2) as threads:
        for _ in threads.map(lambda _: download.fetch("http://x/a", tmp_path / "a"), range(2)):
            pass
    assert fetched == ["http://x/a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_download_that_fails_makes_no_folder(tmp_path):
    """Of a mistyped data.root nothing stays."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UsageError, match="cannot be downloaded"):
        download.fetch(f"http://127.0.0.1:{port}/a", tmp_path / "mistyped" / "a")
    assert list(tmp_path.iterdir()) == []


def responding(*responses):
    """Serve these raw responses, one a connection, the last one repeatedly; return the socket and its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            for number in range(1000):
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(responses[min(number, len(responses) - 1)])

    threading.Thread(target=serve, daemon=True).start()
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}/file.bin"


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Content-Length: many\r\n\r\nabc",
        OK + b"Content-Length: -5\r\n\r\nabc",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
        OK + b"Content-Length: \xc2\xb2\r\n\r\nabc",
        OK + b"Content-Length: 99999999999\r\n\r\nabc",
        OK + b"Content-Encoding: gzip\r\n\r\nabc",
        CHUNKED + b"-5\r\nabc\r\n",
        CHUNKED + b"zz\r\nabc\r\n",
        CHUNKED + b"5\r\nab",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 7-9/10\r\n\r\nabc",
        b"HTTP/1.1 416 No\r\n\r\n",
        *(
            b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\n\r\n"
            for place in (
                b"file:///etc/passwd",
                b"ftp://127.0.0.1/x",
                b"http://[::1",
                b"http://a:b/",
                b"/file.bin",
                b"\xff",
            )
        ),
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0\r\n",
        b"",
    ],
)
def test_a_wrong_response_is_one_line(tmp_path, monkeypatch, response):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listening, address = responding(response)
    with listening, pytest.raises(UsageError, match="cannot be downloaded") as caught:
        fetch(address, tmp_path / "file.bin")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("address", ["http://[::1/x", "http://a:b/x", "x", "http://a b/\n"])
def test_a_malformed_address_is_one_line(tmp_path, address):
    with pytest.raises(UsageError, match="cannot be downloaded"):
        fetch(address, tmp_path / "file.bin")


def test_one_byte_a_connection_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    ranges = [
        b"HTTP/1.1 206 P\r\nContent-Range: bytes %d-999/1000\r\nContent-Length: %d\r\n\r\nx" % (at, 1000 - at)
        for at in range(1, 300)
    ]
    listening, address = responding(OK + b"Content-Length: 1000\r\n\r\nx", *ranges)
    with listening, pytest.raises(UsageError, match="cannot be downloaded"):
        fetch(address, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").stat().st_size == download.MOST_CONNECTIONS


def test_an_endless_body_ends(tmp_path, monkeypatch, server):
    monkeypatch.setattr(download, "LARGEST_BYTES", 100_000)
    listening, address = responding(OK + b"\r\n" + bytes(300_000))
    with listening, pytest.raises(UsageError, match="more than 100,000 bytes"):
        fetch(address, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").stat().st_size == 0


def test_a_slow_download_ends_and_keeps_what_came(tmp_path, monkeypatch, server):
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(download.time, "monotonic", lambda: next(hours))
    monkeypatch.setattr(download, "BLOCK_BYTES", 1000)
    with pytest.raises(UsageError, match="they are kept"):
        fetch(server.url, tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:1000]
