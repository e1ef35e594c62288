# /// script
# dependencies = ["numpy", "pillow", "pypdf", "reportlab", "soundfile"]
# ///
"""Makes the seeds of the fuzz targets for media: a small file of every kind that a decoder knows, and of what is special about it.

    uv run tests/fuzz/seeds.py        # or: pip install the dependencies above, then python3 tests/fuzz/seeds.py

Needs ffmpeg for some sounds and zstd for an archive. What it writes need not be the same bytes each time: any small file will do.
"""

import base64
import bz2
import gzip
import io
import itertools
import math
import pathlib
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib

import numpy
import pypdf
import soundfile
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

SEEDS = pathlib.Path(__file__).parent / "seeds"
# Between a name and what has it; tests/fuzz/src/media.rs.
SEPARATOR = b"\x1e"
MADE = {}


def put(target, name, content):
    MADE[target, name] = content


def images():
    side = 24
    across, down = numpy.meshgrid(numpy.arange(side), numpy.arange(side))
    slope = numpy.stack([across * 10, down * 10, 255 - across * 5], axis=-1).astype(numpy.uint8)
    rgb = Image.fromarray(slope)
    alpha = numpy.dstack([slope, (across * 10).astype(numpy.uint8)])
    rgba, grey, palette = Image.fromarray(alpha), rgb.convert("L"), rgb.quantize(8)
    bits = rgb.convert("1")
    wide = Image.fromarray((across * 2700).astype(numpy.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6

    def saved(name, picture, kind, **how):
        out = io.BytesIO()
        picture.save(out, kind, **how)
        put("image", name, out.getvalue())

    saved("rgb.png", rgb, "PNG")
    saved("rgba-turned.png", rgba, "PNG", exif=turned)
    saved("palette-clear.png", palette, "PNG", transparency=1)
    saved("bits.png", bits, "PNG")
    saved("wide.png", wide, "PNG")
    saved("rgb.jpg", rgb, "JPEG", quality=60)
    saved("progressive.jpg", rgb, "JPEG", quality=60, progressive=True)
    saved("grey-turned.jpg", grey, "JPEG", exif=turned)
    saved("cmyk.jpg", rgb.convert("CMYK"), "JPEG", quality=40)
    saved("restarts.jpg", rgb, "JPEG", restart_marker_blocks=1, subsampling=2)
    saved("two.gif", palette, "GIF", save_all=True, append_images=[palette.transpose(0)])
    saved("interlaced.gif", palette, "GIF", interlace=1)
    saved("lossless.webp", rgba, "WEBP", lossless=True)
    saved("lossy.webp", rgb, "WEBP", quality=50)
    saved("lossy-clear.webp", rgba, "WEBP", quality=50, exif=turned)
    saved("two.webp", rgb, "WEBP", save_all=True, append_images=[rgb.transpose(0)], quality=30)
    saved("rgb.bmp", rgb.resize((9, 9)), "BMP")
    saved("palette.bmp", palette.resize((9, 9)), "BMP")
    for kind in ["raw", "tiff_lzw", "tiff_deflate", "packbits", "group4", "jpeg"]:
        picture = {"group4": bits, "raw": rgba.resize((8, 8))}.get(kind, rgb)
        saved(f"{kind}.tiff", picture, "TIFF", compression=None if kind == "raw" else kind)
    saved("wide.tiff", wide, "TIFF", compression="tiff_lzw")
    saved("rgb.ico", rgba, "ICO", sizes=[(16, 16), (8, 8)])
    saved("old.ico", rgba, "ICO", sizes=[(8, 8)], bitmap_format="bmp")
    saved("packed.tga", rgb, "TGA", compression="tga_rle")
    saved("palette.tga", palette, "TGA")
    saved("rgb.qoi", rgb, "QOI")
    saved("grey.pgm", grey.resize((8, 8)), "PPM")
    saved("bits.pbm", bits, "PPM")
    put("image", "letters.ppm", b"P3 3 2 255\n" + b" ".join(str(i * 15).encode() for i in range(18)) + b"\n")
    put("image", "any.pam", b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + bytes(range(16)))
    put("image", "plain.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 3\n" + bytes([9, 99, 200, 129] * 6))
    scanline = b"\x02\x02\x00\x09" + (b"\x89\x55" * 3 + b"\x89\x80")
    put("image", "packed.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 9\n" + scanline * 2)
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 70, 40, 8, 2, 1, 8, 1, 8, 0, 0, 4, 4)
    put("image", "packed.bmp", bmp + bytes(range(16)) + b"\x08\x01\x00\x00\x04\x02\x00\x04\x01\x02\x03\x00\x00\x01")
    for name, packing in [("plain.exr", 0), ("runs.exr", 1), ("zip.exr", 2)]:
        put("image", name, exr(packing))


def exr(packing):
    """OpenEXR of 4 x 2 pixels, a channel of 32-bit floats each for R, G and B."""

    def attribute(name, kind, value):
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(value)) + value

    window = struct.pack("<4i", 0, 0, 3, 1)
    channels = b"".join(name + b"\0" + struct.pack("<IIii", 2, 0, 1, 1) for name in [b"B", b"G", b"R"]) + b"\0"
    head = b"\x76\x2f\x31\x01\x02\0\0\0" + b"".join(
        [
            attribute("channels", "chlist", channels),
            attribute("compression", "compression", bytes([packing])),
            attribute("dataWindow", "box2i", window),
            attribute("displayWindow", "box2i", window),
            attribute("lineOrder", "lineOrder", b"\0"),
            attribute("pixelAspectRatio", "float", struct.pack("<f", 1)),
            attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            attribute("screenWindowWidth", "float", struct.pack("<f", 1)),
            b"\0",
        ]
    )
    # So even that they become shorter: others must not be packed.
    lines = [b"\0\x3f" * 24, b"\0\x3e" * 24]

    def packed(line):
        if packing == 0:
            return line
        # Bytes of even places before those of odd ones, then the differences.
        mixed = line[0::2] + line[1::2]
        line = mixed[:1] + bytes((b - a + 128) & 255 for a, b in zip(mixed, mixed[1:]))
        if packing == 1:
            runs = [(value, len(list(run))) for value, run in itertools.groupby(line)]
            return b"".join(bytes([length - 1, value]) for value, length in runs)
        return zlib.compress(line)

    blocks = [struct.pack("<iI", y, len(packed(line))) + packed(line) for y, line in enumerate(lines)]
    at = len(head) + 16
    return head + struct.pack("<2Q", at, at + len(blocks[0])) + b"".join(blocks)


