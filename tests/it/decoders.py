"""Decodes the files of a shard as others do, and compares what comes out with what this program made of them: Pillow for pictures,
libsndfile (soundfile) and ffmpeg for sounds, pypdf for documents. Knows nothing of which differences are right.

    decoders.py image|audio|pdf SHARD FOLDER

SHARD has a column of that name, a struct of bytes and path. FOLDER has, of each row that this program read, a file called by the row's number:

    image   width and height (u32, little-endian), then RGB
    audio   samples a second and channels (u32, little-endian), then samples (i16, little-endian), all channels of one moment together
    pdf     a JSON object: the text of each page that has one, by its number

Prints a JSON object a row: `theirs`, whether the others read it; `by`, who; `told`, in words; and where both read it `same_size` and the
`mean` and `largest` difference, or for a PDF `words` of the others and how many of them are `found`. `lossy` says that the format leaves
rounding to the decoder. A row that only ffmpeg could have read, and there is none, is `untried`.

    decoders.py make image|audio SHARD

writes a shard of files of every format that is read, as Pillow, libsndfile and ffmpeg (where there is one) write them.
"""
import collections, io, json, logging, shutil, subprocess, sys, tempfile, unicodedata, warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def image(data):
    """Pillow's first frame in RGB, turned as EXIF says and laid on white; of 16 bits the high byte. Whether its format is lossy."""
    from PIL import Image, ImageOps

    picture = Image.open(io.BytesIO(data))
    kind = picture.format
    lossy = kind in ("JPEG", "MPO") or kind == "WEBP" and b"VP8 " in data or picture.info.get("compression") == "jpeg"
    if picture.width * picture.height > 100_000_000:
        raise ValueError("more pixels than pretokenize.image.max_pixels")
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return f"Pillow {kind}", lossy, np.asarray(picture.convert("RGB"))


def compare_images(row, data, ours):
    by, lossy, theirs = image(data)
    told = {"theirs": True, "by": by, "lossy": lossy, "told": "x".join(map(str, theirs.shape[1::-1]))}
    if ours is None:
        return told
    width, height = np.frombuffer(ours[:8], "<u4")
    ours = np.frombuffer(ours[8:], np.uint8).reshape(int(height), int(width), 3)
    return told | differences(ours, theirs)


def differences(ours, theirs):
    if ours.shape != theirs.shape:
        return {"same_size": False, "sizes": f"{ours.shape[:2]} and {theirs.shape[:2]}"}
    difference = np.abs(ours.astype(np.float64) - theirs)
    return {"same_size": True, "mean": float(difference.mean()), "largest": float(difference.max(initial=0))}


class NoFfmpeg(Exception):
    """And nothing else reads it."""


def find_ffmpeg():
    """The one that a package of Python brings, or the system's."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except ImportError:
        return shutil.which("ffmpeg")


FFMPEG = find_ffmpeg()
# What is written with whole numbers comes back with the same ones.
WHOLE = ("PCM", "ALAC", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM")


def sound(data):
    """Who read it, whether that leaves rounding to the decoder, samples a second, and samples in steps of 16 bits, [n, channels]."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            # A header may tell anything.
            if file.frames < 100_000_000:
                lossy = not file.subtype.startswith(WHOLE)
                samples = file.read(dtype="float64" if lossy else "int16", always_2d=True)
                if len(samples):
                    return f"libsndfile {file.format}/{file.subtype}", lossy, file.samplerate, in_steps(samples)
    except soundfile.LibsndfileError:
        pass
    return by_ffmpeg(data)


