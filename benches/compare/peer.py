"""A peer of this program: PyTorch scores streams of contexts of one length. Loads the model, then takes turns: each line
of its input is a turn in JSON (`tokens`, u16 little-endian, contexts end to end; `length` of a context; `wanted`, "all" or
"entropies", what leaves the device; `scores`, the file that entropies and norms go to, f32 little-endian, for the comparison
to be one of like with like), and is answered with the seconds and the CPU seconds that it took.

Each way computes entropies, L2 norms and hidden states before the final norm:
  patcher   transformers' BltPatcher, its sliding window on
  blocked   plain layers; blocks of queries attend to the keys of the window before them
  compiled  the same through torch.compile
  flex      plain layers, compiled flex_attention with the window as its block mask
  products  no model, only its matrix products: what a plain product of these shapes allows
"""

import argparse
import functools
import json
import pathlib
import sys
import time

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def config_of(folder):
    args = json.loads((folder / "config.json").read_text())["args"]
    heads = args.get("n_heads") or args["dim"] // args["head_dim"]
    hidden = int((args.get("ffn_dim_multiplier") or 1.0) * int(8 * args["dim"] / 3))
    multiple = args["multiple_of"]
    return {
        "dim": args["dim"],
        "layers": args["n_layers"],
        "heads": heads,
        "hidden": -(-hidden // multiple) * multiple,
        "window": args["sliding_window"],
        "theta": args["rope_theta"],
        "eps": args["norm_eps"],
        "context": args["max_seqlen"],
    }


def patcher(folder, config):
    from transformers.models.blt.configuration_blt import BltPatcherConfig
    from transformers.models.blt.modeling_blt import BltPatcher

    settings = BltPatcherConfig(
        hidden_size=config["dim"],
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        intermediate_size=config["hidden"],
        sliding_window=config["window"],
        rms_norm_eps=config["eps"],
        max_position_embeddings=config["context"],
        rope_parameters={"rope_type": "default", "rope_theta": config["theta"]},
    )
    settings._attn_implementation = "sdpa"
    model = BltPatcher(settings)
    names = {
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "tok_embeddings": "embed_tokens",
        "output": "lm_head",
    }
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for ours, theirs in names.items():
            name = name.replace(f"{ours}.weight", f"{theirs}.weight")
        weights[name] = tensor
    model.load_state_dict(weights, strict=True)
    seen = {}
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.update(hidden=inputs[0]))

    def score(tokens):
        entropies, _, _ = model(input_ids=tokens)
        return entropies, seen["hidden"].float().norm(dim=-1), seen["hidden"]

    return model, score


class Layer(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, hidden = config["dim"], config["hidden"]
        linear = lambda n_in, n_out: torch.nn.Linear(n_in, n_out, bias=False)
        self.heads, self.eps = config["heads"], config["eps"]
        self.attention_norm = torch.nn.Parameter(torch.empty(dim))
        self.ffn_norm = torch.nn.Parameter(torch.empty(dim))
        # Products of one input are one product, which is the faster way here as well.
        self.qkv, self.wo = linear(dim, 3 * dim), linear(dim, dim)
        self.w13, self.w2 = linear(dim, 2 * hidden), linear(hidden, dim)

    def forward(self, x, turn, attend):
        batch, n, dim = x.shape
        qkv = self.qkv(F.rms_norm(x, (dim,), self.attention_norm, self.eps))
        q, k, v = qkv.view(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = attend(rotated(q, turn), rotated(k, turn), v)
        x = x + self.wo(out.transpose(1, 2).reshape(batch, n, dim))
        gate, up = self.w13(F.rms_norm(x, (dim,), self.ffn_norm, self.eps)).chunk(2, dim=-1)
        return x + self.w2(F.silu(gate) * up)


def rotated(x, turn):
    cos, sin = turn
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)


class Plain(torch.nn.Module):
    """The model as one would write it; `attend` is the way to attend."""

    def __init__(self, folder, config, attend):
        super().__init__()
        self.config, self.attend = config, attend
        self.embedding = torch.nn.Embedding(260, config["dim"])
        self.layers = torch.nn.ModuleList(Layer(config) for _ in range(config["layers"]))
        self.norm = torch.nn.Parameter(torch.empty(config["dim"]))
        self.output = torch.nn.Linear(config["dim"], 260, bias=False)
        stored = load_file(folder / "model.safetensors")
        weights = {
            "embedding.weight": stored["tok_embeddings.weight"],
            "norm": stored["norm.weight"],
            "output.weight": stored["output.weight"],
        }
        for i in range(config["layers"]):
            part = lambda name: stored[f"layers.{i}.{name}.weight"]
            weights[f"layers.{i}.attention_norm"] = part("attention_norm")
            weights[f"layers.{i}.ffn_norm"] = part("ffn_norm")
            weights[f"layers.{i}.qkv.weight"] = torch.cat([part(f"attention.w{c}") for c in "qkv"])
            weights[f"layers.{i}.wo.weight"] = part("attention.wo")
            weights[f"layers.{i}.w13.weight"] = torch.cat([part(f"feed_forward.w{c}") for c in "13"])
            weights[f"layers.{i}.w2.weight"] = part("feed_forward.w2")
        self.load_state_dict(weights, strict=True)

    def forward(self, tokens):
        dim, head = self.config["dim"], self.config["dim"] // self.config["heads"]
        rates = 1.0 / self.config["theta"] ** (torch.arange(0, head, 2, device=tokens.device).float() / head)
        angles = torch.arange(tokens.shape[1], device=tokens.device).float()[:, None] * rates
        turn = angles.cos(), angles.sin()
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, turn, self.attend)
        logits = self.output(F.rms_norm(x, (dim,), self.norm, self.config["eps"]))
        logp = logits.float().log_softmax(dim=-1)
        return -(logp.exp() * logp).sum(dim=-1), x.float().norm(dim=-1), x