def sounds():
    rate = 8000
    time = numpy.arange(rate // 25) / rate
    tone = 0.5 * numpy.sin(2 * math.pi * 440 * time)
    both = numpy.stack([tone, tone[::-1]], axis=1)

    def saved(name, samples, kind, **how):
        out = io.BytesIO()
        soundfile.write(out, samples, rate, format=kind, **how)
        put("audio", name, out.getvalue())

    for subtype in ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"]:
        saved(f"{subtype.lower()}.wav", tone, "WAV", subtype=subtype)
    saved("both.wav", both, "WAV", subtype="PCM_16")
    saved("extensible.wav", tone, "WAVEX", subtype="PCM_16")
    saved("tone.aiff", tone, "AIFF", subtype="PCM_16")
    saved("float.aifc", tone, "AIFF", subtype="FLOAT")
    saved("tone.caf", tone, "CAF", subtype="PCM_16")
    saved("tone.flac", both, "FLAC", subtype="PCM_16")
    saved("tone24.flac", tone, "FLAC", subtype="PCM_24")
    saved("vorbis.ogg", tone, "OGG", subtype="VORBIS")
    saved("tone.mp3", both, "MP3")

    def encoded(name, *how):
        wav = MADE["audio", "both.wav"]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            command = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "-", "-map_metadata", "-1", *how, path]
            subprocess.run(command, input=wav, check=True)
            put("audio", name, path.read_bytes())

    encoded("aac.m4a", "-c:a", "aac", "-b:a", "16k")
    encoded("alac.m4a", "-c:a", "alac")
    # Of whole packets: else the header that it writes tells of samples that are not there.
    encoded("alac.caf", "-af", "apad=whole_len=4096", "-c:a", "alac")
    encoded("pieces.mp4", "-c:a", "aac", "-b:a", "16k", "-movflags", "frag_keyframe+empty_moov+default_base_moof")
    encoded("mp3.mp4", "-ar", "32000", "-c:a", "libmp3lame", "-b:a", "32k")
    encoded("aac.aac", "-c:a", "aac", "-b:a", "16k")
    encoded("flac.mka", "-c:a", "flac")
    encoded("pcm.mka", "-c:a", "pcm_s16le")
    encoded("vorbis.webm", "-ac", "1", "-c:a", "libvorbis", "-q", "0")
    encoded("layer2.mp2", "-ac", "1", "-ar", "16000", "-c:a", "mp2", "-b:a", "8k")
    encoded("tags.mp3", "-c:a", "libmp3lame", "-b:a", "16k", "-metadata", "title=a tone", "-id3v2_version", "4")
    encoded("flac.ogg", "-c:a", "flac")


