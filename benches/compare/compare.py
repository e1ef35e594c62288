"""Has this program and its peers take turns on the same tokens and prints medians and ratios; see `run`."""

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
CPU_PEERS = ["patcher", "blocked"]
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


class Side:
    """A program that has loaded its model and waits for its turn."""

    def __init__(self, name, command, threads):
        self.name = name
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **turn):
        print(json.dumps(turn, default=str), file=self.process.stdin, flush=True)

    def answer(self):
        """Seconds and CPU seconds."""
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} ended with {self.process.wait()}")
        return tuple(float(number) for number in answer.split())


def peer(way, folder, options, *more):
    command = [sys.executable, HERE / "peer.py", "--way", way, "--model", folder, "--threads", str(options.threads), *more]
    return Side(way, command, options.threads)


def turns_of(sides, n_tokens, settings, options):
    """Entropies of all, and seconds and CPU seconds of each turn, by side and setting."""
    took = {(side.name, setting): [] for side in sides for setting in settings}
    work = options.work

    def ask(side, length, wanted):
        side.ask(tokens=work / f"tokens-{length}", length=length, wanted=wanted, scores=work / f"scores-{side.name}-{length}")

    # All at once to warm up: models are read and kernels compiled.
    for setting in settings:
        for side in sides:
            ask(side, *setting)
        for side in sides:
            side.answer()
    entropies = {}
    for turn in range(options.runs):
        print(f"turn {turn + 1} of {options.runs}, seconds:", end="", file=sys.stderr)
        for length, wanted in settings:
            for side in sides:
                ask(side, length, wanted)
                answer = side.answer()
                took[side.name, (length, wanted)].append(answer)
                print(f" {side.name} {answer[0]:.2f}", end="", file=sys.stderr, flush=True)
                if side.name not in PRODUCTS:
                    scores = numpy.fromfile(work / f"scores-{side.name}-{length}", dtype="<f4")
                    entropies[side.name, (length, wanted)] = scores[:n_tokens]
        print(file=sys.stderr)
    for side in sides:
        side.process.stdin.close()
        side.process.wait()
    return took, entropies


def rate(n_tokens, length, times):
    """Bytes a second; BOS and EOS are no bytes."""
    return n_tokens * (length - 2) / length / statistics.median(times)


def compare(name, folder, n_tokens, options):
    for length in LENGTHS:
        write_tokens(options.work / f"tokens-{length}", n_tokens, length)
    peers = [way for way in CPU_PEERS if way not in options.without]
    sides = [Side("ours", [options.ours, "--model", folder], options.threads)]
    sides += [peer(way, folder, options) for way in [*peers, "products"]]
    if "flex products" not in options.without:
        sides.append(Side("flex products", [options.products, "--model", folder], options.threads))
    took, entropies = turns_of(sides, n_tokens, [(length, "all") for length in LENGTHS], options)
    different = max(
        float(abs(entropies[way, setting] - entropies["ours", setting]).max())
        for way, setting in entropies if way in peers
    )
    print(f"\n{name} model, {n_tokens} tokens, {options.threads} threads, {options.runs} runs in turns; "
          f"entropies differ by at most {different:.1e}")
    if not different < LARGEST_DIFFERENCE:
        sys.exit("the results are different, so the times do not compare")
    rates = {}
    for (way, (length, _)), runs in took.items():
        times, cpu = zip(*runs)
        rates[way, length] = rate(n_tokens, length, times)
        print(f"  {way:13} contexts of {length}: median {rates[way, length]:8.0f} bytes/s, "
              f"{statistics.median(cpu) / statistics.median(times):.2f} cores; seconds "
              + " ".join(f"{t:.2f}" for t in times))
    best = lambda ways: max((rate, key) for key, rate in rates.items() if key[0] in ways)
    (ours, _), (theirs, (way, length)) = best(["ours"]), best(peers)
    products, (way_of_products, _) = best(PRODUCTS)
    print(f"  share of the faster plain products ({way_of_products}): {ours / products:.2f}")
    print(f"  ratio to the faster peer ({way}, contexts of {length}): {ours / theirs:.2f}")


def compare_on_gpu(folder, n_tokens, options):
    """The full model in 16 bits, with everything read back and with entropies alone."""
    length = 8192
    write_tokens(options.work / f"tokens-{length}", n_tokens, length)
    sides = [Side("ours", [options.ours, "--model", folder, "--device", "gpu"], options.threads)]
    for way, batch in GPU_BATCHES.items():
        sides.append(peer(way, folder, options, "--device", "cuda", "--dtype", "bf16", "--batch", str(batch)))
    settings = [(length, "all"), (length, "entropies")]
    took, entropies = turns_of(sides, n_tokens, settings, options)
    for setting in settings:
        spread = float(entropies["ours", setting].std())
        print(f"\nfull model on a GPU, {n_tokens} tokens, {options.runs} runs in turns, {setting[1]} read back; "
              f"entropies have a standard deviation of {spread:.2f} nats")
        times = {side.name: [seconds for seconds, _ in took[side.name, setting]] for side in sides}
        for way, seconds in times.items():
            different = float(abs(entropies[way, setting] - entropies["ours", setting]).mean())
            ratio = statistics.median(seconds) / statistics.median(times["ours"])
            print(f"  {way:9} median {rate(n_tokens, length, seconds) / 1e6:5.2f} MB/s, ours is {ratio:4.2f} times as fast; "
                  f"mean difference {different:.1e} nats; seconds " + " ".join(f"{t:.2f}" for t in seconds))
            if not different < LARGEST_MEAN_DIFFERENCE:
                sys.exit("the results are different, so the times do not compare")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("device", choices=["cpu", "gpu"])
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--products", help="not for a GPU")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["full", "small"])
    parser.add_argument("--without", choices=[CPU_PEERS[0], PRODUCTS[1]], action="append", default=[],
                        help="on a CPU, leave out a side that would not be the fastest")
    parser.add_argument("--tokens", type=int, default=8192, help="of the full model's stream; the small one's is 8 times as long, a GPU's 64 times")
    options = parser.parse_args()
    if options.tokens <= 0 or options.tokens % max(LENGTHS):
        parser.error(f"--tokens must be a multiple of {max(LENGTHS)}: whole contexts")
    if options.device == "gpu":
        return compare_on_gpu(full_model(options.work), 64 * options.tokens, options)
    if options.only != "small":
        compare("full", full_model(options.work), options.tokens, options)
    if options.only != "full":
        compare("small", small_model(options.work), 8 * options.tokens, options)


main()