def blocked(window, block):
    """Blocks of queries, each against the keys of its window: the blocks of a context are a dimension of the
    batch on a GPU, and one after the other on a CPU, whose cache they share."""
    masks = {}

    def attend(q, k, v):
        n, place = q.shape[2], q.device
        if place.type == "cpu":
            outputs = []
            for start in range(0, n, block):
                end, first = min(start + block, n), max(0, start - window + 1)
                mask = masks.get((start - first, end - start))
                if mask is None:
                    i, j = torch.arange(start, end)[:, None], torch.arange(first, end)
                    mask = masks[start - first, end - start] = (j <= i) & (j > i - window)
                keys, values = k[:, :, first:end], v[:, :, first:end]
                outputs.append(F.scaled_dot_product_attention(q[:, :, start:end], keys, values, attn_mask=mask))
            return torch.cat(outputs, dim=2)
        # Blocks of one window see themselves and the block before.
        batch, heads, _, head = q.shape
        blocks = n // window
        queries = q.view(batch, heads, blocks, window, head)

        def with_previous(x):
            x = F.pad(x, (0, 0, window, 0)).unfold(2, 2 * window, window)
            return x.transpose(-1, -2)

        i, j = torch.arange(window, device=place)[:, None] + window, torch.arange(2 * window, device=place)
        seen = (j <= i) & (j > i - window)
        seen = seen & ((torch.arange(blocks, device=place) > 0)[:, None, None] | (j >= window))
        fold = lambda x: x.transpose(1, 2).flatten(0, 1)
        mask = seen.repeat(batch, 1, 1)[:, None]
        out = F.scaled_dot_product_attention(fold(queries), fold(with_previous(k)), fold(with_previous(v)), attn_mask=mask)
        return out.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)

    return attend


def flex(window, length, device):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    seen = lambda b, h, i, j: (j <= i) & (j > i - window)
    mask = create_block_mask(seen, None, None, length, length, device=device)
    return lambda q, k, v: flex_attention(q, k, v, block_mask=mask)


def products(folder, config):
    model = Plain(folder, config, attend=None)
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    inputs = {}

    def score(tokens):
        for linear in linears:
            shape = tokens.numel(), linear.in_features
            if shape not in inputs:
                inputs[shape] = torch.randn(shape).to(linear.weight)
            linear(inputs[shape])
        nothing = torch.zeros(tokens.shape)
        return nothing, nothing, nothing

    return model, score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", required=True, choices=["patcher", "blocked", "compiled", "flex", "products"])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=1, help="contexts at a time")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32", choices=["f32", "f16", "bf16"])
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = config_of(options.model)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[options.dtype]

    @functools.cache
    def scorer(length):
        """The way to score contexts of that length; only the mask of `flex` depends on it."""
        if options.way == "patcher":
            model, score = patcher(options.model, config)
        elif options.way == "products":
            model, score = products(options.model, config)
        else:
            attend = blocked(config["window"], 256)
            if options.way == "flex":
                attend = flex(config["window"], length, options.device)
            model = Plain(options.model, config, attend)
            score = model if options.way == "blocked" else torch.compile(model, dynamic=False)
        model.to(options.device, dtype).eval()
        return score

    def landing(scores, wanted):
        """On a GPU the results are copied while the next batch is computed."""
        entropies, norms, hidden = scores
        parts = [entropies.float(), norms] + ([hidden] if wanted == "all" else [])
        if options.device == "cpu":
            return lambda: parts
        copies = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
        for copy, part in zip(copies, parts):
            copy.copy_(part, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return lambda: done.synchronize() or copies

    def run(score, batches, wanted):
        results, flights = [], []
        for batch in batches:
            flights.append(landing(score(batch.to(options.device)), wanted))
            if len(flights) == 2:
                results.append(flights.pop(0)()[:2])
        return results + [flight()[:2] for flight in flights]

    for line in sys.stdin:
        turn = json.loads(line)
        tokens = numpy.fromfile(turn["tokens"], dtype="<u2").astype(numpy.int64)
        batches = torch.from_numpy(tokens).view(-1, turn["length"]).split(options.batch)
        # Only the mask of `flex` is made for one length.
        score = scorer(turn["length"] if options.way == "flex" else None)
        with torch.inference_mode():
            start, cpu = time.perf_counter(), time.process_time()
            results = run(score, batches, turn["wanted"])
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        entropies, norms = (torch.cat([result[i].flatten() for result in results]) for i in (0, 1))
        torch.cat((entropies, norms)).numpy().astype("<f4").tofile(turn["scores"])
        print(seconds, cpu, flush=True)


main()
