"""Asks the hub for tests what a user of Python's huggingface_hub would ask, and asserts the answers.

    HF_ENDPOINT=http://127.0.0.1:PORT python hub_client.py [STORY ...]

The repositories are those that hub_client.rs makes. Uploads through Xet are the one thing that the hub does not
take: with Xet on, which HF_HUB_DISABLE_XET=1 turns off, objects for LFS are handed over as streams, which the client
sends without it.
"""

import hashlib
import io
import os
import pathlib
import sys
import tempfile

OWNER, STRANGER = "hf_owner", "hf_stranger"


def pattern(length, seed):
    """The bytes that hub_client.rs writes: byte i is (i * 31 + seed) % 251."""
    return bytes((i * 31 + seed) % 251 for i in range(length))


def raises(kind, status, call):
    try:
        call()
    except kind as error:
        response = getattr(error, "response", None)
        if response is None:
            response = getattr(error.__cause__, "response", None)
        assert status is None or response.status_code == status, (status, response)
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def main():
    with tempfile.TemporaryDirectory() as home:
        # Before the import: the client reads its environment then.
        os.environ["HF_HOME"] = home
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
            os.environ.pop(name, None)
        done = []
        for story in sys.argv[1:] or "information listing download filesystem errors convert upload".split():
            globals()[story](pathlib.Path(home))
            done.append(story)
        import huggingface_hub

        xet = "off" if os.environ.get("HF_HUB_DISABLE_XET") else "on"
        print(f"huggingface_hub {huggingface_hub.__version__}, xet {xet}: {', '.join(done)} passed")


def information(home):
    from huggingface_hub import HfApi

    api = HfApi(token=False)
    info = api.dataset_info("owner/corpus")
    assert info.id == "owner/corpus" and len(info.sha) == 40 and not info.private and info.gated is False
    assert info.card_data.license == "odc-by" and "license:odc-by" in info.tags, info
    assert info.last_modified.year == 2024
    names = [sibling.rfilename for sibling in info.siblings]
    assert len(names) == 14 and "data/part-03.bin" in names, names
    at = api.dataset_info("owner/corpus", revision="v1", files_metadata=True)
    assert at.sha != info.sha and {sibling.rfilename for sibling in at.siblings} == {"README.md"}
    with_sizes = api.dataset_info("owner/corpus", files_metadata=True).siblings
    large = next(sibling for sibling in with_sizes if sibling.rfilename == "data/part-03.bin")
    assert large.size == 300_003 and large.lfs.sha256 == hashlib.sha256(pattern(300_003, 3)).hexdigest()
    only = api.dataset_info("owner/corpus", expand=["sha"])
    assert only.sha == info.sha and only.siblings is None
    assert api.dataset_info("owner/old-corpus").id == "owner/corpus"
    refs = api.list_repo_refs("owner/corpus", repo_type="dataset")
    assert {branch.name for branch in refs.branches} == {"main", "dev/wide"}
    assert [tag.target_commit for tag in refs.tags] == [at.sha]
    assert [convert.ref for convert in refs.converts] == ["refs/convert/parquet"]
    assert HfApi(token=OWNER).whoami()["name"] == "owner"
    assert len(api.list_repo_commits("owner/corpus", repo_type="dataset")) == 3
    assert api.model_info("owner/weights").sha and api.repo_exists("owner/weights")
    assert api.auth_check("owner/weights") is None


def listing(home):
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoFolder

    api = HfApi(token=False)
    entries = list(api.list_repo_tree("owner/corpus", repo_type="dataset", recursive=True))
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    assert len(entries) == 16 and len(files) == 14, [entry.path for entry in entries]
    assert {entry.path for entry in entries if isinstance(entry, RepoFolder)} == {"data", "data/more"}
    large = files["data/part-03.bin"]
    assert large.size == 300_003 and large.lfs.size == 300_003 and large.lfs.pointer_size == 131
    assert large.blob_id != large.lfs.sha256 == hashlib.sha256(pattern(300_003, 3)).hexdigest()
    plain = files["README.md"]
    content = b"---\nlicense: odc-by\n---\n# Corpus\n"
    assert plain.lfs is None and plain.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    top = [entry.path for entry in api.list_repo_tree("owner/corpus", repo_type="dataset", expand=True)]
    assert top == ["README.md", "data"], top
    below = list(api.list_repo_tree("owner/corpus", "data/more", repo_type="dataset", expand=True))
    assert [entry.path for entry in below] == ["data/more/odd name é%+#.txt"] and below[0].last_commit.title
    paths = api.get_paths_info("owner/corpus", ["data", "README.md", "missing"], repo_type="dataset")
    assert [entry.path for entry in paths] == ["data", "README.md"]


