"""Pretrained weights: fetched once from a hub on this machine, then from the cache; a hub out of reach is asked once."""

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import timm
import torch
from safetensors.torch import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NETWORK = "test_resnet"
FILE = f"/timm/{NETWORK}.r160_in1k/resolve/main/model.safetensors"
BUILD = (
    "import torch, json\nfrom darklens.models.registry import build_network\n"
    f"network = build_network('timm', 3, 5, {{'architecture': '{NETWORK}', 'pretrained': True}})\n"
    "print(json.dumps(network.state_dict()['conv1.0.weight'].flatten()[:4].tolist()))\n"
)


@contextmanager
def hub(answer):
    """A server on this machine, and the list of requests that it gets, which ``answer`` answers."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.command, self.path))
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build(endpoint, home, **environment):
    """Build the network with pretrained weights in a process of its own, since the hub's client reads these at import."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    clean |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | environment
    return subprocess.run([sys.executable, "-c", BUILD], env=clean, capture_output=True, text=True, check=False)


def assert_not_fetched(done, reason):
    assert done.returncode == 1
    assert f"ModelError: the pretrained weights of {NETWORK} cannot be fetched ({reason})" in done.stderr
    assert "--network.pretrained false" in done.stderr
    assert "Retrying" not in done.stderr


def hang_up(request):
    request.connection.shutdown(socket.SHUT_RDWR)


def not_found(request):
    request.send_response(404)
    request.send_header("Content-Length", "0")
    request.end_headers()


def no_such_file(request):
    request.send_response(404)
    request.send_header("X-Error-Code", "EntryNotFound")
    request.send_header("Content-Length", "0")
    request.end_headers()


def overloaded(request):
    request.send_response(503)
    request.send_header("Content-Length", "0")
    request.end_headers()


def test_a_hub_that_is_not_there_is_not_asked_again(tmp_path):
    with hub(not_found) as (endpoint, _):
        pass  # now nobody listens there
    assert_not_fetched(build(endpoint, tmp_path), "ConnectError")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(hang_up, "RemoteProtocolError"), (not_found, "HfHubHTTPError"), (overloaded, "HfHubHTTPError")],
)
def test_a_hub_that_does_not_give_is_asked_once(answer, reason, tmp_path):
    with hub(answer) as (endpoint, requests):
        done = build(endpoint, tmp_path)
    assert_not_fetched(done, reason)
    assert requests == [("HEAD", FILE)]


def test_each_file_of_weights_is_asked_for_once(tmp_path):
    with hub(no_such_file) as (endpoint, requests):
        done = build(endpoint, tmp_path)
    assert_not_fetched(done, "RemoteEntryNotFoundError")
    assert [path.rpartition("/")[2] for _, path in requests] == ["model.safetensors", "pytorch_model.bin"]


def test_offline_mode_makes_no_request(tmp_path):
    with hub(not_found) as (endpoint, requests):
        done = build(endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert_not_fetched(done, "OfflineModeIsEnabled")
    assert requests == []


def test_weights_are_fetched_once_and_then_come_from_the_cache(tmp_path):
    torch.manual_seed(7)
    state = timm.create_model(NETWORK).state_dict()
    content = save({name: tensor.contiguous() for name, tensor in state.items()})

    def serve(request):
        request.send_response(200)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    expected = str(state["conv1.0.weight"].flatten()[:4].tolist())
    with hub(serve) as (endpoint, requests):
        done = build(endpoint, tmp_path)
        assert done.stdout.strip() == expected, done.stderr
        fetched = [method for method, path in requests if path == FILE]
        assert fetched == ["HEAD", "HEAD", "GET"], "asked for, looked at and fetched"
        before = len(requests)
        again = build(endpoint, tmp_path)
        assert again.stdout.strip() == expected, again.stderr
        assert len(requests) == before, "the cache is used without a request"
    gone = build(endpoint, tmp_path)
    assert gone.stdout.strip() == expected, gone.stderr
    offline = build(endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == expected, offline.stderr
