"""Makes the metadata beside this file with python-tuf, a TUF implementation that shares no code with ours."""

from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    MetaFile,
    Metadata,
    Role,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

HERE = Path(__file__).parent
EXPIRES = datetime(2040, 1, 1, tzinfo=timezone.utc)
# White space that our own writer never makes: the bytes as they came must count, not our spelling of them.
SPACED = JSONSerializer(compact=False)


def ed25519(name: str) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))


def p256(name: str) -> CryptoSigner:
    secret = int.from_bytes(sha256(name.encode()).digest()[:31], "big")
    return CryptoSigner(derive_private_key(secret, SECP256R1()))


def role(threshold: int, *signers: CryptoSigner) -> Role:
    return Role([signer.public_key.keyid for signer in signers], threshold)


def keys(*signers: CryptoSigner) -> dict[str, Key]:
    return {signer.public_key.keyid: signer.public_key for signer in signers}


def write(name: str, content, *signers: CryptoSigner) -> bytes:
    metadata = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    data = metadata.to_bytes(SPACED)
    (HERE / name).write_bytes(data)
    return data


def listed(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": sha256(data).hexdigest()})


def target(path: str, data: bytes) -> TargetFile:
    return TargetFile.from_data(path, data, ["sha256", "sha512"])


root_1, root_2, root_3 = (ed25519(f"root {n}") for n in (1, 2, 3))
targets, snapshot, timestamp, team = map(ed25519, ("targets", "snapshot", "timestamp", "team"))
new_timestamp = p256("timestamp")

root = Root(
    1,
    None,
    EXPIRES,
    keys(root_1, root_2, root_3, targets, snapshot, timestamp),
    {
        "root": role(2, root_1, root_2, root_3),
        "targets": role(1, targets),
        "snapshot": role(1, snapshot),
        "timestamp": role(1, timestamp),
    },
    unrecognized_fields={"x-note": {"ü": ["a\"b\\c", 1, None, True]}},
)
write("1.root.json", root, root_1, root_2)
root.version = 2
root.revoke_key(timestamp.public_key.keyid, "timestamp")
root.add_key(new_timestamp.public_key, "timestamp")
write("2.root.json", root, root_2, root_3)

listed_roles = {
    "by-path": DelegatedRole("by-path", [team.public_key.keyid], 1, True, ["models/*/*"]),
    "by-hash": DelegatedRole(
        "by-hash", [team.public_key.keyid], 1, False, None, [sha256(b"hashed").hexdigest()[:4]]
    ),
    "bins": DelegatedRole("bins", [team.public_key.keyid], 1, False, ["binned"]),
}
top = Targets(3, None, EXPIRES, {"top": target("top", b"top")}, Delegations(keys(team), listed_roles))
files = {"targets": (3, write("3.targets.json", top, targets))}

bins = SuccinctRoles([team.public_key.keyid], 1, 6, "bin")
delegating = Targets(1, None, EXPIRES, {}, Delegations(keys(team), None, bins))
bin_name = bins.get_role_for_target("binned")
for name, content in {
    "by-path": Targets(5, None, EXPIRES, {"models/a/1": target("models/a/1", b"model")}),
    "by-hash": Targets(1, None, EXPIRES, {"hashed": target("hashed", b"hashed")}),
    "bins": delegating,
    bin_name: Targets(1, None, EXPIRES, {"binned": target("binned", b"binned")}),
}.items():
    files[name] = content.version, write(f"{content.version}.{name}.json", content, team)

meta = {f"{name}.json": listed(*file) for name, file in files.items()}
data = write("4.snapshot.json", Snapshot(4, None, EXPIRES, meta), snapshot)
write("timestamp.json", Timestamp(6, None, EXPIRES, listed(4, data)), new_timestamp)
