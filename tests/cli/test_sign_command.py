"""`sign` and `verify --key`, with the model-signing package of the extra `sign`: each thing that
can be wrong is one line, and the package's own program checks what we sign.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE
from gpt_edge.errors import SignatureError
from gpt_edge.signing.check import check_signature
from gpt_edge.signing.sign import sign_bundle
from tests.cli.test_wrong_inputs import refused
from tests.conftest import REPO
from tests.support.runner import done, listing, run
from tests.support.signatures import write_signature
from tests.support.signed_manifest import sign as write_manifest

pytest.importorskip("model_signing", reason="the extra sign is not installed")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

TINY = REPO / "tests" / "golden" / "tiny-edge"
PASSWORD = "correct horse"


def write_pair(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> None:
    """A private key NAME.key, the same with a password, and its public key NAME.pub."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    plain = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(PASSWORD.encode())
    for file, encryption in ((f"{name}.key", plain), (f"{name}.locked", locked)):
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / file).write_bytes(key.private_bytes(pem, form, encryption))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    data = key.public_key().public_bytes(serialization.Encoding.PEM, public)
    (folder / f"{name}.pub").write_bytes(data)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys `ours` and `other`, and with some that cannot be used."""
    folder = tmp_path_factory.mktemp("keys")
    write_pair(folder, "ours")
    write_pair(folder, "other")
    write_pair(folder, "bitcoin", ec.SECP256K1())
    write_pair(folder, "large", ec.SECP521R1())
    rsa_key = rsa.generate_private_key(65537, 2048)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    rsa_pem = rsa_key.private_bytes(pem, form, serialization.NoEncryption())
    (folder / "rsa.key").write_bytes(rsa_pem)
    (folder / "damaged.key").write_bytes((folder / "ours.key").read_bytes()[:90] + b"\n")
    (folder / "damaged.pub").write_bytes((folder / "ours.pub").read_bytes()[:60] + b"\n")
    (folder / "text").write_text("no key")
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "tiny"
    shutil.copytree(TINY, folder)
    sign_bundle(folder, keys / "ours.key")
    return folder


@pytest.fixture
def bundle(signed: Path, tmp_path: Path) -> Path:
    """A copy of a signed bundle."""
    return Path(shutil.copytree(signed, tmp_path / "tiny"))


def fingerprint(public: Path) -> str:
    """What sha256sum says of the file."""
    return hashlib.sha256(public.read_bytes()).hexdigest()


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_sign_adds_one_file_and_says_whose_key_it_was(keys: Path, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    before = listing(tmp_path / "tiny")
    values = done("sign", tmp_path / "tiny", "--key", keys / "ours.key", "--json").json
    after = listing(tmp_path / "tiny")
    assert set(after) - set(before) == {SIGNATURE_FILE}
    assert {name: after[name] for name in before} == before
    assert values["key"] == fingerprint(keys / "ours.pub")
    assert set(values["files"]) == {path.name for path in TINY.iterdir()}


def test_verify_says_who_signed_before_it_runs_the_model(keys: Path, bundle: Path) -> None:
    lines = done("verify", bundle, "--key", keys / "ours.pub").out.splitlines()
    whose = fingerprint(keys / "ours.pub")
    assert lines[0] == f"signed by the key {whose}, and unchanged since"
    assert "fp32 paths" in lines
    values = done("verify", bundle, "--key", keys / "ours.pub", "--json").json
    assert (values["ok"], values["signature"]) == (True, {"key": whose})


def test_the_packages_own_program_verifies_what_we_signed_and_notices_a_change(
    keys: Path, bundle: Path
) -> None:
    arguments = ("verify", "key", bundle, "--public_key", keys / "ours.pub")
    arguments = (*arguments, "--signature", bundle / SIGNATURE_FILE)
    checked = model_signing(*arguments)
    assert (checked.returncode, checked.stdout.strip()) == (0, "Verification succeeded")
    (bundle / MODEL_FILE).write_bytes(b"other")
    assert model_signing(*arguments).returncode == 1


def test_we_verify_what_the_packages_own_program_signed(keys: Path, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    made = model_signing(
        "sign",
        "key",
        tmp_path / "tiny",
        "--private_key",
        keys / "large.key",
        "--signature",
        tmp_path / "tiny" / SIGNATURE_FILE,
    )
    assert made.returncode == 0, made.stderr
    check_signature(Bundle.open(tmp_path / "tiny"), keys / "large.pub")


def spoil_file(folder: Path) -> None:
    """A changed graph, and a manifest that agrees with it."""
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    write_manifest(folder)


def forge(folder: Path) -> None:
    """The statement for the changed files, with the old signature and the old key's name."""
    spoil_file(folder)
    path = folder / SIGNATURE_FILE
    old = json.loads(path.read_text())
    write_signature(folder)
    new = json.loads(path.read_text())
    new["verificationMaterial"] = old["verificationMaterial"]
    new["dsseEnvelope"]["signatures"] = old["dsseEnvelope"]["signatures"]
    path.write_text(json.dumps(new))


