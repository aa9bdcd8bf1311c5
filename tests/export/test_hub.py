"""Models pushed to and loaded from a local server that implements the required parts of the hub's protocol."""

import base64
import hashlib
import http.server
import json
import threading

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import shakeshake as ss
from shakeshake.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory: create, preupload, commit, and files by name."""

    files: dict[str, dict[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.files.setdefault(name, {})
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "id": name})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            listed = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return self.answer({"files": [{**one, "shouldIgnore": False, "oid": None} for one in listed]})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            where = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            return self.answer({"commitUrl": where, "commitOid": COMMIT, "pullRequestUrl": None})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        return self.answer({"error": "not here"}, 404)

    def do_GET(self) -> None:
        user, name, _, _, file = [*self.path.strip("/").split("?")[0].split("/", 4), *[""] * 5][:5]
        if self.path.startswith("/api/models/"):
            return self.answer({"id": "/".join(self.path.split("/")[3:5]), "sha": COMMIT, "siblings": []})
        content = self.files.get(f"{user}/{name}", {}).get(file)
        if content is None:
            return self.answer({"error": "not here"}, 404, **{"X-Error-Code": "EntryNotFound"})
        commit = hashlib.sha1(b"".join(self.files[f"{user}/{name}"].values())).hexdigest()
        head = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        return self.answer(content, **head)

    do_HEAD = do_GET

    def answer(self, content: object, status: int = 200, **head: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**head, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(monkeypatch, tmp_path):
    Hub.files = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Hub.files
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pushed_model_loads_with_the_same_predictions(run, hub):
    where = ss.push_to_hub(run, "somebody/digits", licence="mit", token="none")
    assert where.endswith(f"/somebody/digits/commit/{COMMIT}")
    assert set(hub["somebody/digits"]) >= {"config.json", "model.safetensors", "README.md"}
    assert b"license: mit" in hub["somebody/digits"]["README.md"]
    model = ss.from_pretrained("somebody/digits")
    images = torch.from_numpy(ss.load_data("digits").test.images[:20])
    assert torch.equal(model.predict(images), ss.load(run).predict(images))
    assert not model.training
    huggingface_hub.ModelCard(hub["somebody/digits"]["README.md"].decode()).validate()
    weights = bytearray(hub["somebody/digits"]["model.safetensors"])
    weights[-1] ^= 1
    hub["somebody/digits"]["model.safetensors"] = bytes(weights)
    with pytest.raises(InputError, match=r"is not the file that config.json describes"):
        ss.from_pretrained("somebody/digits")
    del hub["somebody/digits"]["model.safetensors"]
    hub["somebody/digits"]["pytorch_model.bin"] = b"\x80"
    with pytest.raises(InputError, match=r"^model: somebody/digits cannot be loaded: .*404") as told:
        ss.from_pretrained("somebody/digits")
    assert "\n" not in str(told.value)


def test_models_load_from_folders_and_save_pretrained_round_trips(run, tmp_path):
    model = ss.from_pretrained(run)
    model.save_pretrained(tmp_path / "saved")
    images = torch.from_numpy(ss.load_data("digits").test.images[:20])
    assert torch.equal(ss.from_pretrained(tmp_path / "saved").predict(images), ss.load(run).predict(images))
    assert "An image classifier" in (tmp_path / "saved" / "README.md").read_text()
    (tmp_path / "saved" / "config.json").write_text("[" * 10)
    for broken, said in ((tmp_path / "saved", "cannot be loaded"), ("no name at all!", "cannot be loaded")):
        with pytest.raises(InputError, match=said):
            ss.from_pretrained(broken)
