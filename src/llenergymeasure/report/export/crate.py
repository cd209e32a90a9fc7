"""A study as an RO-Crate: one ZIP with everything, described in JSON-LD with each file's hash.

Source: RO-Crate Metadata Specification 1.1; a Process Run is left out, as each ``result.json``
says what ran.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import open_to_read, replacing
from llenergymeasure.report.formatting import plain
from llenergymeasure.results.layout import TABLE_NAMES, RunFolder

METADATA = "ro-crate-metadata.json"
LICENCE = "#licence"

_MEDIA_TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".json": "application/json",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".pdf": "application/pdf",
    ".jsonl": "application/jsonl",
}
_STAMP = (1980, 1, 1, 0, 0, 0)
"""The earliest time that ZIP can hold, so that the same study gives the same bytes."""


def write_crate(
    study_dir: Path, plan: Mapping[str, Any], out: Path, measured_at: str | None
) -> int:
    """Write a study's plan, tables, report and finished runs into a ZIP; return how many files.

    Args:
        study_dir: the study's folder.
        plan: its plan.
        out: the ZIP; written whole or not at all.
        measured_at: when the last run began, in ISO 8601.

    Raises:
        ResultsError: a file is a link out of the folder: what it brings in may be private; or it
            cannot be read.
    """
    root, files = study_dir.resolve(), sorted(_crate_files(study_dir))
    outside_links = [path for path in files if not path.resolve().is_relative_to(root)]
    if outside_links:
        raise ResultsError(
            f"{outside_links[0]} is a link to what is outside of the results folder, and so may be "
            f"{len(outside_links) - 1} more; put copies in their place (git annex unlock)"
        )
    with (
        replacing(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        entries = [_pack(archive, study_dir, path) for path in files]
        metadata = _metadata(entries, plan, measured_at)
        text = json.dumps(metadata, indent=1, sort_keys=True)
        archive.writestr(zipfile.ZipInfo(METADATA, _STAMP), text)
    return len(files)


def _crate_files(study_dir: Path) -> Iterator[Path]:
    names = ["plan.json", *TABLE_NAMES, "report.html"]
    yield from (path for name in names if (path := study_dir / name).is_file())
    yield from (path for path in (study_dir / "figures").glob("*") if path.is_file())
    for record in (study_dir / "runs").glob("*/*/result.json"):
        folder = RunFolder(record.parent)
        yield from (path for path in (*folder.products, folder.outcome) if path.is_file())


def _metadata(
    entries: list[dict[str, Any]], plan: Mapping[str, Any], measured_at: str | None
) -> dict[str, Any]:
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": plain(plan["study"]),
        "description": f"Energy of LLM inference, study design {plan['study_design_hash']}.",
        "identifier": plan["study_design_hash"],
        "datePublished": measured_at,
        "license": {"@id": LICENCE},
        "hasPart": [{"@id": entry["@id"]} for entry in entries],
    }
    about = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    licence = {
        "@id": LICENCE,
        "@type": "CreativeWork",
        "name": "To be chosen by whoever publishes these results",
    }
    return {
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
        ],
        "@graph": [about, root, licence, *entries],
    }


def _pack(archive: zipfile.ZipFile, study_dir: Path, path: Path) -> dict[str, Any]:
    """Pack a file; return its entry, made from the packed bytes: a study may still be running."""
    entry = zipfile.ZipInfo(path.relative_to(study_dir).as_posix(), _STAMP)
    # Parquet and PNG are compressed already.
    is_compressible = path.suffix not in (".parquet", ".png")
    entry.compress_type = zipfile.ZIP_DEFLATED if is_compressible else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    digest, size = hashlib.sha256(), 0
    with suppress(OSError):  # reading says why
        entry.file_size = path.stat().st_size  # of 2 GiB and more the ZIP must know first
    with archive.open(entry, "w") as target:
        for chunk in _chunks(path):
            target.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return {
        "@id": entry.filename,
        "@type": "File",
        "encodingFormat": _MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        "contentSize": str(size),
        "sha256": digest.hexdigest(),
    }


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes.

    Raises:
        ResultsError: it cannot be read; an OSError would be taken for one of the ZIP's.
    """
    try:
        with open_to_read(path) as source:
            while chunk := source.read(1 << 20):
                yield chunk
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
