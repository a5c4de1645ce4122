"""Downloading models, against a small server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rvc_fast.errors import InputError
from rvc_fast.weights import registry

CONTENT = bytes(range(256)) * 8192
PIECE = len(CONTENT) // 32
REVISION = "0123456789abcdef0123456789abcdef01234567"
ETAG = hashlib.sha256(CONTENT).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Serves one file at /someone/models/resolve/REVISION/model.pt, with ranges, and can break off once."""

    def do_GET(self) -> None:
        if not self.path.startswith(f"/someone/models/resolve/{REVISION}/model.pt"):
            self.send_error(404)
            return
        start = 0
        if (wanted := self.headers.get("Range")) is not None and wanted.startswith("bytes="):
            start = int(wanted[6:].split("-")[0])
        self.server.log.append(start)
        time.sleep(self.server.delay)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        stop, self.server.break_after = self.server.break_after or len(CONTENT), None
        for at in range(start, stop, PIECE):
            time.sleep(self.server.pause)
            self.wfile.write(CONTENT[at : min(at + PIECE, stop)])
        if stop < len(CONTENT):
            self.wfile.flush()
            self.connection.close()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # who asked was ended
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.log, server.break_after, server.delay, server.pause = [], None, 0.0, 0.0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def pull(port: int, tmp_path: Path, sha256: str = ETAG) -> subprocess.CompletedProcess[str]:
    """Run `rvc-fast models pull tiny` in a process of its own whose manifest names the local server's file."""
    process = pulling(port, tmp_path, sha256)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def pulling(port: int, tmp_path: Path, sha256: str = ETAG, say: str = "--quiet") -> subprocess.Popen[str]:
    """Start it."""
    manifest = tmp_path / "manifest.json"
    entry = {
        "kind": "rmvpe",
        "description": "a test",
        "repository": "someone/models",
        "revision": REVISION,
        "file": "model.pt",
        "size": len(CONTENT),
        "sha256": sha256,
        "license": "MIT",
    }
    manifest.write_text(json.dumps({"schema": 1, "models": {"tiny": entry}}))
    code = (
        "import sys; from pathlib import Path; from rvc_fast.weights import registry\n"
        f"read = registry.models; registry.models = lambda: read(Path({str(manifest)!r}))\n"
        f"from rvc_fast.cli import main; sys.exit(main(['models', 'pull', 'tiny', {say!r}]))"
    )
    env = {
        "PYTHONPATH": str(Path(registry.__file__).parents[2]),
        "PATH": "",
        "HOME": str(tmp_path),
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "RVC_FAST_CACHE": str(tmp_path / "cache"),
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_pull_checks_and_keeps_the_file(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert pull(hub.server_port, tmp_path).returncode == 0
    path = tmp_path / "cache" / "tiny" / "model.pt"
    assert path.read_bytes() == CONTENT
    before = len(hub.log)
    assert pull(hub.server_port, tmp_path).returncode == 0
    assert len(hub.log) == before, "a model that is there was downloaded again"


def test_an_interrupted_download_is_resumed(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    hub.break_after = len(CONTENT) // 2
    broken = pull(hub.server_port, tmp_path)
    assert broken.returncode == 1
    assert "goes on from there" in broken.stderr
    assert not (tmp_path / "cache" / "tiny" / "model.pt").exists()
    assert pull(hub.server_port, tmp_path).returncode == 0
    assert (tmp_path / "cache" / "tiny" / "model.pt").read_bytes() == CONTENT
    assert hub.log == [0, len(CONTENT) // 2], "the second half was not asked for by range"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_after_an_end_at_any_moment_the_next_pull_makes_it_whole(
    hub: ThreadingHTTPServer, tmp_path: Path, number: signal.Signals
) -> None:
    hub.pause = 0.05
    target, moments = tmp_path / "cache" / "tiny" / "model.pt", random.Random(number)
    for _ in range(3):
        before, deadline = len(hub.log), time.monotonic() + 60
        process = pulling(hub.server_port, tmp_path)
        while len(hub.log) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 32 * hub.pause))
        process.send_signal(number)
        process.communicate(timeout=60)
        assert not target.exists() or target.read_bytes() == CONTENT
        target.unlink(missing_ok=True)
    hub.pause = 0.0
    assert pull(hub.server_port, tmp_path).returncode == 0
    assert [p.name for p in target.parent.iterdir()] == ["model.pt"]
    assert target.read_bytes() == CONTENT


def test_several_at_once_download_it_once(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    hub.delay = 2.0
    runs = [pulling(hub.server_port, tmp_path, say="--json") for _ in range(3)]
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert hub.log == [0], "it was downloaded more than once"
    assert sum("waiting for another process" in err for _, err in said) >= 1
    assert [p.name for p in (tmp_path / "cache" / "tiny").iterdir()] == ["model.pt"]
    assert (tmp_path / "cache" / "tiny" / "model.pt").read_bytes() == CONTENT


def test_threads_at_once_download_it_once(
    hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.Model(
        "tiny", "rmvpe", "", "someone/models", REVISION, "model.pt", len(CONTENT), ETAG, "MIT"
    )
    monkeypatch.setattr(registry, "models", lambda: {"tiny": model})
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(registry.pull, ["tiny"] * 4)) == {tmp_path / "tiny" / "model.pt"}
    assert hub.log == [0]


def test_what_lies_in_the_place_of_a_model_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "tiny" / "model.pt"
    place.parent.mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    for name in (place, place.with_name("model.pt.partial")):
        name.symlink_to(precious)
        run = pull(9, tmp_path)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)
        assert f"is a link to {precious}" in run.stderr
        assert precious.read_bytes() == b"mine"
        name.unlink()
        os.mkfifo(name)
        run = pull(9, tmp_path)
        assert run.returncode == 2
        assert "a device or a pipe" in run.stderr
        name.unlink()


def test_a_changed_file_is_refused(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    run = pull(hub.server_port, tmp_path, sha256="0" * 64)
    assert run.returncode == 2
    assert "SHA-256" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "cache" / "tiny" / "model.pt").exists()


def test_offline_is_one_clear_line(tmp_path: Path) -> None:
    run = pull(9, tmp_path)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert "cannot download tiny" in run.stderr
    assert str(tmp_path / "cache" / "tiny" / "model.pt") in run.stderr


def test_manifest_is_complete() -> None:
    for model in registry.models().values():
        assert len(model.revision) == 40
        assert len(model.sha256) == 64
        assert model.size > 0
        assert model.license
    assert {"contentvec", "rmvpe"} <= set(registry.models())


def test_locate_says_how_to_get_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="models pull rmvpe"):
        registry.locate("rmvpe")
    model = registry.find("rmvpe")
    model.path.parent.mkdir()
    with model.path.open("wb") as f:
        f.truncate(model.size)
    assert registry.locate("rmvpe") == model.path