def download(home):
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url

    read = lambda path: pathlib.Path(path).read_bytes()
    ask = dict(repo_id="owner/corpus", repo_type="dataset", token=OWNER)
    assert read(hf_hub_download(filename="data/part-03.bin", **ask)) == pattern(300_003, 3)
    assert read(hf_hub_download(filename="README.md", **ask)).startswith(b"---\nlicense")
    assert read(hf_hub_download(filename="data/more/odd name é%+#.txt", **ask)) == b"odd"
    assert read(hf_hub_download("owner/weights", "model.bin")) == pattern(70_000, 9)
    assert read(hf_hub_download("owner/old-corpus", "data/part-01.bin", repo_type="dataset")) == pattern(300_001, 1)
    folder = pathlib.Path(snapshot_download("owner/corpus", repo_type="dataset", max_workers=4))
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert len(found) == 14, found
    for number in range(12):
        assert read(folder / f"data/part-{number:02}.bin") == pattern(300_000 + number, number)
    wide = snapshot_download("owner/corpus", repo_type="dataset", revision="dev/wide", local_dir=home / "wide")
    assert read(pathlib.Path(wide) / "wide.txt") == b"wide"
    url = hf_hub_url("owner/corpus", "data/part-03.bin", repo_type="dataset")
    metadata = get_hf_file_metadata(url)
    assert metadata.size == 300_003 and metadata.etag == hashlib.sha256(pattern(300_003, 3)).hexdigest()
    assert metadata.location != url and len(metadata.commit_hash) == 40


def filesystem(home):
    from huggingface_hub import HfFileSystem

    fs = HfFileSystem(token=OWNER, skip_instance_cache=True)
    path = "datasets/owner/corpus/data/part-05.bin"
    content = pattern(300_005, 5)
    assert fs.info(path)["size"] == 300_005
    with fs.open(path, "rb", block_size=1000) as file:
        file.seek(299_000)
        assert file.read(100) == content[299_000:299_100]
        file.seek(-7, os.SEEK_END)
        assert file.read() == content[-7:]
    assert fs.cat_file(path, start=5, end=2005) == content[5:2005]
    assert fs.cat_file(path) == content
    assert len(fs.glob("datasets/owner/corpus/data/*.bin")) == 12
    assert len(fs.find("datasets/owner/corpus")) == 14
    assert fs.cat_file("datasets/owner/corpus@dev%2Fwide/wide.txt") == b"wide"
    assert not fs.exists("datasets/owner/corpus/data/missing.bin") and not fs.exists("datasets/owner/none")


def errors(home):
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for token, status in ((False, 401), (STRANGER, 403)):
        for name in ("a.bin", "README.md"):
            ask = dict(repo_type="dataset", token=token)
            raises(GatedRepoError, status, lambda: hf_hub_download("owner/gated", name, **ask))
        assert HfApi(token=token).dataset_info("owner/gated").gated == "manual"
    raises(GatedRepoError, 403, lambda: HfApi(token=STRANGER).auth_check("owner/gated", repo_type="dataset"))
    path = hf_hub_download("owner/gated", "a.bin", repo_type="dataset", token=OWNER)
    assert pathlib.Path(path).read_bytes() == pattern(1000, 1)
    for token, status in ((False, 401), (STRANGER, 404)):
        api = HfApi(token=token)
        raises(RepositoryNotFoundError, status, lambda: api.dataset_info("owner/private"))
        raises(RepositoryNotFoundError, status, lambda: api.dataset_info("owner/none"))
        raises(RepositoryNotFoundError, status, lambda: hf_hub_download("owner/none", "a", token=token))
    assert HfApi(token=OWNER).dataset_info("owner/private").private
    api = HfApi(token=False)
    raises(RevisionNotFoundError, 404, lambda: api.dataset_info("owner/corpus", revision="none"))
    ask = dict(repo_type="dataset", token=False)
    raises(RevisionNotFoundError, 404, lambda: hf_hub_download("owner/corpus", "README.md", revision="none", **ask))
    raises(EntryNotFoundError, 404, lambda: hf_hub_download("owner/corpus", "none", **ask))
    raises(EntryNotFoundError, 404, lambda: list(api.list_repo_tree("owner/corpus", "none", repo_type="dataset")))
    error = raises(HfHubHTTPError, 401, lambda: HfApi(token="hf_wrong").dataset_info("owner/corpus"))
    assert not isinstance(error, RepositoryNotFoundError) and "Invalid credentials" in str(error), error
    # Before 1.0 this one was an error of requests.
    raises(Exception, 401, lambda: HfApi(token="hf_wrong").whoami())
    raises(HfHubHTTPError, 403, lambda: HfApi(token=STRANGER).create_repo("owner/new"))


