"""HTTPS: served, renewed without a restart, and refused at the start where the files cannot be used."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ccd_gateway.server.tls import CertificateError, Certificates
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import SOURCES, Gateway


class Files:
    """A certificate's two files; `renew` replaces them as a tool for renewal does."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certfile, self.keyfile = folder / "chain.pem", folder / "key.pem"
        self.serial = self.renew()

    def renew(self) -> int:
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        for path, blobs in ((self.keyfile, [made.private_key_pem]), (self.certfile, made.cert_chain_pems)):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
            fresh.replace(path)
        import cryptography.x509

        return cryptography.x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).serial_number

    def connect(self, port: int) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)


def serial(connection: http.client.HTTPSConnection) -> int:
    assert isinstance(connection.sock, ssl.SSLSocket)
    found = connection.sock.getpeercert()
    assert found
    return int(str(found["serialNumber"]), 16)


def get(connection: http.client.HTTPSConnection) -> int:
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def https(_daemon: Daemon, files: Files) -> Iterator[Gateway]:
    with Gateway(_daemon.path, certfile=files.certfile, keyfile=files.keyfile) as running:
        yield running


def test_renewed_for_new_connections_while_open_ones_go_on(
    daemon: Daemon, https: Gateway, files: Files
) -> None:
    before, first = files.connect(https.port), files.serial
    assert get(before) == 200 and serial(before) == first
    second = files.renew()
    after = files.connect(https.port)
    assert get(after) == 200 and serial(after) == second
    assert get(before) == 200 and serial(before) == first  # the same connection as at the beginning
    files.keyfile.write_text("half a key")
    again = files.connect(https.port)
    assert get(again) == 200 and serial(again) == second
    for connection in (before, after, again):
        connection.close()
    https.stop()
    assert "cannot be used" in https.log and "stays in use" in https.log
    assert f"https://127.0.0.1:{https.port}" in https.log


def test_plain_http_gets_no_answer(daemon: Daemon, https: Gateway) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", https.port, timeout=20)
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("GET", "/health")
        plain.getresponse()
    plain.close()


@pytest.mark.parametrize("damage", ["missing", "empty", "other key", "passphrase"])
def test_files_that_cannot_be_used(files: Files, tmp_path: Path, damage: str) -> None:
    if damage == "missing":
        files.certfile.unlink()
    elif damage == "empty":
        files.certfile.write_text("")
    elif damage == "other key":
        kept = files.certfile.read_bytes()
        files.renew()
        files.certfile.write_bytes(kept)
    else:
        done = subprocess.run(
            [
                "openssl",
                "pkey",
                "-aes128",
                "-passout",
                "pass:x",
                "-in",
                files.keyfile,
                "-out",
                tmp_path / "p",
            ],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (tmp_path / "p").replace(files.keyfile)
    with pytest.raises(CertificateError, match="cannot be used"):
        Certificates(files.certfile, files.keyfile)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES), "HOME": str(tmp_path)}
    environ |= {"CCD_GATEWAY__CERTFILE": str(files.certfile), "CCD_GATEWAY__KEYFILE": str(files.keyfile)}
    command = [sys.executable, "-m", "ccd_gateway", "--bind", "127.0.0.1:0", "--socket", str(tmp_path / "s")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and str(files.certfile) in done.stderr and "Traceback" not in done.stderr
