"""Runs this program and its peers in turns on the same tokens and prints medians and ratios; see `run`."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import numpy
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = {"cpu": ["patcher", "blocked"], "gpu": ["patcher", "blocked", "compiled", "flex"]}
# The products alone, of both sides' libraries: no peers, but what there is to reach.
PRODUCTS = ["products", "flex products"]
LENGTHS = [2048, 8192]
# Both sides compute in f32; what differs by more was computed differently.
LARGEST_DIFFERENCE = 1e-3
# On a GPU 16 bits differ, and not on both sides in the same way: it is the mean that must be small.
LARGEST_MEAN_DIFFERENCE = 0.02
# Contexts of 8,192 that each way takes at a time on a GPU: what it was fastest with.
GPU_BATCHES = {"patcher": 4, "blocked": 8, "compiled": 8, "flex": 8}
FULL = {
    "dim": 768, "n_layers": 14, "n_heads": 12, "ffn_dim_multiplier": 1.0, "multiple_of": 256, "norm_eps": 1e-5,
    "rope_theta": 10000.0, "max_seqlen": 8192, "vocab_size": 260, "sliding_window": 512,
    "attn_bias_type": "local_block_causal", "eos_id": 2, "weight_tying": False,
}


def full_model(work):
    """The released model's shape with random weights: they are enough to measure speed."""
    folder = work / "full"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        dim, hidden = FULL["dim"], 2048

        def weight(n_out, n_in):
            return torch.randn(n_out, n_in, generator=generator) / n_in**0.5

        tensors = {"tok_embeddings.weight": weight(260, dim) * dim**0.5, "output.weight": weight(260, dim), "norm.weight": torch.ones(dim)}
        for i in range(FULL["n_layers"]):
            for name in ("attention_norm", "ffn_norm"):
                tensors[f"layers.{i}.{name}.weight"] = torch.ones(dim)
            for name in ("wq", "wk", "wv", "wo"):
                tensors[f"layers.{i}.attention.{name}.weight"] = weight(dim, dim)
            for name, shape in (("w1", (hidden, dim)), ("w2", (dim, hidden)), ("w3", (hidden, dim))):
                tensors[f"layers.{i}.feed_forward.{name}.weight"] = weight(*shape)
        (folder / "config.json").write_text(json.dumps({"args": FULL}))
        save_file(tensors, folder / "model.safetensors")
    return folder


