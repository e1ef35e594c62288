//! The way of a push: look at the folder, look at the repository, send what is missing, commit it. Keeps no state: what was done before is
//! what the repository has.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde_json::{Value, json};

use super::{
    Options, PushError, Pushed,
    account::Account,
    card,
    hub::{Hub, Mode},
    lfs,
    package::{self, CARD, Found, Item, Output, Package, Work},
    setback::Patience,
    uri::Target,
};
use crate::{figures::megabytes, schema::Table};

/// The Hub's commits get slow, and then fail, with more; and what one commit that is lost costs is bounded.
const FILES_A_COMMIT: usize = 100;
const BYTES_A_COMMIT: u64 = 5_000_000_000;
/// What the Hub's documentation says of a folder.
const FILES_A_FOLDER: usize = 10_000;
/// As many as the Hub's own client sends.
const UPLOADS_AT_ONCE: usize = 5;
/// First bytes of a file by which the Hub tells text from other content.
const SAMPLE_BYTES: u64 = 512;
/// The Hub takes no larger file outside of LFS.
const MAX_REGULAR_BYTES: u64 = 10_000_000;
/// How often a commit is tried anew because somebody else committed in between.
const RACES: u32 = 5;

/// Pushes the finished output or the model in `folder` to the repository `to`, as much of it as is not there; `bars` shows how far it is.
///
/// # Errors
/// [`PushError`]; whatever was committed by then stays, and the same call goes on from there.
pub fn push(
    folder: &Path,
    to: &str,
    options: &Options,
    bars: Option<&MultiProgress>,
) -> Result<Pushed, PushError> {
    let target = Target::parse(to)?;
    if let Some(license) = &options.license {
        card::check_license(license)?;
    }
    let account = Account::of_environment()?;
    let mut package = packed(folder, &target, options)?;
    let hub = Hub::new(account, target)?;
    if !is_there(&hub, options)? {
        // A dry run of what would be made.
        let sent = package.items.iter().map(|item| (item.path.clone(), item.bytes)).collect();
        return Ok(Pushed { url: hub.page(), sent, removed: Vec::new(), there: 0, commits: None });
    }
    let tree = hub.tree()?;
    if tree.contains_key(CARD) {
        decide_on_card(&hub, &mut package, options)?;
    }
    let work = package.compare(&tree, &hub.target)?;
    let (url, there) = (hub.page(), work.there);
    let sent = work.send.iter().map(|item| (item.path.clone(), item.bytes)).collect();
    let removed = work.remove.clone();
    let mut commits = None;
    if !options.dry_run {
        let bar = bar(bars, &work.send);
        let made = send_all(&hub, &package, &work, &bar);
        // Before an error is told.
        bar.finish_and_clear();
        commits = Some(made?);
    }
    Ok(Pushed { url, sent, removed, there, commits })
}

/// What the folder holds, with a card.
fn packed(folder: &Path, target: &Target, options: &Options) -> Result<Package, PushError> {
    tracing::info!("checking {}", folder.display());
    Ok(match package::open(folder, target.kind)? {
        Found::Output(output) => {
            let mut package = Package::of_output(folder, &output)?;
            warn_of_many_files(&output);
            let text = card::of_output(&output, &card::tables(folder, &output)?, target, options);
            package.add_card(Item::text(CARD, text, false));
            package
        }
        Found::Model(info) => {
            let mut package = Package::of_model(folder, options.replace)?;
            if package.card().is_none() {
                package.add_card(Item::text(CARD, card::of_model(&info, target, options), false));
            }
            package
        }
    })
}

fn warn_of_many_files(output: &Output) {
    for table in Table::ALL {
        let n_files = output.manifest.files.iter().filter(|file| file.table == table.name()).count();
        if n_files > FILES_A_FOLDER {
            tracing::warn!(
                "{table} has {n_files} files, and the Hub takes {FILES_A_FOLDER} in a folder; larger sink.unit_bytes make fewer"
            );
        }
    }
}

