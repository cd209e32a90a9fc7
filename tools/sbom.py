"""What an image holds, as a bill of materials (CycloneDX 1.6, JSON), printed from within it.

    docker run --rm -i --entrypoint python3 IMAGE - NAME [DIGEST] <tools/sbom.py >sbom.json

Standard library alone: it runs on the image's own Python, which has nothing else for it. The same
image gives the same bytes: there is no date in it, and its serial number is made of what it lists.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
import uuid
from importlib.metadata import distributions
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]


def main() -> None:
    """Print the bill of the image this runs in."""
    name, digest = (*sys.argv[1:3], "")[:2] if len(sys.argv) > 1 else ("this machine", "")
    json.dump(bill(name, digest, [*python_packages(), *system_packages()]), sys.stdout, indent=1)
    print()


def bill(name: str, digest: str, components: list[Component]) -> dict[str, Any]:
    """Return a bill of these components.

    Args:
        name: of the image.
        digest: of the image, ``sha256:…``; empty if it has none.
        components: what it holds.
    """
    by_ref = {component["bom-ref"]: component for component in components}
    parts = [by_ref[ref] for ref in sorted(by_ref)]
    image = {"type": "container", "bom-ref": "image", "name": name}
    if digest:
        image["version"] = digest
    content = json.dumps([image, parts], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": image},
        "components": parts,
    }


def python_packages() -> list[Component]:
    """Return the packages of this interpreter, each once, as their purl type asks for them."""
    components = []
    for package in distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"] or "").lower()
        if name:
            purl = f"pkg:pypi/{name}@{quote(package.version)}"
            components.append(_component(name, package.version, purl))
    return components


def system_packages() -> list[Component]:
    """Return the packages of Debian or a system made of it; none elsewhere."""
    if shutil.which("dpkg-query") is None:
        return []
    query_format = "${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"
    listing = subprocess.check_output(["dpkg-query", "-W", "-f", query_format], text=True)
    system = platform.freedesktop_os_release().get("ID", "debian")
    components = []
    for line in listing.splitlines():
        status, name, version, architecture = line.split()
        if status == "ii":
            purl = f"pkg:deb/{system}/{quote(name)}@{quote(version)}?arch={architecture}"
            components.append(_component(name, version, purl))
    return components


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()
