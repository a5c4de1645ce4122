"""Debian packages unpacked into a folder, of another architecture or a newer release than the machine's own, without
installing anything: apt with a state of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _mirror() -> str:
    """Return the address that this machine's own Debian packages come from."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in targets.splitlines():
        origin, _, site = line.partition(" ")
        if origin == "Debian" and "security" not in site:
            return site
    raise SystemExit("apt knows no Debian mirror here: run apt-get update, or use Debian")


def fetch(folder: Path, packages: list[str], arch: str, suites: list[str], needs: bool) -> Path:
    """Unpack packages into folder/root and return that; with `needs`, all that they depend on, too."""
    root = folder / "root"
    if (root / ".complete").exists():
        return root
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    lines = [f"deb [signed-by={KEYS}] {_mirror()} {suite} main\n" for suite in suites]
    (folder / "sources.list").write_text("".join(lines))
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(part for k, v in options.items() for part in ("-o", f"{k}={v}"))]
    subprocess.run([*apt, "update"], check=True)
    archives = folder / "cache/archives"
    if needs:
        subprocess.run(
            [*apt, "-y", "--no-install-recommends", "--download-only", "install", *packages], check=True
        )
    else:
        subprocess.run([*apt, "download", *packages], check=True, cwd=archives)
    for deb in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    shutil.rmtree(folder / "state")
    shutil.rmtree(folder / "cache")
    (root / ".complete").touch()
    return root
