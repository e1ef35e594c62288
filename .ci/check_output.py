"""Reads an output with pyarrow, as a user would, and compares it with its source.

    python .ci/check_output.py OUTPUT SOURCE_FOLDER CONTENT_COLUMN
"""

import glob
import hashlib
import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq

output, source, content = sys.argv[1:]
manifest = json.load(open(f"{output}/_blt/manifest.json"))

on_disk = {os.path.relpath(p, output) for p in glob.glob(f"{output}/[!_]*/*")}
assert on_disk == {f["path"] for f in manifest["files"]}, "files on disk and in the manifest differ"
for entry in manifest["files"]:
    data = open(f"{output}/{entry['path']}", "rb").read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"]), entry["path"]
    assert pq.read_metadata(f"{output}/{entry['path']}").num_rows == entry["rows"], entry["path"]


def tables(name, columns):
    for path in sorted(glob.glob(f"{output}/{name}/*.parquet")):
        yield pq.read_table(path, columns=columns).combine_chunks()


n_bytes = {}
for path in glob.glob(f"{source}/*.parquet"):
    for row, text in enumerate(pq.read_table(path, columns=[content])[content].to_pylist()):
        n_bytes[os.path.basename(path), row] = len(text.encode())


def lists(table, name):
    column = table[name].combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[a:b] for a, b in zip(offsets, offsets[1:])]


entropies = {}
for table in tables("documents", ["source_file", "source_row", "n_bytes", "entropies", "norms", "patch_lengths"]):
    keys = zip(table["source_file"].to_pylist(), table["source_row"].to_pylist())
    columns = (lists(table, name) for name in ("entropies", "norms", "patch_lengths"))
    for key, n, entropy, norm, lengths in zip(keys, table["n_bytes"].to_pylist(), *columns):
        assert key not in entropies, f"{key} twice"
        assert n == n_bytes[key] and len(entropy) == len(norm) == n + 2, key
        assert lengths.sum() == n + 2 and lengths.min() > 0, key
        assert np.isfinite(entropy).all() and (entropy >= -1e-5).all() and (entropy < 5.57).all(), key
        entropies[key] = entropy

quarantined = set()
for table in tables("quarantine", ["source_file", "source_row"]):
    quarantined |= set(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist()))
assert not quarantined & entropies.keys()
assert quarantined | entropies.keys() == n_bytes.keys(), "a source row is missing"

n_patches = 0
tiled = set()
for table in tables("patches", ["source_file", "source_row", "start", "length", "entropy_start"]):
    [file] = table["source_file"].unique().to_pylist()
    row, start, length, first = (table[name].to_numpy() for name in table.column_names[1:])
    borders = np.flatnonzero(np.diff(row)) + 1
    for a, b in zip([0, *borders], [*borders, len(row)]):
        key = file, int(row[a])
        ends = start[a:b] + length[a:b]
        assert start[a] == 0 and (start[a + 1 : b] == ends[:-1]).all(), f"patches of {key} do not tile it"
        assert ends[-1] == n_bytes[key] and key not in tiled, f"patches of {key} end at {ends[-1]}"
        assert (entropies[key][start[a:b]] == first[a:b]).all(), key
        tiled.add(key)
    n_patches += len(row)
assert tiled == {key for key in entropies if n_bytes[key] > 0}, "a document has no patches"
print(f"{output}: {len(entropies)} documents, {len(quarantined)} rows in quarantine, {n_patches} patches: all of it holds")
