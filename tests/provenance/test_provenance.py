"""Content credentials: what a file says, who signed it, and what a change of one byte does. Read back with c2pa and PyAV."""

import getpass
import io
import json
import os
import re
import resource
import socket
import stat
import sys
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import ditto
from ditto.errors import OutputError, ProvenanceError
from ditto.media.video import VideoWriter
from ditto.provenance import Credentials, Ingredient, Provenance, credentials, marking, publish, verify
from ditto.provenance.marking import manifest_of

c2pa = pytest.importorskip("c2pa", reason="needs c2pa-python")
x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography")

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
MADE = "compositeWithTrainedAlgorithmicMedia"


def write_video(path, **options):
    rng = np.random.default_rng(5)
    with VideoWriter(path, 64, 48, **options) as writer:
        for _ in range(5):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8), rng.normal(0, 0.1, 640).astype(np.float32))
    return path


def picture(format, frames=1):
    data = io.BytesIO()
    first, *more = [Image.fromarray(np.full((16, 16, 3), 60 * index, np.uint8)) for index in range(1, frames + 1)]
    first.save(data, format, **({"save_all": True, "append_images": more} if more else {}))
    return data.getvalue()


def published(path, data, provenance=Provenance()):
    part = path.with_name("a part")
    part.write_bytes(data)
    publish(part, path, provenance)
    assert not part.exists()
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A signed video that says what it was made from."""
    path = tmp_path_factory.mktemp("video") / "a video of somebody.mp4"
    return write_video(path, provenance=Provenance().made_from(portrait=PORTRAIT))


def manifest_in(path, format):
    with path.open("rb") as file, c2pa.Reader(format, file) as reader:
        said = json.loads(reader.json())
    assert said["validation_state"] == "Valid"
    return said["manifests"][said["active_manifest"]]


def test_an_independent_reader_finds_what_made_the_file_and_from_what(video):
    manifest = manifest_in(video, "video/mp4")
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("ditto", ditto.__version__)
    (actions,) = (one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))
    assert [action["action"] for action in actions] == ["c2pa.created", "c2pa.placed"]
    assert actions[0]["digitalSourceType"] == f"http://cv.iptc.org/newscodes/digitalsourcetype/{MADE}"
    (portrait,) = manifest["ingredients"]
    assert (portrait["title"], portrait["format"], portrait["relationship"]) == ("portrait", "image/jpeg", "componentOf")
    assert portrait["instance_id"] == "sha256:f5724aea6d926c89b191192877e8d879de8d5be509645935dbf684f6278fe275"


def test_the_credentials_name_nobody_and_copy_no_picture(video):
    data = video.read_bytes()
    assert b"c2pa.thumbnail" not in data
    for name in (getpass.getuser(), socket.gethostname(), "somebody", "portrait.jpg", str(Path.home())):
        assert len(name) < 5 or name.encode() not in data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", picture("PNG")),
        ("a.JPG", picture("JPEG")),
        ("a.gif", picture("GIF", 2)),
        ("a.webp", picture("WEBP", 2)),
    ],
)
def test_pictures_carry_their_credentials(tmp_path, name, data):
    path = published(tmp_path / name, data)
    verdict = verify(path)
    assert (verdict.state, verdict.source_type, verdict.is_generated) == ("untrusted", MADE, True)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(io.BytesIO(data))))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_videos_say_who_made_them_and_from_what(video):
    verdict = verify(video)
    assert (verdict.state, verdict.generator) == ("untrusted", f"ditto {ditto.__version__}")
    assert verdict.ingredients == (Ingredient.of("portrait", PORTRAIT),)
    assert re.fullmatch(r"ditto, ditto installation [0-9a-f]{8}", verdict.signer)
    mov = published(video.with_name("a.mov"), write_video(video.with_name("b.mp4"), provenance=None).read_bytes())
    assert verify(mov).state == "untrusted" and verify(video.with_name("b.mp4")).state == "absent"


def test_the_credentials_of_a_webm_file_lie_beside_it(tmp_path):
    path = write_video(tmp_path / "a.webm")
    assert verify(path)[:3] == ("untrusted", f"ditto {ditto.__version__}", verify(path).signer)
    assert verify(path).sidecar == tmp_path / "a.c2pa"
    (tmp_path / "a.c2pa").rename(tmp_path / "b.c2pa")
    assert verify(path).state == "absent"
    (tmp_path / "b.c2pa").rename(tmp_path / "a.c2pa")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert verify(path).state == "altered"
    write_video(path, provenance=None)
    assert [file.name for file in tmp_path.iterdir()] == ["a.webm"]  # no credentials of the video that was replaced


def streams(path):
    with av.open(str(path)) as container:
        return [(packet.stream.index, packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


def test_a_signature_changes_no_picture_and_no_sound(tmp_path):
    signed, plain = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b.mp4", provenance=None)
    assert len(streams(signed)) > 10 and streams(signed) == streams(plain)
    assert 0 < signed.stat().st_size - plain.stat().st_size < 10_000
    again = write_video(tmp_path / "c.mp4")
    assert again.read_bytes() != signed.read_bytes()  # the credentials, which differ each time
    assert write_video(tmp_path / "d.mp4", provenance=None).read_bytes() == plain.read_bytes()


def test_one_changed_byte_is_seen(video, tmp_path):
    data = video.read_bytes()
    middle = data.index(b"mdat") + 200
    inside = [data.index(text) + 9 for text in (b"c2pa.created", b"sha256:")]  # of the credentials
    for place in (middle, len(data) - 1, data.index(b"moov") + 30, *inside):
        changed = tmp_path / "a.mp4"
        changed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert verify(changed).state == "altered", place
    changed.write_bytes(data[: len(data) // 2])
    assert verify(changed).state == "altered"
    label = data.index(b"c2pa.claim")
    changed.write_bytes(data[: label - 20] + bytes(40) + data[label + 20 :])
    assert verify(changed).state == "altered"
    changed.write_bytes(data)
    assert verify(changed).state == "untrusted"


def test_whom_the_user_trusts_is_trusted(video, tmp_path):
    chain = Credentials.default().chain
    (tmp_path / "trusted.pem").write_bytes(chain)
    assert verify(video, tmp_path / "trusted.pem").state == "valid"
    (tmp_path / "other.pem").write_bytes(credentials.make_identity())
    assert verify(video, tmp_path / "other.pem").state == "untrusted"
    (tmp_path / "none.pem").write_text("nobody")
    with pytest.raises(ProvenanceError, match=r"expected certificates \(PEM\)"):
        verify(video, tmp_path / "none.pem")


def test_files_that_cannot_be_read_are_told_from_files_without_credentials(tmp_path):
    (tmp_path / "plain.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "notes.txt").write_text("c2pa")
    assert verify(tmp_path / "plain.jpg").state == verify(tmp_path / "notes.txt").state == "absent"
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(ProvenanceError, match="expected video/mp4"):
        verify(tmp_path / "noise.mp4")
    for name in ("missing.mp4", "."):
        with pytest.raises(ProvenanceError):
            verify(tmp_path / name)


def test_a_signed_file_of_any_name_is_verified(video, tmp_path):
    for name in ("a", "a.bin", "a.heic"):
        (tmp_path / name).write_bytes(video.read_bytes())
        assert verify(tmp_path / name).state == "untrusted"
    (tmp_path / "a").write_bytes(video.read_bytes() + b"x")
    assert verify(tmp_path / "a").state == "altered"
    (tmp_path / "notes.txt").write_text("c2pa.claim")
    with pytest.raises(ProvenanceError, match=r"expected a video or picture at .*notes\.txt"):
        verify(tmp_path / "notes.txt")


def test_credentials_alone_are_not_called_altered(tmp_path):
    write_video(tmp_path / "a.webm")
    with pytest.raises(ProvenanceError, match=r"expected a video or picture, got the credentials .*a\.c2pa"):
        verify(tmp_path / "a.c2pa")


class Asked(BaseHTTPRequestHandler):
    """Refuses every request, and counts them."""

    def do_GET(self):
        self.server.requests += 1
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        server.requests = 0
        server.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_nothing_is_fetched_to_verify(tmp_path, server):
    own = Credentials.default()
    builder = c2pa.Builder(manifest_of(Provenance(), "image/jpeg"))
    builder.set_no_embed()
    builder.set_remote_url(f"{server.url}a.c2pa")
    with (tmp_path / "a.jpg").open("w+b") as out:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(own.algorithm, own.chain, own.key, None))
        builder.sign(signer, "image/jpeg", io.BytesIO(picture("JPEG")), out)
    verdict = verify(tmp_path / "a.jpg")
    assert (verdict.state, server.requests) == ("absent", 0) and server.url in verdict.problems[0]


def test_a_timestamp_authority_is_asked_only_if_the_user_names_one(tmp_path, server, monkeypatch):
    monkeypatch.setenv("DITTO_TIMESTAMP_URL", server.url)
    asking = Provenance(credentials=Credentials.default())
    assert server.requests == 0
    target = published(tmp_path / "a.png", picture("PNG"), None)
    before = target.read_bytes()
    with pytest.raises(ProvenanceError, match=re.escape(f"a.png cannot be signed, asking {server.url}")):
        published(target, picture("PNG", 1), asking)
    assert server.requests > 0 and target.read_bytes() == before


def test_the_key_of_an_installation_is_made_once_and_for_its_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    first = Credentials.default()
    file = tmp_path / "data" / "ditto" / "signing.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["signing.pem"]
    assert Credentials.default() == first and first.algorithm == "es256"
    assert "PRIVATE" not in repr(first)
    file.write_text("damaged")
    with pytest.raises(ProvenanceError, match=re.escape(f"expected a certificate (PEM) in {file}")):
        Credentials.default()


@pytest.mark.parametrize("place", ["a file", "/proc/nothing"])
def test_a_folder_that_takes_no_key_is_said_before_any_work(tmp_path, monkeypatch, place):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / place))
    with pytest.raises(ProvenanceError, match=r"expected to keep the signing key .* \(--no-provenance"):
        VideoWriter(tmp_path / "a.mp4", 64, 48)
    assert write_video(tmp_path / "a.mp4", provenance=None).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "a.mp4"]


def certificate(key, days=(-9, 9), usage="emailProtection"):
    """A self-signed certificate that begins and ends so many days from today."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"), x509.NameAttribute(NameOID.COMMON_NAME, "me")])
    today, false = datetime.now(timezone.utc), [False] * 8
    usages = {"emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION, "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH}
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today + timedelta(days[0]))
        .not_valid_after(today + timedelta(days[1]))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.KeyUsage(True, *false), True)
        .add_extension(x509.ExtendedKeyUsage([usages[usage]]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def key_text(key, password=None):
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, lock)


@pytest.fixture(scope="module")
def keys():
    from cryptography.hazmat.primitives.asymmetric import ec

    return [ec.generate_private_key(curve()) for curve in (ec.SECP384R1, ec.SECP256R1, ec.SECP256K1)]


def test_the_user_s_own_certificate_signs(tmp_path, keys, monkeypatch):
    (tmp_path / "certificate.pem").write_bytes(certificate(keys[0]))
    (tmp_path / "key.pem").write_bytes(key_text(keys[0]))
    monkeypatch.setenv("XDG_DATA_HOME", "/proc/nothing")  # not needed
    monkeypatch.setenv("DITTO_SIGNING_CERTIFICATE", str(tmp_path / "certificate.pem"))
    with pytest.raises(ProvenanceError, match=r"got the certificate alone; give the key too"):
        Credentials.default()
    monkeypatch.setenv("DITTO_SIGNING_KEY", str(tmp_path / "key.pem"))
    verdict = verify(published(tmp_path / "a.png", picture("PNG")))
    assert (verdict.state, verdict.signer) == ("untrusted", "Studio, me")
    assert verify(tmp_path / "a.png", tmp_path / "certificate.pem").state == "valid"


def test_certificates_and_keys_that_cannot_sign_are_refused(tmp_path, keys):
    from cryptography.hazmat.primitives.asymmetric import rsa

    good, other, odd = keys
    small = rsa.generate_private_key(65537, 1024)
    cases = [
        (certificate(good, (-9, -1)), key_text(good), "expected a certificate that is valid today .* renew it"),
        (certificate(good, (1, 9)), key_text(good), "expected a certificate that is valid today .* check the clock"),
        (certificate(good), key_text(other), "expected the key of the certificate"),
        (certificate(good), key_text(good, b"secret"), "expected a private key without a password"),
        (certificate(good), b"nothing", r"expected a private key \(PEM\)"),
        (b"nothing", key_text(good), r"expected a certificate \(PEM\)"),
        (certificate(good, usage="serverAuth"), key_text(good), "one that C2PA refuses"),
        (certificate(odd), key_text(odd), "expected an EC key"),
        (certificate(small), key_text(small), "expected an EC key"),
    ]
    for cert, key, message in cases:
        (tmp_path / "certificate.pem").write_bytes(cert)
        (tmp_path / "key.pem").write_bytes(key)
        with pytest.raises(ProvenanceError, match=message):
            Credentials.load(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with pytest.raises(ProvenanceError, match=r"missing\.pem cannot be read"):
        Credentials.load(tmp_path / "missing.pem", tmp_path / "key.pem")


def test_an_expired_certificate_is_no_change_of_the_file(video):
    """What c2pa says of such a file; to make one would need a clock that can be set."""
    from ditto.provenance.verification import _verdict

    failures = [{"code": "signingCredential.expired"}, {"code": "signingCredential.untrusted"}]
    said = {"validation_state": "Invalid", "validation_results": {"activeManifest": {"failure": failures}}}
    assert _verdict(said, None).state == "untrusted"
    failures.append({"code": "assertion.dataHash.mismatch"})
    assert _verdict(said, None).state == "altered"


def test_a_file_that_cannot_be_signed_does_not_get_its_name(tmp_path, monkeypatch):
    target = tmp_path / "a.mp4"
    target.write_text("what was there before")
    with pytest.raises(ProvenanceError, match=r"a\.mp4 cannot be signed"):
        published(target, b"no video at all" * 99)
    with pytest.raises(OSError):
        publish(tmp_path / "a part", tmp_path / "missing" / "a.txt", None)
    assert (tmp_path / "a part").read_bytes() == b"no video at all" * 99  # for the caller to remove
    (tmp_path / "a part").unlink()

    def refuse(*_):
        raise ProvenanceError("no")

    monkeypatch.setattr(marking, "_sign_stream", refuse)
    with pytest.raises(ProvenanceError):
        write_video(target, provenance=Provenance(credentials=Credentials(b"", b"", "es256")))
    assert target.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_full_disk_while_signing_leaves_what_was_there(tmp_path):
    target = published(tmp_path / "a.png", picture("PNG"))
    before, provenance = target.read_bytes(), Provenance().ready()
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)).save(png, "PNG")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(png.getvalue()) + 100, limits[1]))
    try:
        with pytest.raises((ProvenanceError, OSError)):
            published(target, png.getvalue(), provenance)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a part", "a.png"]


