#!/usr/bin/env python3
"""This program's decoders against Pillow, soundfile (libsndfile) and pypdf, on files made here: each side's turn after the other's, one thread, seconds of
processor time. Prints a Markdown table. `benches/compare/run decoders` makes the environment and calls it.

    decoders.py --ours EXECUTABLE [--runs 5] [--only PART_OF_A_NAME] [--image SHARD:COLUMN] [--audio …] [--pdf …]

EXECUTABLE is the benchmark `decoders`. Shards add their files of the formats that the table has; rows that either side refuses are left out.
"""

import argparse
import io
import json
import logging
import math
import pathlib
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
import zlib

import numpy
import PIL
import pyarrow.parquet
import pypdf
import soundfile
from PIL import Image, features


def photo(width, height, seed):
    """Something between a photograph and a drawing: soft colours, edges, some grain."""
    rng = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    channels = [128 + 100 * numpy.sin(x / (37 + 11 * c) + seed) * numpy.cos(y / (53 - 9 * c)) for c in range(3)]
    picture = numpy.stack(channels, -1)
    for _ in range(40):
        left, top = rng.integers(0, width), rng.integers(0, height)
        picture[top:top + rng.integers(8, 200), left:left + rng.integers(8, 200)] += rng.normal(0, 40, 3)
    return Image.fromarray(numpy.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(numpy.uint8))


