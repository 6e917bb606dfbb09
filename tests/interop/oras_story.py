"""Pushes, pulls, tags, attaches and finds artifacts with the `oras` client, and carries one from a server to another.

usage: oras_story.py FROM_HOST FROM_TOKEN TO_HOST TO_TOKEN DIRECTORY
"""

import hashlib
import json
import os
import sys

import oras.client
import oras.oci

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NAME = "myorg/tools"


def client_of(host, token):
    client = oras.client.OrasClient(hostname=host, insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("anybody", token)
    return client


def manifest_of(client, host, reference):
    """The bytes of a manifest, and its digest as the registry says it."""
    url = f"http://{host}/v2/{NAME}/manifests/{reference}"
    response = client.do_request(url, "GET", headers={"Accept": MANIFEST})
    assert response.status_code == 200, response.text
    digest = "sha256:" + hashlib.sha256(response.content).hexdigest()
    assert response.headers["Docker-Content-Digest"] == digest
    return response.content, digest


def referrers_of(client, host, digest, kind=None):
    url = f"http://{host}/v2/{NAME}/referrers/{digest}"
    if kind:
        url += f"?artifactType={kind}"
    response = client.do_request(url, "GET")
    assert response.status_code == 200, response.text
    return response.json()["manifests"]


def push(client, host, files):
    """Pushes a file whole and one in chunks; the chunks come in an order that the registry checks."""
    whole, chunked = files
    pushed = client.push(target=f"{host}/{NAME}:1", files=[f"{whole}:text/plain"])
    assert pushed.status_code == 201, pushed.text
    pushed = client.push(
        target=f"{host}/{NAME}:2",
        files=[f"{chunked}:application/octet-stream"],
        do_chunked=True,
        chunk_size=1000,
    )
    assert pushed.status_code == 201, pushed.text


def attach(client, host, note):
    content, digest = manifest_of(client, host, "1")
    subject = oras.oci.Subject(MANIFEST, digest, len(content))
    config = f"{note}:application/vnd.example.note"
    attached = client.push(
        target=f"{host}/{NAME}:note",
        files=[f"{note}:text/plain"],
        manifest_config=config,
        subject=subject,
        manifest_annotations={"org.example.note": "good"},
    )
    assert attached.status_code == 201, attached.text
    assert attached.headers["OCI-Subject"] == digest
    found = referrers_of(client, host, digest)
    assert [entry["annotations"] for entry in found] == [{"org.example.note": "good"}], found
    assert referrers_of(client, host, digest, "application/vnd.example.note") == found
    assert referrers_of(client, host, digest, "application/other") == []


def carry(source, source_host, target, target_host, directory):
    """Copies tag 1 to a directory and from there to the other server, byte for byte."""
    content, digest = manifest_of(source, source_host, "1")
    manifest = json.loads(content)
    for layer in [manifest["config"], *manifest["layers"]]:
        place = os.path.join(directory, layer["digest"].split(":")[1])
        source.download_blob(f"{source_host}/{NAME}:1", layer["digest"], place)
        sent = target.upload_blob(place, f"{target_host}/{NAME}:1", layer)
        assert sent.status_code == 201, sent.text
    url = f"http://{target_host}/v2/{NAME}/manifests/1"
    sent = target.do_request(url, "PUT", headers={"Content-Type": MANIFEST}, data=content)
    assert sent.status_code == 201, sent.text
    assert manifest_of(target, target_host, "1") == (content, digest)


def main(source_host, source_token, target_host, target_token, directory):
    os.chdir(directory)
    contents = {"notes.txt": b"whole\n", "weights.bin": bytes(range(256)) * 10, "note": b"good\n"}
    for name, content in contents.items():
        with open(name, "wb") as file:
            file.write(content)
    source, target = client_of(source_host, source_token), client_of(target_host, target_token)
    push(source, source_host, ["notes.txt", "weights.bin"])
    attach(source, source_host, "note")
    assert sorted(source.get_tags(f"{source_host}/{NAME}")) == ["1", "2", "note"]
    for tag, name in [("1", "notes.txt"), ("2", "weights.bin")]:
        (pulled,) = source.pull(target=f"{source_host}/{NAME}:{tag}", outdir=f"pulled-{tag}")
        with open(pulled, "rb") as file:
            assert file.read() == contents[name], name
    os.mkdir("carried")
    carry(source, source_host, target, target_host, "carried")
    assert source.delete_tag(f"{source_host}/{NAME}", "note")
    assert sorted(source.get_tags(f"{source_host}/{NAME}")) == ["1", "2"]
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
