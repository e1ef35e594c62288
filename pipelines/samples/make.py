# /// script
# dependencies = ["numpy", "pillow", "pyarrow", "reportlab", "soundfile"]
# ///
"""Draws the pictures, plays the sounds, prints the documents and shoots the films that images.toml, audio.toml, documents.toml and video.toml
read: each a Parquet file with a column `struct<bytes, path>`, as datasets on the Hugging Face Hub store media. The films need the
program `ffmpeg`.

    uv run pipelines/samples/make.py        # or: pip install the dependencies above, then python3 pipelines/samples/make.py
"""

import io
import math
import pathlib
import subprocess
import tempfile

import numpy
import pyarrow
import pyarrow.parquet
import soundfile
from PIL import Image, ImageDraw
from reportlab.pdfgen.canvas import Canvas

HERE = pathlib.Path(__file__).parent
SIDE = 64
RATE = 8000


def write(name, column, files):
    """Files, by path, as one shard."""
    media = [{"bytes": content, "path": path} for path, content in files.items()]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"id": [path.split(".")[0] for path in files], column: pyarrow.array(media, kind)})
    pyarrow.parquet.write_table(table, HERE / name, compression="zstd")


def pictures():
    across, down = numpy.meshgrid(numpy.arange(SIDE), numpy.arange(SIDE))
    slope = numpy.stack([across * 4, down * 4, 255 - across * 2], axis=-1).astype(numpy.uint8)
    waves = (127 + 120 * numpy.sin(numpy.hypot(across - 32, down - 32) / 3)).astype(numpy.uint8)
    noise = numpy.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
    shapes = Image.new("RGBA", (SIDE, 48), (0, 0, 0, 0))
    draw = ImageDraw.Draw(shapes)
    draw.ellipse((6, 6, 40, 40), fill=(200, 30, 30, 255))
    draw.rectangle((30, 20, 58, 44), fill=(20, 60, 180, 128))
    flat = Image.new("RGB", (SIDE, SIDE), (240, 240, 230))
    ImageDraw.Draw(flat).line((0, 50, 63, 20), fill=(10, 10, 10), width=2)
    turned = Image.Exif()
    turned[0x0112] = 6

    def saved(picture, kind, **how):
        out = io.BytesIO()
        picture.save(out, kind, **how)
        return out.getvalue()

    write(
        "images.parquet",
        "image",
        {
            "slope.png": saved(Image.fromarray(slope), "PNG"),
            "slope.jpg": saved(Image.fromarray(slope), "JPEG", quality=90),
            "waves.png": saved(Image.fromarray(waves), "PNG"),
            "waves.webp": saved(Image.fromarray(waves), "WEBP", lossless=True),
            "noise.bmp": saved(Image.fromarray(noise), "BMP"),
            "see_through.png": saved(shapes, "PNG"),
            "line.gif": saved(flat, "GIF"),
            "line.tiff": saved(flat, "TIFF", compression="tiff_lzw"),
            "turned.jpg": saved(Image.fromarray(slope[:40]), "JPEG", exif=turned),
            # What no decoder reads goes to quarantine.
            "cut.png": saved(Image.fromarray(noise), "PNG")[:3000],
        },
    )


def sounds():
    time = numpy.arange(RATE * 6 // 10) / RATE
    fall = numpy.exp(-4 * time)
    tone = 0.5 * numpy.sin(2 * math.pi * 440 * time)
    chord = fall * sum(numpy.sin(2 * math.pi * pitch * time) for pitch in (262, 330, 392)) / 4
    hiss = 0.2 * numpy.random.default_rng(7).standard_normal(len(time)) * fall
    sweep = 0.4 * numpy.sin(2 * math.pi * (200 * time + 900 * time**2))

    def saved(samples, kind, **how):
        out = io.BytesIO()
        soundfile.write(out, samples, RATE, format=kind, **how)
        return out.getvalue()

    write(
        "audio.parquet",
        "audio",
        {
            "tone.wav": saved(tone, "WAV", subtype="PCM_16"),
            "tone.flac": saved(tone, "FLAC", subtype="PCM_16"),
            "chord.ogg": saved(chord, "OGG"),
            "chord.mp3": saved(chord, "MP3"),
            "hiss.wav": saved(hiss, "WAV", subtype="PCM_24"),
            "sweep.aiff": saved(sweep, "AIFF", subtype="PCM_16"),
            "both_sides.wav": saved(numpy.stack([tone, sweep], axis=1)[: RATE // 4], "WAV", subtype="PCM_16"),
            "cut.flac": saved(sweep, "FLAC", subtype="PCM_16")[:1500],
        },
    )


def documents():
    letter = [
        ["To whoever keeps the clock,", "it is four minutes slow again. The noon train waits for it,", "and the soup waits for the train."],
        ["Please set it at night, when nobody looks up.", "The key is behind the second brick."],
    ]
    list_ = [["Stock, shelf 12", "brass hinges 40", "brass hinges, left 38", "hinges found in the tea 2"]]

    def printed(pages):
        out = io.BytesIO()
        canvas = Canvas(out, pagesize=(300, 200), invariant=1)
        for lines in pages:
            canvas.setFont("Helvetica", 10)
            for number, line in enumerate(lines):
                canvas.drawString(20, 170 - 14 * number, line)
            canvas.showPage()
        canvas.save()
        return out.getvalue()

    empty = printed([[]])
    write(
        "documents.parquet",
        "pdf",
        {"letter.pdf": printed(letter), "list.pdf": printed(list_), "blank.pdf": empty, "cut.pdf": printed(letter)[:600]},
    )


def films():
    def shot(name, pictures, sound, *how):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            sources = [flag for source in (pictures, sound) if source for flag in ("-f", "lavfi", "-i", source)]
            exact = ["-threads", "1", "-fflags", "+bitexact", "-flags", "+bitexact"]
            subprocess.run(["ffmpeg", "-loglevel", "error", *sources, "-t", "3", *exact, *how, path], check=True)
            return path.read_bytes()

    h264 = ["-c:v", "libx264", "-preset", "veryslow", "-crf", "32", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "16k"]
    clock = shot("clock.mp4", "testsrc=s=96x64:r=10", "sine=f=440:r=8000:b=4", *h264)
    zoom = shot("zoom.webm", "mandelbrot=s=64x64:r=10", None, "-c:v", "libvpx-vp9", "-crf", "45", "-b:v", "0")
    life = shot("life.mkv", "life=s=48x32:r=5:seed=7", "sine=f=220:r=8000", "-c:v", "ffv1", "-c:a", "flac")
    write(
        "video.parquet",
        "video",
        {"clock.mp4": clock, "zoom.webm": zoom, "life.mkv": life, "cut.mp4": clock[: len(clock) // 2]},
    )


pictures()
sounds()
documents()
films()