def small_model(work):
    """The embedded model in f32, so that both sides read the same numbers."""
    from safetensors.torch import load_file

    folder = work / "small"
    folder.mkdir(exist_ok=True)
    source = ROOT / "models/small"
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    save_file({name: tensor.float() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def write_tokens(file, n_tokens, length):
    """Contexts of `length` tokens, BOS and EOS included, of the quickstart's texts over and over."""
    text = b"".join(path.read_bytes() for path in sorted((ROOT / "pipelines/quickstart/text").glob("*.txt")))
    n = n_tokens // length
    body = numpy.resize(numpy.frombuffer(text, dtype=numpy.uint8), n * (length - 2)).reshape(n, length - 2)
    tokens = numpy.empty((n, length), dtype="<u2")
    tokens[:, 0], tokens[:, 1:-1], tokens[:, -1] = 1, body + numpy.uint16(4), 2
    tokens.tofile(file)


def once(command, environment):
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()[-2:]]


def compare(name, folder, device, n_tokens, options):
    work = options.work
    environment = dict(os.environ, RAYON_NUM_THREADS=str(options.threads), OMP_NUM_THREADS=str(options.threads))
    turns = []
    for length in LENGTHS:
        tokens = work / f"tokens-{length}"
        write_tokens(tokens, n_tokens, length)
        same = ["--model", folder, "--tokens", tokens, "--length", str(length)]
        turns.append(("ours", length, [options.ours, *same]))
        turns.append(("flex products", length, [options.products, *same]))
        for way in [*PEERS[device], "products"]:
            command = [sys.executable, HERE / "peer.py", "--way", way, "--device", device, "--threads", str(options.threads)]
            turns.append((way, length, [*command, *same]))
    seconds = {turn[:2]: [] for turn in turns}
    different = 0.0
    for _ in range(options.runs):
        for way, length, command in turns:
            scores = work / f"scores-{way}-{length}"
            seconds[way, length].append(once([*command, "--scores", scores], environment))
            if way in PEERS[device]:
                # The first half are entropies.
                ours, theirs = (numpy.fromfile(work / f"scores-{w}-{length}", dtype="<f4")[:n_tokens] for w in ("ours", way))
                different = max(different, float(abs(ours - theirs).max()))

    print(f"\n{name} model, {n_tokens} tokens, {options.threads} threads, {options.runs} runs in turns; "
          f"entropies differ by at most {different:.1e}")
    if not different < LARGEST_DIFFERENCE:
        sys.exit("the results are different, so the times do not compare")
    rates = {}
    for (way, length), runs in seconds.items():
        times, cpu = zip(*runs)
        # BOS and EOS are no bytes.
        rates[way, length] = n_tokens * (length - 2) / length / statistics.median(times)
        print(f"  {way:13} contexts of {length}: median {rates[way, length]:8.0f} bytes/s, "
              f"{statistics.median(cpu) / statistics.median(times):.2f} cores; seconds "
              + " ".join(f"{t:.2f}" for t in times))
    best = lambda ways: max((rate, key) for key, rate in rates.items() if key[0] in ways)
    (ours, _), (theirs, (way, length)) = best(["ours"]), best(PEERS[device])
    products, (way_of_products, _) = best(PRODUCTS)
    print(f"  share of the faster plain products ({way_of_products}): {ours / products:.2f}")
    print(f"  ratio to the faster peer ({way}, contexts of {length}): {ours / theirs:.2f}")


def compare_on_gpu(folder, n_tokens, options):
    """The full model in 16 bits, with everything read back and with entropies alone."""
    work, length = options.work, 8192
    tokens = work / f"tokens-{length}"
    write_tokens(tokens, n_tokens, length)
    for wanted in ("all", "entropies"):
        same = ["--model", folder, "--tokens", tokens, "--length", str(length), "--wanted", wanted]
        # Without the flag this program gives everything.
        turns = {"ours": [options.ours, *(same if wanted == "entropies" else same[:-2]), "--device", "gpu"]}
        for way, batch in GPU_BATCHES.items():
            kind = ["--way", way, "--device", "cuda", "--dtype", "bf16", "--batch", str(batch)]
            turns[way] = [sys.executable, HERE / "peer.py", *kind, *same]
        seconds = {way: [] for way in turns}
        entropies = {}
        for _ in range(options.runs):
            for way, command in turns.items():
                scores = work / f"scores-{way}-{length}"
                seconds[way].append(once([*command, "--scores", scores], os.environ)[0])
                entropies[way] = numpy.fromfile(scores, dtype="<f4")[:n_tokens]
        rates = {way: n_tokens * (length - 2) / length / statistics.median(times) for way, times in seconds.items()}
        print(f"\nfull model on a GPU, {n_tokens} tokens, {options.runs} runs in turns, {wanted} read back")
        for way, times in seconds.items():
            different = float(abs(entropies[way] - entropies["ours"]).mean())
            print(f"  {way:9} median {rates[way] / 1e6:5.2f} MB/s, ours is {rates['ours'] / rates[way]:4.2f} times as fast; "
                  f"mean difference {different:.1e} nats; seconds " + " ".join(f"{t:.2f}" for t in times))
            if not different < LARGEST_MEAN_DIFFERENCE:
                sys.exit("the results are different, so the times do not compare")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("device", choices=PEERS)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--products", help="not for a GPU")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["full", "small"])
    parser.add_argument("--tokens", type=int, default=8192, help="of the full model's stream; the small one's is 8 times as long, a GPU's 64 times")
    options = parser.parse_args()
    if options.device == "gpu":
        return compare_on_gpu(full_model(options.work), 64 * options.tokens, options)
    if options.only != "small":
        compare("full", full_model(options.work), options.device, options.tokens, options)
    if options.only != "full":
        compare("small", small_model(options.work), options.device, 8 * options.tokens, options)


main()