/// Whether there is a repository to push to, made if that was asked for.
fn is_there(hub: &Hub, options: &Options) -> Result<bool, PushError> {
    let mut found = hub.repository()?;
    if found.is_none() && options.create {
        if options.dry_run {
            return Ok(false);
        }
        hub.create(options.private)?;
        found = hub.repository()?;
    }
    match found {
        None => Err(hub.missing()),
        Some(found) if options.private && !found.private => {
            Err(PushError::Public { repository: hub.target.to_string() })
        }
        Some(_) => Ok(true),
    }
}

/// The repository's card is replaced if it was written here, and left alone if that was asked for.
fn decide_on_card(hub: &Hub, package: &mut Package, options: &Options) -> Result<(), PushError> {
    if options.keep_card {
        package.remove_card();
        return Ok(());
    }
    let there = hub.content(CARD)?;
    let is_ours = card::is_ours(&there);
    let Some(card) = package.card_mut() else { return Ok(()) };
    if is_ours {
        card.may_replace = true;
    } else if !card.may_replace && card.whole()? != there.as_ref() {
        return Err(PushError::ForeignCard { repository: hub.target.to_string() });
    }
    Ok(())
}

fn bar(bars: Option<&MultiProgress>, items: &[&Item]) -> ProgressBar {
    let bytes = items.iter().map(|item| item.bytes).sum();
    let Some(bars) = bars else { return ProgressBar::hidden() };
    let template = "{bar:32.green} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  eta {eta}  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(bytes)).with_style(style)
}

/// Does `work`, batch by batch; what goes, goes with the last. Tells how many commits that took.
fn send_all(hub: &Hub, package: &Package, work: &Work, bar: &ProgressBar) -> Result<usize, PushError> {
    let mut batches = batches(&work.send);
    if batches.is_empty() && !work.remove.is_empty() {
        batches.push(&[]);
    }
    if batches.is_empty() {
        return Ok(0);
    }
    let mut head = hub.head()?;
    // Requests are waited for, not computed; so many threads cost nothing.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(UPLOADS_AT_ONCE).build();
    let threads =
        threads.map_err(|error| PushError::Environment(format!("there are no threads: {error}")))?;
    for (index, batch) in batches.iter().enumerate() {
        bar.set_message(format!("commit {} of {}", index + 1, batches.len()));
        let is_last = index + 1 == batches.len();
        let remove = if is_last { &work.remove[..] } else { &[] };
        let lines = lines(hub, batch, remove, &threads, bar)?;
        let title = format!("blt-pipeline push, {} of {}: {} files", index + 1, batches.len(), batch.len());
        head = commit(hub, package, batch, remove, &title, head, &lines)?;
        let bytes = megabytes(batch.iter().map(|item| item.bytes).sum());
        tracing::info!("committed {} files, {bytes}, commit {} of {}", batch.len(), index + 1, batches.len());
    }
    Ok(batches.len())
}

