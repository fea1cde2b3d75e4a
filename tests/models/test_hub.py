"""Pretrained weights: fetched once from a hub on this machine, then from the cache; a hub out of reach is asked once."""

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors.torch import save

from darklens.errors import ModelError
from darklens.models import hub as hub_module
from darklens.models.hub import pretrained_file
from darklens.models.registry import build_network

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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build_apart(endpoint, home):
    """First weights of the network, built with pretrained ones in a process of its own: what users set is respected."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    clean |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", BUILD], env=clean, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def use_hub(monkeypatch, tmp_path):
    """A function that points the hub's client, which reads the environment at its import, to an endpoint."""

    def use(endpoint, *, offline=False):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    yield use
    close_session()


def build():
    """First weights of the network, built with pretrained ones."""
    network = build_network("timm", 3, 5, {"architecture": NETWORK, "pretrained": True})
    return network.state_dict()["conv1.0.weight"].flatten()[:4].tolist()


def assert_not_fetched(reason, capfd):
    message = re.escape(f"the pretrained weights of {NETWORK} cannot be fetched ({reason})")
    with pytest.raises(ModelError, match=rf"{message}(?s:.)*--network\.pretrained false"):
        build()
    assert "Retrying" not in capfd.readouterr().err


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


def test_a_hub_that_is_not_there_is_not_asked_again(use_hub, capfd):
    with hub(not_found) as (endpoint, _):
        pass  # now nobody listens there
    use_hub(endpoint)
    assert_not_fetched("ConnectError", capfd)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(hang_up, "RemoteProtocolError"), (not_found, "HfHubHTTPError"), (overloaded, "HfHubHTTPError")],
)
def test_a_hub_that_does_not_give_is_asked_once(answer, reason, use_hub, capfd):
    with hub(answer) as (endpoint, requests):
        use_hub(endpoint)
        assert_not_fetched(reason, capfd)
    assert requests == [("HEAD", FILE)]


def test_each_file_of_weights_is_asked_for_once(use_hub, capfd):
    with hub(no_such_file) as (endpoint, requests):
        use_hub(endpoint)
        assert_not_fetched("RemoteEntryNotFoundError", capfd)
    assert [path.rpartition("/")[2] for _, path in requests] == ["model.safetensors", "pytorch_model.bin"]


def test_offline_mode_makes_no_request(use_hub, capfd):
    with hub(not_found) as (endpoint, requests):
        use_hub(endpoint, offline=True)
        assert_not_fetched("OfflineModeIsEnabled", capfd)
    assert requests == []


def serving(content):
    """Answer that gives the same content for every file, and the headers that the hub's client asks for."""

    def serve(request):
        request.send_response(200)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    return serve


def test_weights_are_fetched_once_and_then_come_from_the_cache(tmp_path, use_hub):
    torch.manual_seed(7)
    state = timm.create_model(NETWORK).state_dict()
    serve = serving(save({name: tensor.contiguous() for name, tensor in state.items()}))
    expected = state["conv1.0.weight"].flatten()[:4].tolist()
    with hub(serve) as (endpoint, requests):
        assert build_apart(endpoint, tmp_path) == expected
        fetched = [method for method, path in requests if path == FILE]
        assert fetched == ["HEAD", "HEAD", "GET"], "asked for, looked at and fetched"
        before = len(requests)
        use_hub(endpoint)
        assert build() == expected
        assert len(requests) == before, "the cache is used without a request"
    assert build() == expected
    use_hub(endpoint, offline=True)
    assert build() == expected


@pytest.fixture
def client(use_hub, monkeypatch):
    """Let this process ask a hub of the test's own, with an empty cache and a token; takes the hub's address."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return use_hub


def configure(monkeypatch, **settings):
    """Let timm say where a network's weights are: ``hf_hub_id``, ``hf_hub_filename``, ``custom_load``."""
    values = {"hf_hub_id": "timm/net", "hf_hub_filename": None, "custom_load": False} | settings
    known = {"net": type("Configuration", (), values)}
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda architecture: known[architecture])