def stored(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pictures():
    photos = [photo(*size, seed) for seed, size in enumerate([(640, 480), (1024, 768), (1600, 1200), (2048, 1536)])]
    see_through = [p.copy() for p in photos]
    for p in see_through:
        p.putalpha(p.convert("L"))
    return {
        "PNG, RGB": [stored(p, "PNG") for p in photos],
        "PNG, grey": [stored(p.convert("L"), "PNG") for p in photos],
        "PNG, palette": [stored(p.quantize(128), "PNG") for p in photos],
        "PNG, alpha": [stored(p, "PNG") for p in see_through],
        "JPEG, 4:2:0": [stored(p, "JPEG", quality=85) for p in photos],
        "JPEG, 4:4:4": [stored(p, "JPEG", quality=92, subsampling=0) for p in photos],
        "JPEG, progressive": [stored(p, "JPEG", quality=85, progressive=True) for p in photos],
        "WebP, lossy": [stored(p, "WEBP", quality=85) for p in photos[:2]],
        "WebP, lossless": [stored(p, "WEBP", lossless=True) for p in photos[:2]],
    }


def wave(seconds, rate, channels, seed):
    """A few tones that slide, and noise."""
    rng = numpy.random.default_rng(seed)
    t = numpy.arange(int(seconds * rate)) / rate
    sides = []
    for side in range(channels):
        tones = [0.12 * numpy.sin(2 * math.pi * f * t * (1 + 0.02 * t / seconds)) for f in rng.uniform(100, 3000, 5)]
        sides.append(sum(tones) * (0.6 + 0.4 * numpy.sin(3 * t + side)) + 0.02 * rng.standard_normal(len(t)))
    return numpy.stack(sides, -1), rate


def sounds():
    long = [wave(30, 44100, 2, 1), wave(10, 48000, 2, 2), wave(20, 16000, 1, 3)]
    short = [wave(0.4, 8000, 1, seed) for seed in range(200)]

    def files(waves, form, subtype):
        all = []
        for samples, rate in waves:
            file = io.BytesIO()
            # A part at a time: libsndfile's Vorbis overflows the stack with long ones.
            with soundfile.SoundFile(file, "w", rate, samples.shape[1], subtype, format=form) as out:
                for at in range(0, len(samples), 4096):
                    out.write(samples[at:at + 4096])
            all.append(file.getvalue())
        return all

    return {
        "WAV, 16 bits": files(long, "WAV", "PCM_16"),
        "WAV, 24 bits": files(long, "WAV", "PCM_24"),
        "WAV, 0.4 s each": files(short, "WAV", "PCM_16"),
        "FLAC, 16 bits": files(long, "FLAC", "PCM_16"),
        "FLAC, 24 bits": files(long, "FLAC", "PCM_24"),
        "MP3": files(long, "MP3", "MPEG_LAYER_III"),
        "Ogg Vorbis": files(long, "OGG", "VORBIS"),
    }


WORDS = "the lamp keeper writes down every ship that passes in fog and counts them twice slowly before dawn".split()


def pdf(pages, seed):
    """Text in one font, packed."""
    rng = random.Random(seed)
    kids = " ".join(f"{4 + 2 * page} 0 R" for page in range(pages))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {pages}/Kids[{kids}]>>".encode(),
               b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"]
    for page in range(pages):
        lines = [" ".join(rng.choices(WORDS, k=12)) for _ in range(45)]
        text = "BT /F1 11 Tf 15 TL 50 780 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        packed = zlib.compress(text.encode())
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R>>>>/Contents {5 + 2 * page} 0 R>>".encode())
        objects.append(f"<</Length {len(packed)}/Filter/FlateDecode>>stream\n".encode() + packed + b"\nendstream")
    file, places = bytearray(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(file)}\n%%EOF\n".encode()
    return bytes(file)


# Of languages of which no files are at hand: a file's part, again and again with other names.
TEMPLATES = {
    "javascript": "/** Adds @ to what there is. */\nexport function add@(list, value = @) {\n  const all = [...list, value];\n  return all.map((n) => n * 2).filter((n) => n > @);\n}\n\nexport class Lamp@ {\n  constructor(name) {\n    this.name = `lamp-${name}`;\n  }\n  get on() {\n    return this.name.length > @;\n  }\n}\n\n",
    "typescript": "export interface Ship@ {\n  name: string;\n  length?: number;\n}\n\nexport type Ships@ = ReadonlyArray<Ship@>;\n\nexport function longest@(ships: Ships@): Ship@ | undefined {\n  return [...ships].sort((a, b) => (b.length ?? @) - (a.length ?? @))[0];\n}\n\nexport class Harbour@<T extends Ship@> {\n  private readonly ships = new Map<string, T>();\n  add(ship: T): void {\n    this.ships.set(ship.name, ship);\n  }\n}\n\n",
    "java": "class Keeper@ {\n    private final java.util.List<String> names = new java.util.ArrayList<>();\n\n    /** Remembers a name. */\n    public void remember(String name) {\n        for (int i = 0; i < @; i++) {\n            names.add(name + \"-\" + i);\n        }\n    }\n\n    public int count() {\n        return names.size();\n    }\n}\n\n",
    "go": "// Keeper@ writes down ships.\ntype Keeper@ struct {\n\tnames []string\n\tcount int\n}\n\nfunc (k *Keeper@) Remember(name string) error {\n\tif len(name) < @ {\n\t\treturn fmt.Errorf(\"name %q is shorter than %d\", name, @)\n\t}\n\tk.names = append(k.names, name)\n\treturn nil\n}\n\nfunc sum@(values []int) (total int) {\n\tfor _, v := range values {\n\t\ttotal += v\n\t}\n\treturn\n}\n\n",
}
ENDINGS = {"javascript": "js", "typescript": "ts", "java": "java", "go": "go"}


def code():
    """By language, files with their endings."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    registry = sorted(pathlib.Path.home().glob(".cargo/registry/src/*"))

    def of_crates(*patterns):
        paths = (path for folder in registry for pattern in patterns for path in folder.glob(pattern))
        small = [path for path in sorted(paths) if path.stat().st_size < 1 << 20]
        return {f"{number}{path.suffix}": path.read_bytes() for number, path in enumerate(small[:400])}

    sets = {
        "code, Rust": {f"{number}.rs": path.read_bytes() for number, path in enumerate(sorted(pathlib.Path("src").rglob("*.rs")))},
        "code, Python": {f"{number}.py": path.read_bytes() for number, path in enumerate(sorted(library.glob("*.py")))},
        "code, C": of_crates("zstd-sys-*/zstd/lib/**/*.c"),
        "code, C++": of_crates("aws-lc-sys-*/**/*.cc", "ring-*/**/*.cc"),
    }
    starts = {"go": "package lamps\n\nimport \"fmt\"\n\n"}
    for language, template in TEMPLATES.items():
        name = {"javascript": "JavaScript", "typescript": "TypeScript", "java": "Java", "go": "Go"}[language]
        files = {}
        for number in range(20):
            parts = (template.replace("@", str(number * 100 + part)) for part in range(100))
            files[f"{number}.{ENDINGS[language]}"] = (starts.get(language, "") + "".join(parts)).encode()
        sets[f"code, {name}, generated"] = files
    return sets


def by_pillow(data):
    """Pixels in RGB, laid on white; as Pillow keeps them, four bytes a pixel."""
    picture = Image.open(io.BytesIO(data))
    if picture.mode in ("RGBA", "LA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture).convert("RGB")
    picture.load()
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def by_pillow_to_bytes(data):
    return by_pillow(data).tobytes()


def by_soundfile(data):
    return soundfile.read(io.BytesIO(data), dtype="int16")


def by_pypdf(data):
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(data)).pages]


PEERS = {
    "image": {"Pillow": by_pillow, "Pillow, with `tobytes`": by_pillow_to_bytes},
    "audio": {"soundfile": by_soundfile},
    "document": {"pypdf": by_pypdf},
    "code": {},
}


def from_shard(named, modality):
    """Files of a shard by format, as far as the peer reads them."""
    shard, column = named.rsplit(":", 1)
    sets = {}
    for row in pyarrow.parquet.read_table(shard, columns=[column]).column(column).to_pylist():
        data = row and row["bytes"]
        if not data:
            continue
        try:
            if modality == "image":
                kind = Image.open(io.BytesIO(data)).format
            elif modality == "audio":
                kind = soundfile.info(io.BytesIO(data)).format
            else:
                kind = "PDF"
            next(iter(PEERS[modality].values()))(data)
        except Exception:  # whatever it says
            continue
        sets.setdefault(f"{kind} of {pathlib.Path(shard).name}", []).append(data)
    return {name: files for name, files in sets.items() if len(files) >= 3}


def seconds(work, data, runs):
    times = []
    for _ in range(runs):
        start = time.process_time()
        work(data)
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(name, modality, files, options):
    """A row of the table for each peer, or one without. Returns files, megabytes, our seconds and those of each peer."""
    peers = PEERS[modality]
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            pathlib.Path(folder, file).write_bytes(data)
        ours, theirs = [], {peer: [] for peer in peers}
        read = None
        for _ in range(options.runs):
            command = [options.ours, "--bench", "--each", "--runs", "3", f"{modality}={folder}"]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            told = {pathlib.Path(file["path"]).name: file["seconds"] for file in map(json.loads, lines)}
            # The same in every turn.
            read = read or [file for file in files if told[file] is not None]
            ours.append(sum(told[file] for file in read))
            for peer, work in peers.items():
                theirs[peer].append(sum(seconds(work, files[file], 3) for file in read))
    megabytes = sum(len(files[file]) for file in read) / 1e6
    if not read:
        return 0, 0.0, 0.0, dict.fromkeys(peers, 0.0)
    measured = len(read), megabytes, statistics.median(ours), {peer: statistics.median(times) for peer, times in theirs.items()}
    show(name, *measured)
    return measured


def show(name, count, megabytes, mine, theirs):
    start = f"| {name} | {count} | {megabytes:.2f} | {megabytes / mine:.1f} |"
    for peer, his in theirs.items():
        print(f"{start} {peer} {megabytes / his:.1f} | {his / mine:.2f} |", flush=True)
    if not theirs:
        print(f"{start} | |", flush=True)


def show_sum(name, rows):
    """Of sets with the same peers, all files."""
    counts, megabytes, mine, theirs = zip(*rows)
    show(name, sum(counts), sum(megabytes), sum(mine), {peer: sum(times[peer] for times in theirs) for peer in theirs[0]})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    for kind in ("image", "audio", "pdf"):
        parser.add_argument(f"--{kind}", metavar="SHARD:COLUMN", action="append", default=[])
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    zlib_of_pillow = "zlib-ng" if features.check_feature("zlib_ng") else "zlib"
    print(f"Pillow {PIL.__version__} ({zlib_of_pillow}, libjpeg-turbo {features.version('jpg')}), soundfile {soundfile.__version__} "
          f"({soundfile.__libsndfile_version__}), pypdf {pypdf.__version__}, Python {sys.version.split()[0]}; {options.runs} runs in turns\n")
    print("| files | n | MB | this program, MB/s | peer, MB/s | this program is, times as fast |\n|---|---|---|---|---|---|")
    sets = [(name, "image", files) for name, files in pictures().items()]
    sets += [(name, "image", files) for shard in options.image for name, files in from_shard(shard, "image").items()]
    sets += [(name, "audio", files) for name, files in sounds().items()]
    sets += [(name, "audio", files) for shard in options.audio for name, files in from_shard(shard, "audio").items()]
    sets += [("PDF, text alone", "document", [pdf(40, 1), pdf(200, 2)])]
    sets += [(name, "document", files) for shard in options.pdf for name, files in from_shard(shard, "document").items()]
    sets += [(name, "code", files) for name, files in code().items()]
    measured = {"image": [], "audio": []}
    for name, modality, files in sets:
        if options.only.lower() not in name.lower():
            continue
        if not isinstance(files, dict):
            files = {f"{number:04}": data for number, data in enumerate(files)}
        measured.setdefault(modality, []).append(measure(name, modality, files, options))
    for name, modality in [("all images", "image"), ("all sounds", "audio")]:
        if len(measured[modality]) > 1:
            show_sum(f"**{name}**", measured[modality])


main()