def pdf(objects, trailer=b"", ids=False):
    """A file of these objects, numbered from 1, the first of which is the catalog."""
    out, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return out


def stream(dictionary, content):
    return b"<<%s/Length %d>>\nstream\n" % (dictionary, len(content)) + content + b"\nendstream"


HELVETICA = b"<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>>>>>"
TEXT = b"BT /F 10 Tf 10 30 Td (Two) Tj 0 -12 Td [(l) 20 (ines)] TJ ET"


def page(resources, content, *more):
    """One page of 60 x 40 points; `more` objects are numbered from 5."""
    return pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Count 1/Kids[3 0 R]/MediaBox[0 0 60 40]/Resources %s>>" % resources,
            b"<</Type/Page/Parent 2 0 R/Contents 4 0 R>>",
            content,
            *more,
        ]
    )


def documents():
    put("document", "text.pdf", page(HELVETICA, stream(b"", TEXT)))
    put("document", "flate.pdf", page(HELVETICA, stream(b"/Filter/FlateDecode", zlib.compress(TEXT))))
    put("document", "hex.pdf", page(HELVETICA, stream(b"/Filter[/AHx/Fl]", zlib.compress(TEXT).hex().encode() + b">")))
    put("document", "a85.pdf", page(HELVETICA, stream(b"/Filter/ASCII85Decode", base64.a85encode(TEXT) + b"~>")))
    put("document", "runs.pdf", page(HELVETICA, stream(b"/Filter/RunLengthDecode", bytes([len(TEXT) - 1]) + TEXT + b"\x80")))
    predicted = b"".join(b"\x02" + bytes([b]) for b in b"q Q q Q ")
    parameters = b"/Filter/FlateDecode/DecodeParms<</Predictor 12/Colors 1/Columns 1>>"
    put("document", "predictor.pdf", page(HELVETICA, stream(parameters, zlib.compress(predicted))))
    paths = b"q 1 0 0 RG 2 w 5 5 m 30 35 l 50 5 20 30 55 10 c S 0 .5 1 rg 10 10 20 15 re f* W n Q [3 1] 0 d 1 J 0 0 m 60 40 l S"
    put("document", "paths.pdf", page(b"<<>>", stream(b"", paths)))
    form = stream(b"/Type/XObject/Subtype/Form/BBox[0 0 60 40]/Matrix[.5 0 0 .5 5 5]/Resources " + HELVETICA, TEXT)
    put("document", "form.pdf", page(b"<</XObject<</X 5 0 R>>>>", stream(b"", b"/X Do q 1 0 0 1 9 9 cm /X Do Q"), form))
    jpg = MADE["image", "grey-turned.jpg"]
    picture = b"/Type/XObject/Subtype/Image/Width 24/Height 24/BitsPerComponent 8/ColorSpace/DeviceGray"
    shown = stream(b"", b"50 0 0 30 5 5 cm /X Do")
    put("document", "jpeg.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(picture + b"/Filter/DCTDecode", jpg)))
    indexed = b"/Type/XObject/Subtype/Image/Width 4/Height 4/BitsPerComponent 2/ColorSpace[/Indexed/DeviceRGB 3<000000ff000000ff000000ff>]"
    put("document", "indexed.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(indexed, bytes([0x1B, 0xB1, 0x1B, 0xB1]))))
    masked = b"/Type/XObject/Subtype/Image/Width 2/Height 2/BitsPerComponent 8/ColorSpace/DeviceRGB/SMask 6 0 R"
    mask = b"/Type/XObject/Subtype/Image/Width 2/Height 2/BitsPerComponent 8/ColorSpace/DeviceGray"
    put("document", "mask.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(masked, bytes(range(12))), stream(mask, bytes([0, 99, 200, 255]))))
    fax = b"/Type/XObject/Subtype/Image/Width 16/Height 4/BitsPerComponent 1/ColorSpace/DeviceGray/Filter/CCITTFaxDecode/DecodeParms<</K -1/Columns 16/Rows 4>>"
    out = io.BytesIO()
    Image.fromarray(numpy.eye(4, 16, dtype=bool)).save(out, "TIFF", compression="group4")
    tags = Image.open(out).tag_v2
    rows = out.getvalue()[tags[273][0]:][: tags[279][0]]
    put("document", "fax.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(fax, rows)))
    jbig = b"/Type/XObject/Subtype/Image/Width 8/Height 8/BitsPerComponent 1/ColorSpace/DeviceGray/Filter/JBIG2Decode"
    segments = struct.pack(">IBBBI", 0, 48, 0, 1, 19) + struct.pack(">IIIIBH", 8, 8, 0, 0, 0, 0)
    segments += struct.pack(">IBBBI", 1, 38, 0, 1, 18 + 8 + 6) + struct.pack(">IIIIB", 8, 8, 0, 0, 0) + b"\x00" + bytes([3, 255, 253, 255, 2, 254, 254, 254]) + b"\x55\xaa\x55\xff\xac\x00"
    put("document", "jbig2.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(jbig, segments)))
    out = io.BytesIO()
    Image.fromarray(numpy.arange(64, dtype=numpy.uint8).reshape(8, 8)).save(out, "JPEG2000", irreversible=False)
    jpx = b"/Type/XObject/Subtype/Image/Width 8/Height 8/Filter/JPXDecode"
    put("document", "jpx.pdf", page(b"<</XObject<</X 5 0 R>>>>", shown, stream(jpx, out.getvalue())))
    inline = b"q 40 0 0 30 5 5 cm BI /W 4 /H 2 /BPC 8 /CS /G ID \x00\x20\x40\x60\x80\xa0\xc0\xe0 EI Q"
    put("document", "inline.pdf", page(b"<<>>", stream(b"", inline)))
    shading = b"<</Shading<</S<</ShadingType 2/ColorSpace/DeviceRGB/Coords[0 0 60 40]/Extend[true true]/Function<</FunctionType 2/Domain[0 1]/C0[1 0 0]/C1[0 0 1]/N 1>>>>/R<</ShadingType 3/ColorSpace/DeviceGray/Coords[30 20 2 30 20 15]/Function 5 0 R>>>>>>"
    calculator = stream(b"/FunctionType 4/Domain[0 1]/Range[0 1]", b"{ dup 0.5 gt { 1 exch sub } { 2 mul } ifelse }")
    put("document", "shading.pdf", page(shading, stream(b"", b"q 0 0 30 40 re W n /S sh Q /R sh"), calculator))
    mesh = stream(b"/ShadingType 4/ColorSpace/DeviceGray/BitsPerCoordinate 8/BitsPerComponent 8/BitsPerFlag 8/Decode[0 60 0 40 0 1]", bytes([0, 0, 0, 0, 0, 255, 0, 128, 0, 128, 255, 255]))
    put("document", "mesh.pdf", page(b"<</Shading<</S 5 0 R>>>>", stream(b"", b"/S sh"), mesh))
    pattern = stream(b"/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 8 8]/XStep 8/YStep 8/Resources<<>>", b"1 0 0 rg 0 0 4 4 re f")
    put("document", "pattern.pdf", page(b"<</Pattern<</P 5 0 R>>/ExtGState<</G<</ca .5/BM/Multiply>>>>>>", stream(b"", b"/G gs /Pattern cs /P scn 0 0 60 40 re f"), pattern))
    type3 = b"<</Font<</F<</Type/Font/Subtype/Type3/FontBBox[0 0 9 9]/FontMatrix[.1 0 0 .1 0 0]/FirstChar 65/LastChar 65/Widths[9]/Encoding<</Differences[65/a]>>/CharProcs<</a 5 0 R>>/ToUnicode 6 0 R>>>>>>"
    unicode = stream(b"", b"1 begincodespacerange <00> <ff> endcodespacerange 1 beginbfchar <41> <00660069> endbfchar 1 beginbfrange <42> <44> <0062> endbfrange")
    put("document", "type3.pdf", page(type3, stream(b"", b"BT /F 10 Tf 5 5 Td (AAB) Tj ET"), stream(b"", b"9 0 d0 0 0 5 5 re f"), unicode))
    type0 = b"<</Font<</F<</Type/Font/Subtype/Type0/Encoding/Identity-H/BaseFont/X/DescendantFonts[<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)/Supplement 0>>/W[1[500 600]]>>]>>>>>>"
    put("document", "type0.pdf", page(type0, stream(b"", b"BT /F 10 Tf 5 5 Td <00410042> Tj ET")))
    layers = b"<</Properties<</L<</Type/OCG/Name(x)>>>>/Font<</F<</Type/Font/Subtype/TrueType/BaseFont/Arial/FirstChar 32/LastChar 33/Widths[250 300]>>>>>>"
    put("document", "marked.pdf", page(layers, stream(b"", b"/OC /L BDC BT /F 10 Tf (in) Tj ET EMC /Span <</ActualText(x)>> BDC BT /F 8 Tf 3 Tr (hidden) Tj ET EMC")))
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(60, 40), invariant=1, pageCompression=0)
    canvas.setFont("Helvetica", 8)
    canvas.drawString(5, 20, "printed")
    canvas.showPage()
    canvas.drawString(5, 20, "twice")
    canvas.save()
    printed = out.getvalue()
    put("document", "printed.pdf", printed)
    for name, algorithm in [("rc4", "RC4-128"), ("rc4-40", "RC4-40")]:
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(page(HELVETICA, stream(b"", TEXT))))
        writer.encrypt("", "owner", algorithm=algorithm)
        out = io.BytesIO()
        writer.write(out)
        put("document", f"{name}.pdf", out.getvalue())
    put("document", "table.pdf", in_streams(zlib.compress))
    put("document", "table-plain.pdf", in_streams(None))


def in_streams(pack):
    """Objects in a stream, and the table of objects in another one."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]/MediaBox[0 0 60 40]/Resources %s>>" % HELVETICA,
        b"<</Type/Page/Parent 2 0 R/Contents 5 0 R>>",
    ]
    index, at = b"", 0
    for number, content in enumerate(objects, 1):
        index += b"%d %d " % (number, at)
        at += len(content) + 1
    inner = index + b" ".join(objects)
    how = b"/Filter/FlateDecode" if pack else b""
    pack = pack or (lambda content: content)
    out, places = b"%PDF-1.7\n", {}
    parts = {
        4: stream(b"/Type/ObjStm/N 3/First %d" % len(index) + how, pack(inner)),
        5: stream(b"", TEXT),
    }
    for number, content in parts.items():
        places[number] = len(out)
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    places[6] = len(out)
    rows = [(0, 0, 255), (2, 4, 0), (2, 4, 1), (2, 4, 2)] + [(1, places[number], 0) for number in (4, 5, 6)]
    table = b"".join(struct.pack(">BHB", *row) for row in rows)
    out += b"6 0 obj\n" + stream(b"/Type/XRef/Size 7/W[1 2 1]/Root 1 0 R" + how, pack(table)) + b"\nendobj\n"
    return out + b"startxref\n%d\n%%%%EOF\n" % places[6]


CODE = {
    "a.rs": "//! A file.\nuse std::fmt;\nuse std::io;\n\n/// Doc.\n#[derive(Debug)]\npub struct Point<T> { x: T }\n\nimpl<T: Clone> Point<T> {\n    // One.\n    fn x(&self) -> T { self.x.clone() } // behind\n\n    fn y() {}\n}\nmod inner { pub const N: u32 = 1; trait A { fn f(); } }\nmacro_rules! m { () => {} }\nfn main() { let s = r#\"}\"#; }\n",
    "a.py": "import os\nfrom a import b\n\n@decorated\nclass C(Base):\n    \"\"\"Doc.\"\"\"\n    x = 1\n\n    async def f(self, *a, **k):\n        return f\"{a!r:>{3}}\"\n\n    def g(self): pass\n\ndef main():\n\tif x:\n\t\tyield 1\n\nx = [i for i in y]\n",
    "a.c": "#include <stdio.h>\n#define N 3\ntypedef struct { int x; } point;\nenum e { A, B };\nstatic int f(int a) { return a ? N : 0; }\n#ifdef X\nint g(void);\n#endif\nint main(void) { puts(\"hi\"); }\n",
    "a.cpp": "#include <vector>\nnamespace n { template <class T> class A : public B { public: A() = default; int f() const { return 1; } private: T t; }; }\nusing namespace n;\nauto g = [](auto x) -> int { return x; };\nint main() { for (auto& x : v) {} }\n",
    "a.js": "import a from 'b';\nexport class A extends B { #x = 1; get f() { return `t${this.#x}`; } static g() {} }\nexport default function f(a, ...b) { return a?.b ?? /re[/]x/g; }\nconst h = async (x) => { await x; };\n",
    "a.ts": "import type { A } from './a';\ninterface I<T extends object> { f(x: T): void; readonly y?: string }\nabstract class C implements I<A> { constructor(private x: number) { super(); } f(x: A): void {} }\nenum E { A = 1 }\ntype U = A | null;\nnamespace N { export const x = 1 as const; }\n",
    "a.tsx": "const F = ({ a }: P) => <div className=\"x\">{a && <B {...a} />} text</div>;\nexport function G() { return <>x</>; }\n",
    "A.java": "package a.b;\nimport java.util.*;\n\n/** Doc. */\n@Deprecated\npublic class A<T> extends B implements C {\n    int x = 1;\n    A() {}\n    static <U> U f(U u) throws E { return u; }\n    enum D { X, Y; }\n    record R(int a) {}\n}\ninterface I { default void f() {} }\n",
    "a.go": "package main\n\nimport (\n\t\"fmt\"\n)\n\ntype T struct{ x int }\n\nfunc (t *T) F() (int, error) { return t.x, nil }\n\nfunc main() { go func() { fmt.Println(`x`) }() }\n\nvar y = map[string]int{\"a\": 1}\n",
    "a.h": "#pragma once\nextern \"C\" { int f(void); }\nclass A;\n",
    "Rust": "fn f() {}\n",
    "Haskell": "main = pure ()\n",
}


def code():
    for name, content in CODE.items():
        put("code", name, name.encode() + SEPARATOR + content.encode())
    put("code", "shebang", b"#!/usr/bin/env python3\nprint(1)\n")
    put("code", "cut", b"a.java" + SEPARATOR + b"class A { void f() { if (a < b && c > d) { /* ")


def binaries():
    def padded(text, size):
        return text.encode().ljust(size, b"\0")

    def elf(wide, order):
        one = order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
        section = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
        segment = order + ("IIQQQQQQ" if wide else "IIIIIIII")
        head_bytes, section_bytes = 16 + struct.calcsize(one), struct.calcsize(section)
        names = b"\0.text\0.bss\0.shstrtab\0"
        code_at = head_bytes + struct.calcsize(segment)
        names_at = code_at + 16
        sections_at = names_at + len(names)
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
        head = struct.pack(one, 2, 62, 1, 0x1000, head_bytes, sections_at, 0, head_bytes, struct.calcsize(segment), 1, section_bytes, 4, 3)
        program = (1, 5, 0, 0, 0, 200, 200, 8) if wide else (1, 0, 0, 0, 200, 200, 5, 8)
        table = [(0,) * 10, (1, 1, 6, 0, code_at, 16, 0, 0, 1, 0), (7, 8, 3, 0, names_at, 99, 0, 0, 1, 0), (12, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)]
        return ident + head + struct.pack(segment, *program) + bytes(range(16)) + names + b"".join(struct.pack(section, *row) for row in table)

    put("binary", "64.elf", elf(True, "<"))
    put("binary", "32.elf", elf(False, ">"))

    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 16, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHHQQQQII", 0x140000000, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0, 0x3000, 0x200, 0, 3, 0, 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16)
    directories = [(0, 0)] * 16
    directories[4] = (0x240, 8)
    optional += b"".join(struct.pack("<II", *entry) for entry in directories)
    coff = struct.pack("<HHIIIHH", 0x8664, 2, 0, 0x248, 1, len(optional), 0x22)
    sections = b"".join(
        padded(name, 8) + struct.pack("<IIIIIIHHI", 32, 0x1000 * i, size, place, 0, 0, 0, 0, 0x60000020)
        for i, (name, size, place) in enumerate([(".text", 0x20, 0x200), ("/4", 0x20, 0x220)], 1)
    )
    body = (dos + b"PE\0\0" + coff + optional + sections).ljust(0x200, b"\0")
    put("binary", "64.pe", body + bytes(range(0x48)) + bytes(18) + struct.pack("<I", 14) + b".debug_in\0")
    put("binary", "plain.pe", (dos + b"PE\0\0" + struct.pack("<HHIIIHH", 0x14C, 1, 0, 0, 0, 0, 0) + sections[:40]).ljust(0x220, b"\0"))

    def mach(wide, order):
        head, kind = ("IIIIIIII", 0xFEEDFACF) if wide else ("IIIIIII", 0xFEEDFACE)
        segment = "II16s" + ("QQQQ" if wide else "IIII") + "IIII"
        section = "16s16s" + ("QQ" if wide else "II") + ("IIIIIIII" if wide else "IIIIIII")
        size = struct.calcsize("<" + segment)
        one = size + struct.calcsize("<" + section)
        commands = struct.pack(order + segment, 0x19 if wide else 1, one, padded("__TEXT", 16), 0, 0, 0, 0x180, 7, 5, 1, 0)
        extra = (0x160, 0, 0, 0, 0, 0, 0, 0) if wide else (0x160, 0, 0, 0, 0, 0, 0)
        commands += struct.pack(order + section, padded("__text", 16), padded("__TEXT", 16), 0, 16, *extra)
        commands += struct.pack(order + segment, 0x19 if wide else 1, size, padded("__LINKEDIT", 16), 0, 0, 0x170, 16, 7, 5, 0, 0)
        commands += struct.pack(order + "IIIIII", 2, 24, 0x170, 1, 0x17C, 4)
        values = (kind, 0x0100000C if wide else 7, 0, 2, 3, len(commands), 0, 0)
        return (struct.pack(order + head, *values[: len(head)]) + commands).ljust(0x180, b"\xaa")

    thin = [mach(True, "<"), mach(False, ">")]
    put("binary", "64.macho", thin[0])
    put("binary", "32.macho", thin[1])
    fat = struct.pack(">II", 0xCAFEBABE, 2)
    fat += struct.pack(">IIIII", 0x0100000C, 0, 0x40, 0x180, 6) + struct.pack(">IIIII", 0x01000007, 3, 0x1C0, 0x180, 6)
    put("binary", "fat.macho", fat.ljust(0x40, b"\0") + thin[0] * 2)


def texts():
    put("text", "prose", "Dr. Ada said “no.” Then? Yes!\n\n \t\nSecond paragraph, 3.5 km. hello hello world…\r\n\r\nÜber 東京。次。\u2029العربية؟ ไทย 👩‍👩‍👧 e\u0301\n".encode())
    put("text", "not-utf8", b"caf\xe9 hello\xff\xfe\n\n\xc3(\xe2\x82 a. B\xf0\x9f\x98\n")
    put("text", "blanks", b"\n\n  \n\t\n.   . A\r\r\n")
    put("text", "joined", "ﬁ ½ Å \u1100\u1161\u11a8 \ufeff\u200bx\u0300\u0301 İi̇ hello,worlds <|end|>".encode())


def archives():
    members = {"x": b"first " * 9, "b/y": bytes(range(256)), "./c": b""}

    def tar(form, **how):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form, **how) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            if form != tarfile.USTAR_FORMAT:
                long = tarfile.TarInfo("long/" + "n" * 120)
                long.type, long.linkname = tarfile.SYMTYPE, "m" * 120
                archive.addfile(long)
        # Without most of what fills it up.
        return out.getvalue().rstrip(b"\0") + bytes(1024)

    plain = tar(tarfile.USTAR_FORMAT)
    for name, content in [
        ("ustar.tar", plain),
        ("gnu.tar", tar(tarfile.GNU_FORMAT)),
        ("pax.tar", tar(tarfile.PAX_FORMAT, pax_headers={"comment": "ü"})),
        ("a.tar.gz", gzip.compress(plain)),
        ("two.tar.gz", gzip.compress(plain[:700]) + gzip.compress(plain[700:])),
        ("a.tar.bz2", bz2.compress(plain)),
        ("a.tar.zst", subprocess.run(["zstd", "-q", "--check"], input=plain, capture_output=True, check=True).stdout),
    ]:
        put("archives", name, content)
    for name, method in [("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.comment = b"a comment"
            for member, content in members.items():
                archive.writestr(member, content)
        put("archives", name, out.getvalue())
    put("archives", "streamed.zip", zip_64())


def zip_64():
    """What streams write: sizes behind the member, and in 64 bits."""
    content = b"first " * 9
    crc, size = zlib.crc32(content), len(content)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 45, 8, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1, 20) + b"x" + struct.pack("<HHQQ", 1, 16, 0, 0)
    local += content + struct.pack("<4sIQQ", b"PK\x07\x08", crc, size, size)
    extra = struct.pack("<HHQQQ", 1, 24, size, size, 0)
    central = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 45, 45, 8, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, 1, len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
    central += b"x" + extra
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(central), len(local))
    end += struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + len(central), 1)
    return local + central + end + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def of_all():
    """A few of each for the target that tells them apart."""
    for target, name in [
        ("image", "rgb.png"), ("image", "rgb.jpg"), ("image", "two.gif"), ("image", "lossy.webp"), ("image", "packed.tga"),
        ("audio", "pcm_16.wav"), ("audio", "tone.flac"), ("audio", "tone.mp3"), ("audio", "aac.m4a"), ("audio", "pcm.mka"),
        ("document", "text.pdf"), ("binary", "64.elf"), ("binary", "64.pe"), ("binary", "fat.macho"), ("text", "prose"),
        ("archives", "stored.zip"), ("archives", "a.tar.gz"), ("code", "shebang"),
    ]:
        put("auto", name, MADE[target, name])
    put("auto", "a.py", CODE["a.py"].encode())
    put("auto", "page.html", b"<!DOCTYPE html><p>x</p>")
    put("auto", "class", b"\xca\xfe\xba\xbe\0\0\0\x34\0\x1d")
    put("auto", "flv", b"FLV\x01\x05\0\0\0\x09")


for make in [images, sounds, documents, code, binaries, texts, archives, of_all]:
    make()
for (target, name), content in MADE.items():
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