def cut_signature(folder: Path) -> None:
    path = folder / SIGNATURE_FILE
    values = json.loads(path.read_text())
    made = base64.b64decode(values["dsseEnvelope"]["signatures"][0]["sig"])
    values["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(made[:-3]).decode()
    path.write_text(json.dumps(values))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no signature": (lambda folder: (folder / SIGNATURE_FILE).unlink(), "is not signed"),
    "a tampered file": (
        lambda folder: (folder / MODEL_FILE).write_bytes(b"other"),
        f"{MODEL_FILE} has 5 bytes",
    ),
    "a tampered file, the manifest written anew": (
        spoil_file,
        f"{MANIFEST_FILE} was changed after it was signed, and 1 more",
    ),
    "a file added after signing": (
        lambda folder: (folder / "more").write_text("more"),
        "more was not signed",
    ),
    "a forged statement": (forge, "forged or damaged"),
    "a damaged signature": (cut_signature, "forged or damaged"),
    "a signature that is none": (
        lambda folder: (folder / SIGNATURE_FILE).write_text("none"),
        "is not a signature",
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not list")
@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_bundle_is_one_clear_line(keys: Path, bundle: Path, name: str) -> None:
    spoil, words = WRONG[name]
    spoil(bundle)
    result = run("verify", bundle, "--key", keys / "ours.pub")
    lines = [line for line in result.errors if not line.startswith("warning: ")]
    assert (result.code, result.out, len(lines)) == (1, "", 1), result
    assert words in lines[0]


def test_another_key_is_called_by_its_fingerprint(keys: Path, bundle: Path) -> None:
    line = refused(run("verify", bundle, "--key", keys / "other.pub"), 1)
    assert fingerprint(keys / "ours.pub") in line
    assert fingerprint(keys / "other.pub") in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.pub", "cannot be read"),
        ("text", "holds no key"),
        ("ours.key", "is a private key"),
        ("damaged.pub", "holds no public key"),
        ("bitcoin.pub", "is a key of secp256k1"),
    ],
)
def test_a_wrong_public_key_is_one_clear_line(
    keys: Path, bundle: Path, name: str, words: str
) -> None:
    assert words in refused(run("verify", bundle, "--key", keys / name), 1, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.key", "cannot be read"),
        ("text", "holds no key"),
        ("ours.pub", "holds no private key"),
        ("damaged.key", "it is damaged"),
        ("rsa.key", "is a key of another kind"),
        ("bitcoin.key", "is a key of secp256k1"),
        ("ours.locked", "no password, or a wrong one"),
    ],
)
def test_a_wrong_private_key_is_one_clear_line_and_writes_nothing(
    keys: Path, tmp_path: Path, name: str, words: str
) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    before = listing(tmp_path)
    assert words in refused(run("sign", tmp_path / "tiny", "--key", keys / name), 1, name)
    assert listing(tmp_path) == before


def test_a_key_with_a_password_signs_where_the_environment_has_it(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    monkeypatch.setenv("GPT_EDGE_KEY_PASSWORD", PASSWORD)
    done("sign", tmp_path / "tiny", "--key", keys / "ours.locked")
    check_signature(Bundle.open(tmp_path / "tiny"), keys / "ours.pub")
    monkeypatch.setenv("GPT_EDGE_KEY_PASSWORD", "wrong")
    refused(run("sign", tmp_path / "tiny", "--key", keys / "ours.locked", "--force"), 1)


def test_a_signature_is_replaced_with_force_alone(keys: Path, bundle: Path) -> None:
    refused(run("sign", bundle, "--key", keys / "other.key"), 1, "exists")
    done("sign", bundle, "--key", keys / "other.key", "--force")
    check_signature(Bundle.open(bundle), keys / "other.pub")


def test_a_folder_with_a_link_is_not_signed(keys: Path, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    (tmp_path / "tiny" / "link").symlink_to(tmp_path)
    with (
        pytest.warns(UserWarning, match="does not list"),
        pytest.raises(SignatureError, match="cannot be signed"),
    ):
        sign_bundle(tmp_path / "tiny", keys / "ours.key")


@pytest.mark.slow
def test_commands_take_a_signed_bundle_and_replace_one_by_an_unsigned_one(
    bundle: Path, tmp_path: Path
) -> None:
    target = tmp_path / "other"
    shutil.copytree(bundle, target)
    assert done("quantize", bundle, target, "--scheme", "int8", "--force").out
    assert not (target / SIGNATURE_FILE).exists()
    assert Bundle.open(target).scheme == "int8"
