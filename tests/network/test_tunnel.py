"""Through a proxy over real sockets: every byte, both ways, or one line that says what to do."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learner_jax.errors import ConfigError, CryptoError, LearnerError, StudyError
from learner_jax.network import links
from learner_jax.network.enrol import Desk, join
from learner_jax.network.keys import new_keys
from learner_jax.network.links import CoordinatorLink, SiteLink
from learner_jax.network.tunnel import Proxy, Tunnel, parse_proxy
from tests.network.proxies import REFUSALS, ConnectProxy

SERVER, A = new_keys(), new_keys()
PASSWORD = "pass:word"


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "tunnel"]


def dialled(tunnel: Tunnel) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(tunnel.address.rpartition(":")[2])), 10)


def read_all(one: socket.socket) -> bytes:
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := one.recv(65536):
            found += data
    return bytes(found)


@pytest.fixture
def echo() -> Iterator[str]:
    """A port that reads to the end, and only then says all of it again."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as one:
                one.sendall(read_all(one))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_bytes_pass_both_ways_and_each_side_may_end_first(proxy, echo):
    said = hashlib.shake_128(b"said").digest(5_000_000)
    with Tunnel(parse_proxy(proxy.url), echo) as tunnel, dialled(tunnel) as one:
        writing = threading.Thread(target=lambda: (one.sendall(said), one.shutdown(socket.SHUT_WR)), daemon=True)
        writing.start()
        assert read_all(one) == said
        writing.join(10)
        assert tunnel.trouble is None
    host = echo.removeprefix("tcp://")
    assert proxy.asked == [f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"]


def test_a_side_that_does_not_read_holds_the_other_back(proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with Tunnel(parse_proxy(proxy.url), address) as tunnel, dialled(tunnel) as one:
            there = server.accept()[0]
            one.settimeout(1.0)
            sent, piece = 0, bytes(2**20)
            with contextlib.suppress(TimeoutError):
                while sent < 256 * 2**20:
                    sent += one.send(piece)
            there.close()
    assert sent < 64 * 2**20, "a tunnel that keeps all of it would fill the site's memory"


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def link() -> Iterator[CoordinatorLink]:
    with CoordinatorLink("127.0.0.1", 0, SERVER, {A.curve_public: "a"}) as link:
        yield link


def heard(link: CoordinatorLink, header: bytes) -> None:
    found = link.recv(10)
    assert found is not None and found.header == header


def back(site: SiteLink) -> None:
    """Waits until the line was broken and is open again."""
    stop = time.monotonic() + 20
    for connected in (False, True):
        while site.connected is not connected and time.monotonic() < stop:
            site.recv(0.05)
        assert site.connected is connected


def test_a_link_that_is_cut_asks_the_proxy_again_and_the_proxy_reads_nothing(proxy, link):
    canary = b"canary-in-a-coal-mine"
    with (
        Tunnel(parse_proxy(proxy.url), link.address) as tunnel,
        SiteLink(link.address, SERVER.curve_public, A, via=tunnel) as site,
    ):
        assert site.dial(10)
        assert site.send(canary, canary * 1000)
        heard(link, canary)
        proxy.cut()
        back(site)
        assert site.send(b"again")
        heard(link, b"again")
        assert link.send("a", b"yes", canary) and (found := site.recv(10)) and found[0] == b"yes"
    assert len(proxy.asked) >= 2
    assert len(proxy.carried) > 21_000 and canary not in proxy.carried


def test_a_line_that_was_open_outlives_a_refusal_which_is_said_once(proxy, link):
    said: list[str] = []
    with (
        Tunnel(parse_proxy(proxy.url), link.address, said.append) as tunnel,
        SiteLink(link.address, SERVER.curve_public, A, via=tunnel) as site,
    ):
        assert site.dial(10)
        proxy.answer = REFUSALS[403]
        proxy.cut()
        asked, stop = len(proxy.asked), time.monotonic() + 20
        while len(proxy.asked) < asked + 3 and time.monotonic() < stop:
            site.recv(0.05)
        assert not site.connected and len(said) == 1 and "does not let this machine connect" in said[0]
        proxy.answer = None
        back(site)
        assert tunnel.trouble is None


def test_a_slow_proxy_is_waited_for(proxy, link, monkeypatch):
    """Longer than a handshake on a bare line may take."""
    monkeypatch.setattr(links, "HANDSHAKE_MS", 300)
    proxy.delay_s = 0.8
    with (
        Tunnel(parse_proxy(proxy.url), link.address) as tunnel,
        SiteLink(link.address, SERVER.curve_public, A, via=tunnel) as site,
    ):
        assert site.dial(12)


# ---- refusals --------------------------------------------------------------------------------------------------------

NTLM = b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n"
FAULTS = {
    "407, no name given": (
        REFUSALS[407],
        "",
        True,
        "wants a user name and a password (407): give --proxy=http://USER@",
    ),
    "407, wrong password": (REFUSALS[407], "nurse", True, "refuses this user name or password (407)"),
    "407, no Basic": (NTLM, "nurse", True, "wants NTLM or Negotiate (407), and learner speaks Basic alone"),
    "403": (REFUSALS[403], "", True, "does not let this machine connect to 127.0.0.1:9 (403): ask who runs it"),
    "502": (REFUSALS[502], "", False, "does not reach 127.0.0.1:9 (502): is the coordinator there, and running?"),
    "500": (b"HTTP/1.1 500 \x1b[31mno\r\n\r\n", "", False, "to connect to 127.0.0.1:9, got: 500 ?[31mno"),
    "garbage": (b"220 mail.example ESMTP\r\n", "", True, "expected an HTTP proxy, but what answers is none"),
    "garbage without a line": (b"\0" * 200_000, "", True, "expected an HTTP proxy, but what answers is none"),
    "no end": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "", True, "expected an HTTP proxy"),
    "half an answer": (b"HTTP/1.1 200 OK\r\nVia: ", "", False, "hung up before it answered"),
    "hangs up": (b"", "", False, "hung up before it answered"),
}


@pytest.mark.parametrize(("answer", "user", "final", "words"), FAULTS.values(), ids=FAULTS)
def test_what_a_proxy_says_no_by_is_one_line(proxy, answer, user, final, words):
    proxy.answer = answer
    there = Proxy(proxy.host, proxy.port, False, user, PASSWORD if user else "")
    said: list[str] = []
    with Tunnel(there, "tcp://127.0.0.1:9", said.append) as tunnel:
        for _ in range(2):
            with dialled(tunnel) as one:
                assert read_all(one) == b""
        trouble = tunnel.trouble
    assert trouble is not None and trouble.final is final and words in trouble.words
    assert f"the proxy at 127.0.0.1:{proxy.port}" in trouble.words
    assert said == [trouble.words] and said[0].isprintable() and PASSWORD not in said[0]
    assert PASSWORD not in repr(there) and PASSWORD not in repr(tunnel)


def test_a_proxy_that_is_away_and_one_that_is_silent(proxy):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = Proxy("127.0.0.1", closed.getsockname()[1])
    proxy.delay_s = 30
    silent = parse_proxy(proxy.url)
    away_says, silent_says = "cannot connect to the proxy at 127.0.0.1:", "did not answer within 0 s"
    for there, seconds, words in ((away, 15.0, away_says), (silent, 0.3, silent_says)):
        with Tunnel(there, "tcp://127.0.0.1:9", timeout_s=seconds) as tunnel, dialled(tunnel) as one:
            assert read_all(one) == b""
            assert tunnel.trouble is not None and words in tunnel.trouble.words and not tunnel.trouble.final


def test_the_right_password_is_said_to_the_proxy_and_to_nobody_else(link):
    with (
        ConnectProxy(f"nurse:{PASSWORD}") as proxy,
        Tunnel(parse_proxy(proxy.url.replace("//", "//nurse@"))._replace(password=PASSWORD), link.address) as tunnel,
        SiteLink(link.address, SERVER.curve_public, A, via=tunnel) as site,
    ):
        assert site.dial(10)


def test_enrolment_ends_at_once_where_the_proxy_says_no_and_says_why_where_it_waits(tmp_path, proxy):
    code = Desk(tmp_path / "roster.json", "s", SERVER).invite("tcp://127.0.0.1:9")
    for answer, words in (
        (407, "wants a user name and a password"),
        (502, "within 2 s: the proxy at .* does not reach"),
    ):
        proxy.answer = REFUSALS[answer]
        with (
            Tunnel(parse_proxy(proxy.url), code.address) as tunnel,
            pytest.raises(StudyError, match=words) as caught,
        ):
            join(code, "h00", tmp_path / "h00", timeout_s=2, via=tunnel)
        assert "\n" not in str(caught.value)


# ---- TLS to the proxy ------------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=proxy")
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return folder / "certificate.pem", folder / "key.pem"


def test_a_proxy_that_speaks_tls_is_believed_by_its_certificate_alone(tmp_path, monkeypatch, link):
    paths = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    with ConnectProxy(context=context) as proxy:
        there = parse_proxy(proxy.url)
        assert there.tls
        with Tunnel(there, link.address) as tunnel, dialled(tunnel) as one:
            assert read_all(one) == b""
            assert tunnel.trouble is not None and tunnel.trouble.final
            assert "show a certificate that this machine trusts, got: self" in tunnel.trouble.words
        assert not proxy.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(paths[0]))
        with (
            Tunnel(there, link.address) as tunnel,
            SiteLink(link.address, SERVER.curve_public, A, via=tunnel) as site,
        ):
            assert site.dial(10)
            assert site.send(b"x", bytes(2**20))
            heard(link, b"x")
    with ConnectProxy() as plain, Tunnel(there._replace(port=plain.port), link.address) as tunnel:
        with dialled(tunnel) as one:
            assert read_all(one) == b""
        assert tunnel.trouble is not None and "to speak TLS, as https:// says" in tunnel.trouble.words


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://Proxy.Example:3128/", Proxy("proxy.example", 3128)),
        ("https://dom%5Cnurse@[::1]:8443", Proxy("::1", 8443, True, "dom\\nurse")),
        ("http://nurse%40ward@10.0.0.1:80", Proxy("10.0.0.1", 80, False, "nurse@ward")),
    ],
)
def test_a_proxys_url(url, found):
    assert parse_proxy(url) == found