def convert(home):
    from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
    from huggingface_hub.utils import http_backoff

    api = HfApi(token=False)
    ask = dict(repo_type="dataset", revision="refs/convert/parquet")
    tree = list(api.list_repo_tree("owner/corpus", recursive=True, **ask))
    assert [entry.path for entry in tree][-1] == "default/train/0001.parquet", tree
    path = hf_hub_download("owner/corpus", "default/train/0001.parquet", **ask)
    assert pathlib.Path(path).read_bytes() == pattern(5000, 2)
    fs = HfFileSystem(token=False, skip_instance_cache=True)
    converted = "datasets/owner/corpus@refs/convert/parquet/default/train/0000.parquet"
    assert fs.cat_file(converted) == pattern(5000, 1)
    urls = http_backoff("GET", f"{api.endpoint}/api/datasets/owner/corpus/parquet").json()
    assert list(urls) == ["default"] and len(urls["default"]["train"]) == 2, urls
    assert http_backoff("GET", urls["default"]["train"][1]).content == pattern(5000, 2)


def upload(home):
    import pyarrow
    import pyarrow.parquet
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=OWNER)
    name = "owner/uploaded"
    ask = dict(repo_id=name, repo_type="dataset")
    assert str(api.create_repo(**ask)).endswith("/datasets/owner/uploaded")
    raises(HfHubHTTPError, 409, lambda: api.create_repo(**ask))
    api.create_repo(exist_ok=True, **ask)
    folder = home / "folder"
    (folder / "notes").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Uploaded\n")
    (folder / "notes" / "a.txt").write_text("plain")
    objects = {"data/small.bin": pattern(1000, 7), "data/large.bin": pattern(1_234_567, 8)}
    if os.environ.get("HF_HUB_DISABLE_XET"):
        (folder / "data").mkdir()
        for path, content in objects.items():
            (folder / path).write_bytes(content)
        api.upload_folder(folder_path=folder, **ask)
    else:
        # The client would send files through Xet, streams it does not.
        api.upload_folder(folder_path=folder, **ask)
        streams = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in objects.items()]
        api.create_commit(operations=streams, commit_message="Add objects", **ask)
    read = lambda path, **more: pathlib.Path(hf_hub_download(filename=path, token=OWNER, **ask, **more)).read_bytes()
    for path, content in {**objects, "notes/a.txt": b"plain"}.items():
        assert read(path) == content, path
    info = api.dataset_info(name)
    assert info.card_data.license == "mit"
    large = io.BytesIO(objects["data/large.bin"])
    again = [CommitOperationAdd("copy.bin", large), CommitOperationDelete("notes/a.txt")]
    commit = api.create_commit(operations=again, commit_message="Copy", parent_commit=info.sha, **ask)
    names = {entry.path for entry in api.list_repo_tree(name, repo_type="dataset", recursive=True)}
    assert names == {".gitattributes", "README.md", "copy.bin", "data", *objects}, names
    assert api.dataset_info(name).sha == commit.oid and read("notes/a.txt", revision=info.sha) == b"plain"
    late = [CommitOperationAdd("late.txt", b"late")]
    late = dict(operations=late, commit_message="Late", parent_commit=info.sha, **ask)
    raises(HfHubHTTPError, 412, lambda: api.create_commit(**late))
    api.create_branch(branch="side", **ask)
    api.upload_file(path_or_fileobj=b"side", path_in_repo="side.txt", revision="side", **ask)
    assert read("side.txt", revision="side") == b"side" and not api.file_exists(name, "side.txt", repo_type="dataset")
    api.delete_folder("data", **ask)
    assert not api.file_exists(name, "data/small.bin", repo_type="dataset")
    table = pyarrow.table({"text": [f"row {i}" for i in range(5000)], "n": list(range(5000))})
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, row_group_size=500)
    api.upload_file(path_or_fileobj=out, path_in_repo="t.parquet", **ask)
    fs = HfFileSystem(token=OWNER, skip_instance_cache=True)
    file = pyarrow.parquet.ParquetFile(fs.open(f"datasets/{name}/t.parquet", block_size=4096))
    assert file.read_row_group(7, columns=["n"]).column("n").to_pylist() == list(range(3500, 4000))
    assert file.read().equals(table)


def limits(home):
    """Five requests at once where two a second are served: the client waits as long as it is told."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import http_backoff

    url = hf_hub_url("owner/corpus", "README.md", repo_type="dataset")
    for _ in range(5):
        assert http_backoff("GET", url).status_code == 200


if __name__ == "__main__":
    sys.exit(main())
