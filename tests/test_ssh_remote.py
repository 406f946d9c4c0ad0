"""A DVC remote over SSH, on a real OpenSSH server that this module starts on the loopback."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import Run

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = [
    pytest.mark.skipif(not SSHD, reason="no sshd here; Debian has it in openssh-server"),
    pytest.mark.skipif(
        os.geteuid() == 0 and not os.path.isdir("/run/sshd"),
        reason="sshd needs the folder /run/sshd when root starts it",
    ),
]


def cached_outputs(folder: Path) -> list[str]:
    """Return the paths of the outputs that DVC keeps in its cache."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return [out for out in outs if isinstance(out, str)]


@pytest.fixture
def server(tmp_path: Path, run: Run) -> Iterator[tuple[str, Path]]:
    """Start an SSH server; yield the URL of an empty folder on it and the key that it admits."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name in ("host", "user"):
        run(folder, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        "ListenAddress 127.0.0.1\n"
        f"Port {port}\n"
        f"HostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/user.pub\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "UsePAM no\n"
        "StrictModes no\n"
        "PidFile none\n"
        "Subsystem sftp internal-sftp\n"
    )
    with (folder / "log").open("wb") as log:
        sshd = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        for _ in range(100):
            assert sshd.poll() is None, (folder / "log").read_text()
            if "Server listening" in (folder / "log").read_text():
                break
            time.sleep(0.1)
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}/store", folder / "user"
    finally:
        sshd.terminate()
        sshd.wait(timeout=10)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user without SSH settings or agent."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "SSH_AUTH_SOCK": ""}


@pytest.fixture
def sender(workspace: Path, server: tuple[str, Path], run: Run) -> Path:
    """Return the workspace with the server as its remote, set up as the README says."""
    url, key = server
    run(workspace, "dvc", "remote", "add", "--default", "store", url)
    run(workspace, "dvc", "remote", "modify", "store", "verify", "true")
    run(workspace, "git", "commit", "--quiet", "--all", "--message=Name the remote")
    run(workspace, "dvc", "remote", "modify", "--local", "store", "keyfile", key)
    return workspace


def test_a_fresh_clone_pulls_over_ssh_what_another_pushed(
    sender: Path, server: tuple[str, Path], home: dict[str, str], tmp_path: Path, run: Run
) -> None:
    outputs = cached_outputs(sender)
    assert f"{len(outputs)} files pushed" in run(sender, "dvc", "push", env=home).stdout
    assert "Everything is up to date" in run(sender, "dvc", "push", env=home).stdout

    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", sender, clone)
    run(clone, "dvc", "remote", "modify", "--local", "store", "keyfile", server[1])
    run(clone, "dvc", "pull", env=home)
    for path in outputs:
        assert (clone / path).read_bytes() == (sender / path).read_bytes()
    assert "Running stage" not in run(clone, "dvc", "repro").stdout


def test_a_key_that_the_server_does_not_know_is_refused(
    sender: Path, home: dict[str, str], tmp_path: Path, run: Run
) -> None:
    run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "stranger")
    stranger = tmp_path / "stranger"
    run(sender, "dvc", "remote", "modify", "--local", "store", "keyfile", stranger)
    result = run(sender, "dvc", "push", env=home, check=False)
    assert result.returncode
    assert "Permission denied" in result.stdout
    assert "Traceback" not in result.stdout
    assert not (tmp_path / "server" / "store").exists()


def test_a_file_damaged_on_the_server_is_refused(
    sender: Path, home: dict[str, str], tmp_path: Path, run: Run
) -> None:
    run(sender, "dvc", "push", "models/model.safetensors", env=home)
    [stored] = (file for file in (tmp_path / "server" / "store").rglob("*") if file.is_file())
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    run(sender, "dvc", "cache", "dir", "--local", tmp_path / "empty")
    (sender / "models" / "model.safetensors").unlink()
    result = run(sender, "dvc", "pull", "models/model.safetensors", env=home, check=False)
    assert result.returncode
    assert "models/model.safetensors" in result.stdout
    assert not (sender / "models" / "model.safetensors").exists()