@pytest.mark.parametrize(
    "url",
    ["", "proxy:3128", "http://proxy", "http://:3128", "socks5://proxy:1080", "http://proxy:99999", "http://proxy:x",
     "http://proxy:3128/path", "http://proxy:3128?x", "http://a%3Ab@proxy:3128", "http://[proxy:3128",
     "http://pr oxy:1"],
)  # fmt: skip
def test_what_is_no_proxys_url_is_one_line(url):
    with pytest.raises(ConfigError, match=r"^--proxy: expected --proxy=http://HOST:PORT") as caught:
        parse_proxy(url)
    assert "\n" not in str(caught.value)


def test_a_password_on_the_command_line_is_refused_and_not_said_again():
    with pytest.raises(ConfigError, match="--proxy_password_file=PATH") as caught:
        parse_proxy(f"http://nurse:{PASSWORD}@proxy:3128")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["hospital", "tcp://host", "tcp://h\r\nx:1", "tcp://ho st:1", "tcp://:5", "tcp://h:0"]
)
def test_an_address_that_is_none_is_one_line(address, proxy):
    with pytest.raises(CryptoError, match="expected an address such as tcp://host:port"):
        Tunnel(parse_proxy(proxy.url), address)
    assert issubclass(CryptoError, LearnerError)
