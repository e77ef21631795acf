"""Build the wheel of a commit, the same bytes each time, and its bill of materials.

    python scripts/release.py OUT [--commit HEAD] [--without-compiler]

Takes the files from git, not from the checkout; dates are the commit's. OUT gets the wheel, its
SHA-256, and a CycloneDX 1.6 file: what lies in the wheel, and what it asks for, in the versions
that constraints.txt has tests for. The operators in C are compiled as `pip install` would; their
bytes are the same for the same compiler. Needs git and the packages build and setuptools.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPO, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build_wheel(commit: str, out: Path, *, with_compiler: bool = True) -> Path:
    """Build the wheel of a commit in a folder of its own; returns its path in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": git("show", "-s", "--format=%ct", commit),
        "PYTHONHASHSEED": "0",
        "ZERO_AR_DATE": "1",
        "TZ": "UTC",
        "LC_ALL": "C",
        **({} if with_compiler else {"CC": "/bin/false"}),
    }
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as scratch:
        tree, made = Path(scratch, "gpt-edge"), Path(scratch, "dist")
        tree.mkdir()
        archive = subprocess.Popen(
            ["git", "archive", "--format=tar", commit], cwd=REPO, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", tree], check=True, stdin=archive.stdout, umask=0o022)
        if archive.wait() != 0:
            raise SystemExit(f"error: git cannot archive {commit}")
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", made]
        subprocess.run(
            [*command, tree], check=True, env=environment, umask=0o022, stdout=subprocess.DEVNULL
        )
        (wheel,) = made.glob("*.whl")
        target = out / wheel.name
        write_sorted(wheel, target)
    return target


def write_sorted(wheel: Path, target: Path) -> None:
    """Write a wheel again: names in order, rights 644 or 755, one kind of compression."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as copy:
        for old in sorted(source.infolist(), key=lambda entry: entry.filename):
            entry = zipfile.ZipInfo(old.filename, old.date_time)
            is_program = bool(old.external_attr >> 16 & 0o111)
            entry.external_attr = (0o100755 if is_program else 0o100644) << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            copy.writestr(entry, source.read(old), compresslevel=9)


def bill_of_materials(wheel: Path, commit: str) -> dict[str, Any]:
    """The wheel's CycloneDX 1.6 document: the same for the same bytes."""
    content = wheel.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    project = tomllib.loads(git("show", f"{commit}:pyproject.toml"))["project"]
    version = wheel.name.split("-")[1]
    own = f"pkg:pypi/gpt-edge@{version}"
    vendored, needed = vendored_components(commit), needed_components(project, commit)
    date = datetime.fromtimestamp(int(git("show", "-s", "--format=%ct", commit)), UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, sha256)}",
        "version": 1,
        "metadata": {
            "timestamp": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": "gpt-edge",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
                "hashes": [{"alg": "SHA-256", "content": sha256}],
                "components": [*vendored, *file_components(wheel)],
            },
        },
        "components": needed,
        "dependencies": [
            {"ref": own, "dependsOn": [component["bom-ref"] for component in needed]},
            *({"ref": component["bom-ref"]} for component in needed),
        ],
    }


def vendored_components(commit: str) -> list[dict[str, Any]]:
    """What others wrote and lies in the wheel: onnxruntime-web, for `gpt-edge web`."""
    locked = json.loads(git("show", f"{commit}:web/package-lock.json"))
    version = locked["packages"]["node_modules/onnxruntime-web"]["version"]
    purl = f"pkg:npm/onnxruntime-web@{version}"
    licenses = [{"license": {"id": "MIT"}}]
    return [
        {
            "type": "library",
            "bom-ref": purl,
            "name": "onnxruntime-web",
            "version": version,
            "purl": purl,
            "licenses": licenses,
        }
    ]


def file_components(wheel: Path) -> list[dict[str, Any]]:
    """Every file of the wheel with its SHA-256."""
    with zipfile.ZipFile(wheel) as archive:
        return [
            {
                "type": "file",
                "bom-ref": f"file:{name}",
                "name": name,
                "hashes": [
                    {"alg": "SHA-256", "content": hashlib.sha256(archive.read(name)).hexdigest()}
                ],
            }
            for name in sorted(archive.namelist())
        ]


def needed_components(project: dict[str, Any], commit: str) -> list[dict[str, Any]]:
    """Packages that the wheel asks for, those of extras as optional ones."""
    pinned = {plain(name): found for name, found in PINNED.findall(constraints(commit))}
    required = names(project["dependencies"])
    extras = project["optional-dependencies"]
    optional = {name for key in extras if key != "dev" for name in names(extras[key])}
    components = []
    for name in sorted(required | optional - {"gpt-edge"}):
        version = pinned.get(name)
        purl = f"pkg:pypi/{name}@{version}" if version else f"pkg:pypi/{name}"
        scope = "required" if name in required else "optional"
        component = {"type": "library", "bom-ref": purl, "name": name, "purl": purl, "scope": scope}
        components.append({**component, **({"version": version} if version else {})})
    return components


def constraints(commit: str) -> str:
    return git("show", f"{commit}:constraints.txt")


def names(requirements: list[str]) -> set[str]:
    found = (REQUIREMENT.match(text) for text in requirements)
    return {plain(match[0]) for match in found if match is not None}


def plain(name: str) -> str:
    """A package's name as PyPI's addresses have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--without-compiler", action="store_true")
    given = parser.parse_args()
    commit = git("rev-parse", f"{given.commit}^{{commit}}")
    wheel = build_wheel(commit, given.out, with_compiler=not given.without_compiler)
    document = bill_of_materials(wheel, commit)
    wheel.with_suffix(".cdx.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wheel.with_suffix(".sha256").write_text(f"{sha256}  {wheel.name}\n", "utf-8")
    print(f"{wheel}: {wheel.stat().st_size:,} bytes, SHA-256 {sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