def test_file_of_a_revision_is_asked_for_with_the_token_and_kept(client, monkeypatch):
    configure(monkeypatch, hf_hub_id="timm/net@v2")
    tokens = []

    def serve(request):
        tokens.append(request.headers.get("authorization"))
        serving(b"twelve bytes")(request)

    with hub(serve) as (endpoint, requests):
        client(endpoint)
        path = pretrained_file("net")
        assert path.name == "model.safetensors"
        assert path.read_bytes() == b"twelve bytes"
        assert requests[0] == ("HEAD", "/timm/net/resolve/v2/model.safetensors")
        assert tokens[0] == "Bearer hf_secret"
        before = len(requests)
        assert pretrained_file("net") == path
        assert len(requests) == before


def test_second_name_of_a_file_is_tried_where_the_hub_lacks_the_first(client, monkeypatch):
    configure(monkeypatch)

    def serve(request):
        (no_such_file if request.path.endswith("safetensors") else serving(b"older"))(request)

    with hub(serve) as (endpoint, requests):
        client(endpoint)
        path = pretrained_file("net")
    assert (path.name, path.read_bytes()) == ("pytorch_model.bin", b"older")
    assert requests[:2] == [("HEAD", f"/timm/net/resolve/main/{name}") for name in hub_module.FILES]


@pytest.mark.parametrize(("answer", "error"), [(no_such_file, EntryNotFoundError), (overloaded, HfHubHTTPError)])
def test_files_that_the_hub_does_not_give_are_an_error(answer, error, client, monkeypatch):
    configure(monkeypatch, hf_hub_filename="own.bin")
    with hub(answer) as (endpoint, requests):
        client(endpoint)
        with pytest.raises(error):
            pretrained_file("net")
    assert requests == [("HEAD", "/timm/net/resolve/main/own.bin")]


def test_redirection_is_not_followed_by_the_request_that_asks(client, monkeypatch):
    """A file of weights is kept elsewhere, and to ask for that is to fetch it."""
    configure(monkeypatch)

    def moved(request):
        request.send_response(302)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with hub(moved) as (endpoint, requests):
        client(endpoint)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "file")
        assert str(pretrained_file("net")) == "file"
    assert requests == [("HEAD", "/timm/net/resolve/main/model.safetensors")]


@pytest.mark.parametrize("settings", [{"hf_hub_id": None}, {"custom_load": "hf"}])
def test_networks_that_timm_keeps_elsewhere_have_no_file(settings, monkeypatch):
    configure(monkeypatch, **settings)
    assert pretrained_file("net") is None
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda architecture: None)
    assert pretrained_file("net") is None


def test_progress_of_a_download_is_told_in_mebibytes(client, monkeypatch):
    configure(monkeypatch, hf_hub_id="timm/net@v2")
    told, asked = [], []

    class Bar:
        def __init__(self, what):
            told.append(what)

        def __enter__(self):
            return lambda done, total: told.append((done, total))

        def __exit__(self, *_):
            pass

    def download(*arguments, tqdm_class, **options):
        asked.append((arguments, options))
        bar = tqdm_class(total=7 << 20, initial=1 << 20, unit="B")
        assert bar.disable, "it draws nothing itself"
        bar.update(3 << 20)
        bar.update(None)
        bar.update((2 << 20) + 5)
        other = tqdm_class(total=None)
        other.update()
        return "file"

    monkeypatch.setattr(hub_module, "progress_bar", Bar)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with hub(serving(b"")) as (endpoint, _):
        client(endpoint)
        assert str(pretrained_file("net")) == "file"
    assert told == ["fetching the weights of net (MiB)", (4, 7), (4, 7), (6, 7)]
    options = {"revision": "v2", "etag_timeout": 5.0, "library_name": "timm"}
    assert asked == [(("timm/net", "model.safetensors"), options)]