def by_ffmpeg(data):
    """With the delay and the padding that a decoder leaves, as there is a sample for each that was stored."""
    import soundfile

    if FFMPEG is None:
        raise NoFfmpeg("there is no ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        stored, decoded = Path(folder, "stored"), Path(folder, "decoded.wav")
        stored.write_bytes(data)
        as_stored = ["-flags2", "+skip_manual"] + (["-ignore_editlist", "1"] if data[4:8] == b"ftyp" else [])
        command = [FFMPEG, "-nostdin", "-hide_banner", "-loglevel", "level+info", *as_stored, "-i", stored]
        run = subprocess.run([*command, "-map", "0:a:0", "-c:a", "pcm_f64le", decoded], capture_output=True)
        lines = run.stderr.decode("utf-8", "replace").splitlines()
        # One that complains and goes on has not read it.
        errors = [line for line in lines if "[error]" in line or "[fatal]" in line]
        if run.returncode or errors:
            raise ValueError(errors[0] if errors else lines[-1])
        codec = next(line for line in lines if "Audio:" in line).split("Audio: ")[1].split(",")[0].split()[0]
        samples, rate = soundfile.read(decoded, dtype="float64", always_2d=True)
    if not len(samples):
        raise ValueError("no samples")
    lossy = not codec.startswith(("pcm_s", "pcm_u", "alac", "flac", "adpcm"))
    return f"ffmpeg {codec}", lossy, rate, in_steps(samples if lossy else np.floor(samples * 32768) / 32768)


def in_steps(samples):
    return samples if samples.dtype == np.int16 else np.clip(samples * 32768, -32768, 32767)


def compare_sounds(row, data, ours):
    by, lossy, rate, theirs = sound(data)
    told = {"theirs": True, "by": by, "lossy": lossy, "told": f"{len(theirs)} samples"}
    if ours is None:
        return told
    our_rate, channels = np.frombuffer(ours[:8], "<u4")
    ours = np.frombuffer(ours[8:], "<i2").reshape(-1, int(channels))
    if our_rate != rate:
        return told | {"same_size": False, "sizes": f"{our_rate} and {rate} samples a second"}
    return told | differences(ours, theirs)


def words(text):
    return collections.Counter(unicodedata.normalize("NFKC", text).split())


def compare_documents(row, data, ours):
    import pypdf

    pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(data)).pages]
    told = {"theirs": True, "by": "pypdf", "told": f"{len(pages)} pages"}
    if ours is None:
        return told
    ours = json.loads(ours)
    n_words = n_found = 0
    for number, text in enumerate(pages, 1):
        theirs = words(text)
        n_words += theirs.total()
        n_found += (theirs & words(ours.get(str(number), ""))).total()
    return told | {"words": n_words, "found": n_found}