/// Runs of `items` that go into one commit each.
fn batches<'a, 'b>(items: &'b [&'a Item]) -> Vec<&'b [&'a Item]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (index, item) in items.iter().enumerate() {
        let is_full = index - start == FILES_A_COMMIT || bytes.saturating_add(item.bytes) > BYTES_A_COMMIT;
        if is_full && index > start {
            batches.push(&items[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes = bytes.saturating_add(item.bytes);
    }
    if start < items.len() {
        batches.push(&items[start..]);
    }
    batches
}

/// Sends what of `items` goes to LFS, and gives the lines of a commit that holds all of them.
fn lines(
    hub: &Hub,
    items: &[&Item],
    remove: &[String],
    threads: &rayon::ThreadPool,
    bar: &ProgressBar,
) -> Result<Vec<Value>, PushError> {
    let mut lines = Vec::with_capacity(items.len() + remove.len());
    // By content: two files of one content are one object.
    let mut in_lfs: BTreeMap<&str, &Item> = BTreeMap::new();
    for (item, mode) in items.iter().zip(modes(hub, items)?) {
        let repository = || hub.target.to_string();
        match mode {
            Mode::Ignored => {
                return Err(PushError::Ignored { repository: repository(), file: item.path.clone() });
            }
            Mode::Regular if item.bytes > MAX_REGULAR_BYTES => {
                let (file, bytes) = (item.path.clone(), item.bytes);
                return Err(PushError::NotLfs { repository: repository(), file, bytes });
            }
            Mode::Regular => {
                let content = BASE64_STANDARD.encode(item.whole()?);
                let value = json!({ "content": content, "path": item.path, "encoding": "base64" });
                lines.push(json!({ "key": "file", "value": value }));
                bar.inc(item.bytes);
            }
            Mode::Lfs => {
                let value =
                    json!({ "path": item.path, "algo": "sha256", "oid": item.sha256, "size": item.bytes });
                lines.push(json!({ "key": "lfsFile", "value": value }));
                if in_lfs.insert(&item.sha256, item).is_some() {
                    bar.inc(item.bytes);
                }
            }
        }
    }
    let in_lfs: Vec<&Item> = in_lfs.into_values().collect();
    let actions = lfs::actions(hub, &in_lfs)?;
    threads.install(|| {
        in_lfs.into_par_iter().try_for_each(|item| match actions.get(&item.sha256) {
            Some(actions) => lfs::send(hub, item, actions, bar),
            None => Ok(()),
        })
    })?;
    lines.extend(remove.iter().map(|path| json!({ "key": "deletedFile", "value": { "path": path } })));
    Ok(lines)
}

fn modes(hub: &Hub, items: &[&Item]) -> Result<Vec<Mode>, PushError> {
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        files.push((item.path.as_str(), item.bytes, item.beginning(SAMPLE_BYTES)?));
    }
    if files.is_empty() { Ok(Vec::new()) } else { hub.modes(&files) }
}

/// Makes one commit upon `head`, once: a commit whose answer is lost may have been made, so before it is asked for again the branch is
/// looked at, and `head` lets the Hub refuse what comes late. Tells the branch's new last commit.
fn commit(
    hub: &Hub,
    package: &Package,
    items: &[&Item],
    remove: &[String],
    title: &str,
    mut head: String,
    lines: &[Value],
) -> Result<String, PushError> {
    let what = format!("commit to {}", hub.target);
    let mut patience = Patience::new();
    let mut races = 0;
    loop {
        let setback = match hub.try_commit(title, &head, lines) {
            Ok(new) => return Ok(new),
            Err(setback) => setback,
        };
        let is_behind = matches!(setback.status, Some(409 | 412)) && races < RACES;
        if is_behind {
            races += 1;
        } else if !hub.waits(&mut patience, &setback) {
            return Err(hub.failed(&what, &setback));
        }
        // The head first: what is committed between the two questions makes the next try fail, not double.
        head = hub.head()?;
        let left = package.compare(&hub.tree()?, &hub.target)?;
        let is_left = |item: &&&Item| left.send.iter().any(|other| other.path == item.path);
        if !items.iter().any(|item| is_left(&item)) && !remove.iter().any(|path| left.remove.contains(path)) {
            tracing::info!("the answer to a commit was lost, and the commit was made");
            return Ok(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_has_few_files_and_the_order_stays() {
        let items: Vec<Item> = (0..250).map(|n| Item::text(&n.to_string(), String::new(), false)).collect();
        let all: Vec<&Item> = items.iter().collect();
        let sizes: Vec<usize> = batches(&all).iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        let paths: Vec<&str> = batches(&all).concat().iter().map(|item| item.path.as_str()).collect();
        assert!(paths.iter().enumerate().all(|(n, path)| *path == n.to_string()));
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn a_commit_has_few_bytes_but_any_file_fits_into_one() {
        let sized = |gigabytes: u64| {
            let mut item = Item::text("a", String::new(), false);
            item.bytes = gigabytes * 1_000_000_000;
            item
        };
        let items = [3, 2, 1, 6, 1, 1].map(sized);
        let all: Vec<&Item> = items.iter().collect();
        let sizes: Vec<usize> = batches(&all).iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
    }
}
