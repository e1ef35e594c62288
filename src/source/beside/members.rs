//! The names in an archive and where what they stand for is. Knows nothing of how an archive is packed.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// What the names of one archive may take, with what is kept of each; two million of usual length.
const MAX_BYTES: u64 = 128 << 20;
/// Beside its name, about, in a tree that is two thirds full.
const MEMBER_BYTES: u64 = 64;
/// Of a name that is shown.
const MAX_SHOWN_BYTES: usize = 200;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where reading begins, in the archive once unpacked.
    pub(super) start: u64,
    /// Size of the member once unpacked.
    pub(super) bytes: u64,
}

/// The members of an archive.
#[derive(Default)]
pub(super) struct Members {
    /// Where each is, or why it is not read.
    by_name: BTreeMap<Box<[u8]>, Result<Place, &'static str>>,
    name_bytes: u64,
}

impl Members {
    /// Two of one name are both not read: tools differ in which of them they take.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn insert(&mut self, name: &[u8], place: Result<Place, &'static str>) -> Result<(), String> {
        let name = plain(name);
        let twice = Err("the archive holds several files of that name");
        if self.by_name.insert(name.into(), place).is_none() {
            self.name_bytes += name.len() as u64;
        } else if let Some(place) = self.by_name.get_mut(name) {
            *place = twice;
        }
        match self.held() > MAX_BYTES {
            true => Err(format!(
                "it holds more than {} files, whose names take more than {MAX_BYTES} bytes of memory; pack it in parts",
                self.by_name.len() - 1
            )),
            false => Ok(()),
        }
    }

    /// The memory that is held, about.
    pub(super) fn held(&self) -> u64 {
        self.name_bytes + self.by_name.len() as u64 * MEMBER_BYTES
    }

    /// Where the member is whose name is `name`, byte by byte but for leading `./`.
    pub(super) fn find(&self, name: &str) -> Result<Place, String> {
        let name = plain(name.as_bytes());
        match self.by_name.get(name) {
            Some(place) => place.map_err(str::to_owned),
            None => Err(format!(
                "it is not among the {} files of the archive{}",
                self.by_name.len(),
                self.nearest(name)
            )),
        }
    }

    /// The one of its neighbours in order that has more of `name`'s beginning.
    fn nearest(&self, name: &[u8]) -> String {
        let before = self.by_name.range::<[u8], _>((Unbounded, Excluded(name))).next_back();
        let after = self.by_name.range::<[u8], _>((Excluded(name), Unbounded)).next();
        let common = |other: &[u8]| name.iter().zip(other).take_while(|(a, b)| a == b).count();
        let neighbours = [before, after].into_iter().flatten().map(|(other, _)| &**other);
        let nearest = neighbours.max_by_key(|other| common(other));
        let nearest = nearest.filter(|nearest| nearest.len() <= MAX_SHOWN_BYTES);
        let nearest = nearest.and_then(|nearest| std::str::from_utf8(nearest).ok());
        nearest.map_or_else(String::new, |nearest| format!(", where the nearest name is {nearest:?}"))
    }
}

/// A name without leading `./`, which some tools write and others do not.
fn plain(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Members {
        let mut members = Members::default();
        for (start, name) in (0..).zip(names) {
            members.insert(name.as_bytes(), Ok(Place { start, bytes: 1 })).unwrap();
        }
        members
    }

    #[test]
    fn names_are_found_byte_by_byte_but_for_a_leading_dot() {
        let members = members(&["./a/x", "b", "c", "././B", "c"]);
        assert_eq!(members.find("a/x"), Ok(Place { start: 0, bytes: 1 }));
        assert_eq!(members.find("./b").map(|place| place.start), Ok(1));
        assert_eq!(members.find("B").map(|place| place.start), Ok(3));
        assert_eq!(members.find("c").unwrap_err(), "the archive holds several files of that name");
    }

    #[test]
    fn a_missing_name_is_told_with_the_nearest() {
        let find = |names: &[&str], name: &str| members(names).find(name).unwrap_err();
        let names = ["train/1.wav", "train/2.wav", "valid/1.wav"];
        assert_eq!(
            find(&names, "train/20.wav"),
            "it is not among the 3 files of the archive, where the nearest name is \"train/2.wav\""
        );
        assert!(find(&names, "val/1.wav").ends_with("\"valid/1.wav\""));
        assert!(find(&names, "1.wav").ends_with("\"train/1.wav\""));
        assert_eq!(find(&[], "1.wav"), "it is not among the 0 files of the archive");
        assert!(find(&["a\u{1b}[31m\n"], "a").ends_with(r#""a\u{1b}[31m\n""#));
    }

    #[test]
    fn names_without_end_are_given_up() {
        let mut members = Members::default();
        let name = "x".repeat(1 << 20);
        let inserted =
            (0..200).try_for_each(|i| members.insert(format!("{i}{name}").as_bytes(), Err("it is a link")));
        assert!(inserted.unwrap_err().starts_with("it holds more than 127 files"));
    }
}
