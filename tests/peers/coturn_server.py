"""coturn as a process of its own on loopback, with time-limited credentials and a certificate."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer

SECRET = "EXAMPLE-shared-secret"
USER = "EXAMPLE-user"
START_SECONDS = 15.0
"""Until coturn listens; a busy machine was seen to need one."""


def require_coturn() -> None:
    """Skip the test where coturn is not installed; with NAVTALK_REQUIRE_PEERS=1, fail it."""
    if shutil.which("turnserver") is None:
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            pytest.fail("coturn (turnserver) is not installed")
        pytest.skip("coturn (turnserver) is not installed")


def credentials(valid_for: float) -> tuple[str, Secret]:
    """Time-limited credentials (coturn's ``use-auth-secret``): the user name is the expiry."""
    username = f"{int(time.time() + valid_for)}:{USER}"
    digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
    return username, Secret(base64.b64encode(digest).decode())


class Coturn:
    """One turnserver process."""

    def __init__(self, folder: Path, certificate: Path, key: Path) -> None:
        self.log = folder / "coturn.log"
        self.port, self.tls_port = free_port(), free_port()
        config = folder / "coturn.conf"
        low = 49_152 + os.getpid() % 150 * 100
        self.relay_ports = range(low, low + 100)
        config.write_text(
            "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n"
            f"listening-port={self.port}\ntls-listening-port={self.tls_port}\n"
            f"min-port={low}\nmax-port={low + 99}\n"
            f"realm=navtalk.example\nuse-auth-secret\nstatic-auth-secret={SECRET}\n"
            "fingerprint\nallow-loopback-peers\nno-cli\nno-multicast-peers\nno-dtls\nverbose\n"
            f"cert={certificate}\npkey={key}\nuserdb={folder / 'coturn.db'}\n"
            f"pidfile={folder / 'coturn.pid'}\nlog-file=stdout\nsimple-log\n"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["turnserver", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            for listener in (
                f"UDP listener opened on: 127.0.0.1:{self.port}",
                f"TCP listener opened on : 127.0.0.1:{self.port}",
                f"TCP listener opened on : 127.0.0.1:{self.tls_port}",
            ):
                self.wait_for(lambda line=listener: line in self.text())
        except BaseException:
            self.end()
            raise

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, reached: Callable[[], Any]) -> Any:
        """Look at the process's log until it says so; it cannot be waited for otherwise."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := reached()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"coturn did not get there:\n{self.text()[-4000:]}")
            time.sleep(0.02)
        return found

    def server(self, way: str, *, valid_for: float = 600.0, secret: Secret | None = None) -> Any:
        url = {
            "udp": f"turn:127.0.0.1:{self.port}?transport=udp",
            "tcp": f"turn:127.0.0.1:{self.port}?transport=tcp",
            "tls": f"turns:127.0.0.1:{self.tls_port}?transport=tcp",
        }[way]
        username, credential = credentials(valid_for)
        return IceServer(urls=(url,), username=username, credential=secret or credential)

    def ended_sessions(self) -> list[tuple[int, int]]:
        """Bytes from and to the client of every session that has ended, in order."""
        usage = re.findall(r": usage: realm=<\S+>, username=<\S*>, (.*)", self.text())
        return [
            (int(found["rb"]), int(found["sb"]))
            for found in (dict(re.findall(r"(\w+)=(\d+)", line)) for line in usage)
        ]

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """A port that nobody has on loopback, for UDP and for TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself; aiortc's DTLS offers ECDSA, so EC here too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coturn of a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@contextmanager
def started(folder: Path, certificate: tuple[Path, Path]) -> Iterator[Coturn]:
    coturn = Coturn(folder, *certificate)
    try:
        yield coturn
    finally:
        coturn.end()
