#!/usr/bin/env bash
# Made the films of this folder, with ffmpeg 5.1.9 of Debian 12; run in it. Other versions encode other bytes, and the tests hold for those, too.
set -euo pipefail
make() {
    ffmpeg -hide_banner -loglevel error -y -f lavfi -i testsrc2=size=48x32:rate=10:duration=1.5 \
        -f lavfi -i sine=frequency=440:sample_rate=16000:duration=1.5 -threads 1 -fflags +bitexact -flags +bitexact "$@"
}
make -c:v libx264 -preset veryslow -crf 34 -pix_fmt yuv420p -c:a aac -b:a 12k -movflags +faststart h264_aac.mp4
make -c:v libx264 -preset veryslow -crf 34 -pix_fmt yuv420p -c:a aac -b:a 12k -movflags +frag_keyframe+empty_moov -g 5 fragments.mp4
make -c:v libvpx-vp9 -crf 34 -b:v 0 -c:a libopus -b:a 8k vp9_opus.webm
make -c:v libtheora -q:v 4 -c:a libvorbis -q:a 0 theora_vorbis.ogv
ffmpeg -hide_banner -loglevel error -y -i h264_aac.mp4 -map 0:v -c copy -fflags +bitexact -metadata:s:v rotate=90 turned.mp4