def test_a_signal_does_not_reach_the_functions_with_which_c2pa_reads(tmp_path):
    """There, a KeyboardInterrupt would be the end of the file."""
    seen = set()

    class Source(io.BytesIO):
        def readinto(self, buffer):
            seen.add(threading.current_thread())
            return super().readinto(buffer)

    marking._sign_stream(Provenance(), Credentials.default(), "image/png", Source(picture("PNG")), io.BytesIO(), True)
    assert seen and threading.main_thread() not in seen


@pytest.fixture
def without_c2pa(monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    marking.can_sign.cache_clear()
    yield
    marking.can_sign.cache_clear()


def test_without_c2pa_files_are_written_unsigned_and_said_to_be(tmp_path, without_c2pa, monkeypatch, caplog):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with VideoWriter(tmp_path / "a.mp4", 64, 48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert not writer.signed
    (said,) = caplog.messages
    assert "a.mp4 is written without content credentials" in said and "pip install c2pa-python" in said and "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]  # and no key
    with pytest.raises(ProvenanceError, match="expected the package c2pa-python"):
        verify(tmp_path / "a.mp4")


def test_a_writer_says_whether_it_signed(tmp_path, caplog):
    for provenance in (Provenance(), None):
        with VideoWriter(tmp_path / "a.mp4", 64, 48, provenance=provenance) as writer:
            writer.write(np.zeros((48, 64, 3), np.uint8))
        assert writer.signed is (provenance is not None)
    assert caplog.messages == []


def test_a_link_stays_and_its_target_is_signed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "real" / "b.mp4")
    write_video(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").is_symlink() and verify(tmp_path / "a.mp4").state == "untrusted"
    assert os.listdir(tmp_path / "real") == ["b.mp4"]


def test_an_output_that_cannot_be_written_makes_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(OutputError):
        VideoWriter(tmp_path / "missing" / "a.mp4", 64, 48)
    assert not (tmp_path / "data").exists()
