"""Whether a finished output is as it was left."""

from collections.abc import Iterable, Iterator

from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.manifest import (
    MANIFEST,
    Listing,
    Problem,
    in_threads,
    look_into,
    read_manifest,
)
from pipeline.tables.output.markers import ShardReport, markers, shard_files, shard_names
from pipeline.tables.output.sealed import Stamp

SUMMARY = "summary.json"


def find_problems(output: Directory, *, check_bytes: bool = False) -> list[Problem]:
    """Files of a finished output that are missing, of another length, damaged, or none of its own.

    From a listing; the markers are read where it tells that something is wrong. check_bytes: read all files,
    else the summary alone.
    """
    manifest = read_manifest(output)
    if isinstance(manifest, Problem):
        return [manifest]
    listing, names = Listing(output, {"", *manifest.folders}), shard_names(manifest.shards)
    stamps, unknown, found = dict(manifest.files), set[str](), list[Problem]()
    odd = listing.differs(manifest.folders) or not names_done(output, ShardReport).issuperset(names)
    if odd or check_bytes:
        for report, name in zip(markers(output, manifest.job, names), names, strict=True):
            if isinstance(report, Problem):
                found.append(report)
                unknown.update(shard_files(name))
            else:
                stamps |= report.files
        found += listing.strangers(unknown | stamps.keys(), manifest.folders)
    found += listing.problems(stamps)
    looked_into = stamps if check_bytes else {SUMMARY: manifest.files[SUMMARY]}
    missing = {problem.file for problem in found}
    found += _changed(output, {file: stamp for file, stamp in looked_into.items() if file not in missing})
    # The markers and the manifest each are whole, and contradict each other.
    return found or ([Problem(MANIFEST, "does not fit the files and markers")] if odd else [])


def missing_data(output: Directory, done: Iterable[str]) -> list[Problem]:
    """Files that every shard has, and that those lack whose markers were listed before."""
    there = {folder: output.sizes(folder) for folder in ("run", "scores")}
    return [
        Problem(f"{folder}/{name}.parquet", "is missing")
        for name in sorted(done)
        for folder, files in there.items()
        if f"{name}.parquet" not in files
    ]


def _changed(output: Directory, stamps: dict[str, Stamp]) -> Iterator[Problem]:
    return filter(None, in_threads(lambda item: look_into(output, *item), [*stamps.items()]))
