//! Films in a column of a shard, with the feature `video`; without it, what is said instead.

#[cfg(not(feature = "video"))]
#[test]
fn a_build_without_ffmpeg_says_that_it_reads_no_video() {
    let outcome = crate::support::blt(&["plan", "pipelines/video.toml"]);
    outcome.expect(2, &["source.modality = \"video\"", "with the feature `video`"]);
}

#[cfg(feature = "video")]
mod with_ffmpeg {
    use crate::{
        media::{documents, quarantine, sample},
        support::{Work, assert_sound, snapshot},
    };

    #[test]
    fn the_sample_of_films_becomes_pictures_and_sound() {
        let work = Work::new();
        sample(&work, "video", &[]).expect(0, &["4 read, 3 documents, 1 in quarantine"]);
        let found = documents(&work.out());
        // Three seconds: at one picture a second, three of them; patches of 16 pixels, of 64 x 43 at most.
        let pictures = |width: u64, height: u64| 3 * 3 * width * height;
        let (width, height) = (64, 43);
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("clock", "video"));
        assert_eq!(found[0].4, r#"patch {"x":0,"y":0,"w":16,"h":16,"frame":0,"t":0.0}"#);
        // AAC comes in frames of 1024 samples, the last of which may be longer than what was put in.
        let sound = found[0].2 - pictures(width, height);
        assert!(
            (2 * 8000 * 3 * 99 / 100..2 * 8000 * 3 * 104 / 100).contains(&sound),
            "{sound} bytes of sound"
        );
        assert_eq!((found[1].0.as_str(), found[1].2, found[1].3), ("zoom", pictures(64, 64), 3 * 16));
        // Losslessly: 48 x 32 pixels, and FLAC of 8000 samples a second in frames of 20 ms.
        assert_eq!(found[2].0, "life");
        assert_eq!((found[2].2, found[2].3), (pictures(48, 32) + 2 * 8000 * 3, 3 * 6 + 150));
        let [(id, stage, reason)] = &quarantine(&work.out())[..] else { panic!() };
        assert_eq!((id.as_str(), stage.as_str()), ("cut", "pretokenize"));
        assert_eq!(reason, "failed to decode: the file ends before its last box does");
        assert_sound(&work.out());
    }

    #[test]
    fn auto_finds_films() {
        let (named, found) = (Work::new(), Work::new());
        sample(&named, "video", &[]).expect(0, &[]);
        sample(&found, "video", &["source.modality=auto"]).expect(0, &[]);
        assert_eq!(documents(&found.out()), documents(&named.out()));
        assert_eq!(quarantine(&found.out()), quarantine(&named.out()));
    }

    #[test]
    fn threads_do_not_change_the_bytes_of_films_and_nothing_of_ffmpeg_reaches_the_terminal() {
        let (one, many) = (Work::new(), Work::new());
        let outcome = sample(&one, "video", &["pretokenize.workers=1", "sink.unit_bytes=4096"]);
        outcome.expect(0, &[]);
        for word in ["moov", "partial file", "0x", "[mov"] {
            assert!(!outcome.stderr.contains(word), "{}", outcome.stderr);
        }
        sample(&many, "video", &["pretokenize.workers=4", "sink.unit_bytes=4096"]).expect(0, &[]);
        let tables = |work: &Work| {
            let mut all = snapshot(&work.out());
            all.retain(|name, _| !name.starts_with("_blt/"));
            all
        };
        assert!(tables(&one).len() > 3);
        assert_eq!(tables(&one), tables(&many));
    }
}