def make_images():
    """Soft colours, edges and grain; an odd size, so that blocks end inside of it."""
    from PIL import Image

    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:117, 0:163]
    pixels = np.stack([128 + 90 * np.sin(x / (17 + 9 * c)) * np.cos(y / (23 - 5 * c)) for c in range(3)], -1)
    pixels[30:70, 40:90] += 60
    photo = Image.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))
    grey, palette, see_through = photo.convert("L"), photo.quantize(64), photo.convert("RGBA")
    see_through.putalpha(grey)
    deep = Image.fromarray(rng.integers(0, 65536, (117, 163), np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    small = {"sizes": [(64, 48)]}
    yield from (
        ("rgb.png", photo, {}), ("grey.png", grey, {}), ("palette.png", palette, {}), ("bits.png", photo.convert("1"), {}), ("alpha.png", see_through, {}), ("deep.png", deep, {}),
        ("420.jpg", photo, {}), ("422.jpg", photo, {"subsampling": 1}), ("444.jpg", photo, {"subsampling": 0, "quality": 97}), ("grey.jpg", grey, {}), ("cmyk.jpg", photo.convert("CMYK"), {}),
        ("progressive.jpg", photo, {"progressive": True}), ("progressive-444.jpg", photo, {"progressive": True, "subsampling": 0}), ("restart.jpg", photo, {"restart_marker_blocks": 3}),
        ("optimized.jpg", photo, {"optimize": True, "quality": 30}), ("turned.jpg", photo, {"exif": turned}),
        ("still.gif", palette, {}), ("moving.gif", palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
        ("lossy.webp", photo, {}), ("lossless.webp", photo, {"lossless": True}), ("alpha.webp", see_through, {"lossless": True, "exact": True}),
        ("moving.webp", photo, {"save_all": True, "append_images": [photo.rotate(90)], "lossless": True}),
        ("rgb.bmp", photo, {}), ("palette.bmp", palette, {}), ("grey.bmp", grey, {}), ("bits.bmp", photo.convert("1"), {}), ("rgb.qoi", photo, {}), ("alpha.qoi", see_through, {}),
        ("rgb.tga", photo, {}), ("runs.tga", photo, {"compression": "tga_rle"}), ("rgb.ppm", photo, {}), ("grey.pgm", grey, {}), ("bits.pbm", photo.convert("1"), {}),
        ("png.ico", see_through, small), ("bmp.ico", see_through, small | {"bitmap_format": "bmp"}),
        ("plain.tif", photo, {}), ("grey.tif", grey, {}), ("deep.tif", deep, {}), ("alpha.tif", see_through, {}), ("lzw.tif", photo, {"compression": "tiff_lzw"}), ("deflate.tif", photo, {"compression": "tiff_adobe_deflate"}),
        ("packbits.tif", photo, {"compression": "packbits"}), ("jpeg.tif", photo, {"compression": "jpeg"}), ("fax.tif", photo.convert("1"), {"compression": "group4"}),
    )


def made_images():
    for name, picture, options in make_images():
        file = io.BytesIO()
        # Pillow tells the format by the name.
        file.name = name
        picture.save(file, **options)
        yield name, file.getvalue()


BY_LIBSNDFILE = {
    "WAV": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"], "WAVEX": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "RF64": ["PCM_16", "PCM_24"], "AIFF": ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"], "CAF": ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "FLAC": ["PCM_S8", "PCM_16", "PCM_24"], "OGG": ["VORBIS"], "MP3": ["MPEG_LAYER_III"],
}
BY_FFMPEG = {
    "aac.m4a": ["-c:a", "aac"], "aac.aac": ["-c:a", "aac"], "aac.mka": ["-c:a", "aac"], "fragments.mp4": ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"], "alac.m4a": ["-c:a", "alac"],
    "alac.caf": ["-c:a", "alac"], "flac.mp4": ["-c:a", "flac", "-strict", "-2"], "flac.mka": ["-c:a", "flac"], "flac.oga": ["-c:a", "flac"], "vorbis.webm": ["-c:a", "libvorbis"],
    "vorbis.mka": ["-c:a", "libvorbis"], "pcm.mka": ["-c:a", "pcm_s16le"], "pcm.mov": ["-c:a", "pcm_s24le"], "pcm.caf": ["-c:a", "pcm_s16be"], "vbr.mp3": ["-c:a", "libmp3lame", "-q:a", "3"],
    "bare.mp3": ["-c:a", "libmp3lame", "-write_xing", "0"], "two.mp2": ["-c:a", "mp2"], "mp3.mka": ["-c:a", "libmp3lame"], "ms.wav": ["-c:a", "adpcm_ms"], "sowt.aiff": ["-c:a", "pcm_s16le", "-f", "aiff"],
}


def made_sounds():
    """A tone and one that slides, with noise; one second and an odd part of one."""
    import soundfile

    rng = np.random.default_rng(1)
    t = np.arange(50_123) / 44_100
    wave = np.stack([0.4 * np.sin(2 * np.pi * 440 * t), 0.3 * np.sin(2 * np.pi * 1000 * t * (1 + t / 9))], 1)
    wave += 0.05 * rng.standard_normal(wave.shape)
    for form, subtypes in BY_LIBSNDFILE.items():
        for subtype in subtypes:
            for channels in (1, 2):
                file = io.BytesIO()
                soundfile.write(file, wave[:, :channels], 44_100, subtype, format=form)
                yield f"{form}-{subtype}-{channels}.{form.lower()}", file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.wav")
        soundfile.write(source, wave, 44_100, "PCM_16")
        for name, arguments in BY_FFMPEG.items() if FFMPEG else ():
            file = Path(folder, name)
            command = [FFMPEG, "-nostdin", "-loglevel", "error", "-i", source, *arguments, file]
            subprocess.run(command, check=True)
            yield f"ffmpeg-{name}", file.read_bytes()


def make(kind, shard):
    files = [{"bytes": data, "path": name} for name, data in {"image": made_images, "audio": made_sounds}[kind]()]
    pq.write_table(pa.table({kind: files}), shard)


def main():
    if sys.argv[1] == "make":
        return make(*sys.argv[2:])
    kind, shard, folder = sys.argv[1:]
    compare = {"image": compare_images, "audio": compare_sounds, "pdf": compare_documents}[kind]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for number, row in enumerate(pq.read_table(shard, columns=[kind]).to_pylist()):
        data = row[kind] and row[kind]["bytes"]
        file = Path(folder, str(number))
        ours = file.read_bytes() if file.exists() else None
        result = {"row": number, "path": row[kind] and row[kind]["path"], "theirs": False}
        try:
            if data is None:
                raise ValueError("the content is null")
            result |= compare(number, data, ours)
        except NoFfmpeg as error:
            result |= {"untried": True, "told": str(error)}
        except Exception as error:  # whatever it says of the file
            result["told"] = f"{type(error).__name__}: {error}"
        print(json.dumps(result))


main()
