#!/usr/bin/env python3
"""Readers as training and inference have them, and the data they read. What tests, traces and benchmarks of real readers run.

  training.py make-model FOLDER SHARDS BYTES     safetensors shards and their model.safetensors.index.json
  training.py make-checkpoint FILE BYTES         what torch.save writes (by torch)
  training.py make-shards FOLDER SHARDS BYTES    tar shards of samples: jpg, cls, json
  training.py make-images FOLDER FILES           files of 5 to 40 KiB in 100 folders of classes
  training.py load-model FOLDER [--order=file|names|shuffled] [--framework=numpy|torch]
  training.py load-checkpoint FILE               torch.load
  training.py load-shards FOLDER [--workers=4] [--seed=N]
  training.py load-images FOLDER [--workers=8] [--epochs=2] [--seed=N]

The packages themselves where Python has them (safetensors, torch); otherwise what they do with the file is done here, from
their sources: safetensors maps it privately and copies tensor by tensor into a bytearray, over which numpy.frombuffer lays an
array without reading it; WebDataset lets tarfile stream an ordinary file; torchvision's ImageFolder lists, PIL opens, reads
16 bytes and then the rest; torch's DataLoader deals batches out to worker processes, two to each ahead of its need.

Every tensor, member and file carries a checksum over its name and bytes, so a reader notices each wrong or misplaced byte by
itself. A reader prints one line of JSON: items, bytes, seconds (of each epoch), and of listing where there is one.
"""

import argparse
import collections
import concurrent.futures
import ctypes
import functools
import io
import itertools
import json
import mmap
import multiprocessing
import os
import random
import struct
import sys
import tarfile
import time
import zlib

BATCH = 64
BATCHES_AHEAD = 2
CHECKSUM_BYTES = 8
POOL_BYTES = 3_000_017  # no multiple of anything a cache cuts files into: a piece in another's place differs from it
CLASSES = 100


@functools.cache
def xxhash():
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    library.XXH3_64bits_withSeed.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64]
    return library


def checksum(name, data):
    """Of anything that has bytes, without a copy of what can be written to."""
    seed = zlib.crc32(name.encode())
    if isinstance(data, bytes):
        return xxhash().XXH3_64bits_withSeed(data, len(data), seed)
    view = memoryview(data).cast("B")
    return xxhash().XXH3_64bits_withSeed(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view), seed)


@functools.cache
def pool():
    return random.Random(1).randbytes(POOL_BYTES)


def content(name, size):
    """Bytes that belong to this name alone, made quickly."""
    at = zlib.crc32(name.encode()) % POOL_BYTES
    whole = pool()[at:] + pool() * (size // POOL_BYTES + 1)
    return whole[:size]


def sealed(name, size):
    data = content(name, size - CHECKSUM_BYTES)
    return data + struct.pack("<Q", checksum(name, data))


def is_sound(name, data):
    body = bytes(data[:-CHECKSUM_BYTES])
    return len(data) >= CHECKSUM_BYTES and data[-CHECKSUM_BYTES:] == struct.pack("<Q", checksum(name, body))


class WrongBytes(Exception):
    """What was read is not what was written."""


def report(items, size, seconds, **more):
    print(json.dumps({"items": items, "bytes": size, "seconds": seconds, **more}))


# Models

def layer_tensors(layer):
    """Shapes of a small transformer's layer: matrices of F16, norms of F32."""
    name = f"model.layers.{layer}"
    matrices = {f"{name}.self_attn.{part}_proj.weight": (1024, 1024) for part in "kqvo"}
    matrices |= {f"{name}.mlp.{part}_proj.weight": (1024, 2816) for part in ("down", "gate", "up")}
    return [(key, "F16", shape) for key, shape in matrices.items()] + \
        [(f"{name}.{part}_layernorm.weight", "F32", (1024,)) for part in ("input", "post_attention")]


def shard_tensors(layers, size):
    """Layers until the size is reached, and one tensor that fills it. In the file wider types come first, then names."""
    tensors, left = [], size
    for layer in layers:
        more = layer_tensors(layer)
        need = sum(tensor_bytes(dtype, shape) for _, dtype, shape in more)
        if need > left:
            break
        tensors += more
        left -= need
    if left:
        tensors.append((f"model.rest.{layer}.weight", "F16", (left // 2,)))
    return sorted(tensors, key=lambda tensor: (tensor[1] == "F16", tensor[0]))


def tensor_bytes(dtype, shape):
    count = 1
    for length in shape:
        count *= length
    return count * (2 if dtype == "F16" else 4)


def write_shard(path, tensors):
    header, at, sums = {}, 0, {}
    for name, dtype, shape in tensors:
        size = tensor_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        sums[name] = str(checksum(name, content(name, size)))
        at += size
    text = json.dumps({"__metadata__": {"format": "pt", "checksums": json.dumps(sums)}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape in tensors:
            file.write(content(name, tensor_bytes(dtype, shape)))


def make_model(options):
    os.makedirs(options.folder, exist_ok=True)
    weights, total = {}, 0
    for number in range(options.count):
        layers = iter(range(number * 1000, number * 1000 + 1000))
        tensors = shard_tensors(layers, options.bytes // 2 * 2)
        file = f"model-{number + 1:05}-of-{options.count:05}.safetensors"
        write_shard(os.path.join(options.folder, file), tensors)
        weights |= {name: file for name, _, _ in tensors}
        total += sum(tensor_bytes(dtype, shape) for _, dtype, shape in tensors)
    with open(os.path.join(options.folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weights}, file)


class OwnReader:
    """safetensors.safe_open, as far as it is used here, from what its source does."""

    def __init__(self, path, framework):
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        length = struct.unpack("<Q", self.map[:8])[0]
        self.header = json.loads(self.map[8:8 + length])
        self.comments = self.header.pop("__metadata__")
        self.data = 8 + length
        self.storage = torch_storage(path, len(self.map)) if framework == "torch" else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.storage = None
        self.map.close()

    def keys(self):
        return list(self.header)

    def metadata(self):
        return self.comments

    def get_tensor(self, name):
        low, high = (self.data + at for at in self.header[name]["data_offsets"])
        if self.storage is not None:
            return self.storage[low:high]
        with memoryview(self.map) as view, view[low:high] as tensor:
            return bytearray(tensor)


def torch_storage(path, size):
    """A mapping by torch, private, as safetensors asks for with framework="pt"."""
    import torch
    if hasattr(torch.UntypedStorage, "from_file") and int(torch.__version__.split(".")[0]) >= 2:
        return torch.asarray(torch.UntypedStorage.from_file(path, shared=False, nbytes=size), dtype=torch.uint8)
    return torch.tensor([], dtype=torch.uint8).set_(torch.ByteStorage.from_file(path, shared=False, size=size))


def open_shard(path, framework):
    try:
        from safetensors import safe_open
    except ImportError:
        return OwnReader(path, framework)
    return safe_open(path, framework={"numpy": "np", "torch": "pt"}[framework])


def prepare(framework):
    """Their import takes seconds, and is not the cache's."""
    try:
        import safetensors  # noqa: F401
    except ImportError:
        pass
    if framework == "torch":
        import torch  # noqa: F401


def copied(tensor):
    """Torch's tensors lie over the mapping: who wants them on a device, or in a model, copies them there. Others are copies."""
    return tensor.clone().numpy().reshape(-1) if hasattr(tensor, "clone") else tensor


def ordered(names, order):
    if order == "names":
        return sorted(names)
    return random.Random(7).sample(names, len(names)) if order == "shuffled" else names


def load_model(options):
    prepare(options.framework)
    start = time.monotonic()
    with open(os.path.join(options.folder, "model.safetensors.index.json"), encoding="utf-8") as file:
        weights = json.load(file)["weight_map"]
    count, size = 0, 0
    for file in sorted(set(weights.values())):
        with open_shard(os.path.join(options.folder, file), options.framework) as shard:
            sums = json.loads(shard.metadata()["checksums"])
            for name in ordered(list(shard.keys()), options.order):
                data = copied(shard.get_tensor(name))
                if checksum(name, data) != int(sums[name]) or weights[name] != file:
                    raise WrongBytes(f"{file}: {name}")
                count += 1
                size += memoryview(data).nbytes
    if count != len(weights):
        raise WrongBytes(f"{count} tensors of {len(weights)}")
    report(count, size, [time.monotonic() - start])


def make_checkpoint(options):
    import torch
    state, sums, size = {}, {}, 0
    for name, dtype, shape in itertools.chain.from_iterable(map(layer_tensors, itertools.count())):
        data = bytearray(content(name, tensor_bytes(dtype, shape)))
        sums[name] = checksum(name, data)
        state[name] = torch.frombuffer(data, dtype=torch.float16 if dtype == "F16" else torch.float32).reshape(shape)
        size += len(data)
        if size >= options.bytes:
            break
    torch.save({"state": state, "checksums": sums}, options.file)


def load_checkpoint(options):
    import torch
    start = time.monotonic()
    loaded = torch.load(options.file, map_location="cpu")
    size = 0
    for name, tensor in loaded["state"].items():
        data = tensor.numpy().reshape(-1)
        if checksum(name, data) != loaded["checksums"][name]:
            raise WrongBytes(name)
        size += data.nbytes
    report(len(loaded["state"]), size, [time.monotonic() - start])


# Loaders of many processes

def make_shards(options):
    os.makedirs(options.folder, exist_ok=True)
    for shard in range(options.count):
        numbers = random.Random(shard)
        with tarfile.open(os.path.join(options.folder, f"shard-{shard:06}.tar"), "w") as tar:
            sample = 0
            while tar.offset < options.bytes - (1 << 16):
                key = f"{shard:06}{sample:06}"
                picture = sealed(f"{key}.jpg", numbers.randrange(20 << 10, 200 << 10))
                label = b"%d" % numbers.randrange(1000)
                about = {"jpg": zlib.crc32(picture), "cls": zlib.crc32(label), "width": 224, "height": 224}
                for suffix, data in (("jpg", picture), ("cls", label), ("json", json.dumps(about).encode())):
                    entry = tarfile.TarInfo(f"{key}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                sample += 1


def samples_of(path):
    """Members of one key, one sample after the other."""
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as stream:
        key, sample = None, {}
        for member in stream:
            stem, suffix = member.name.split(".", 1)
            if stem != key and sample:
                yield key, sample
                sample = {}
            key = stem
            sample[suffix] = stream.extractfile(member).read()
            stream.members = []
        if sample:
            yield key, sample


def load_own_shards(folder, shards):
    count, size = 0, 0
    for shard in shards:
        for key, sample in samples_of(os.path.join(folder, shard)):
            about = json.loads(sample["json"])
            if not is_sound(f"{key}.jpg", sample["jpg"]) or zlib.crc32(sample["cls"]) != about["cls"]:
                raise WrongBytes(f"{shard}: {key}")
            count += 1
            size += sum(len(data) for data in sample.values())
    return count, size


def processes(count, **more):
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork"), **more)


def load_shards(options):
    """Shards in an order of the seed, dealt out to the workers; each streams its own."""
    start = time.monotonic()
    shards = sorted(name for name in os.listdir(options.folder) if name.endswith(".tar"))
    random.Random(options.seed).shuffle(shards)
    with processes(options.workers) as workers:
        own = [workers.submit(load_own_shards, options.folder, shards[worker::options.workers])
               for worker in range(options.workers)]
        done = [each.result() for each in own]
    report(sum(count for count, _ in done), sum(size for _, size in done), [time.monotonic() - start])


def make_images(options):
    numbers = random.Random(3)
    for label in range(CLASSES):
        os.makedirs(os.path.join(options.folder, f"n{label:08}"), exist_ok=True)
    for image in range(options.count):
        name = f"n{image % CLASSES:08}/{image:08}.JPEG"
        with open(os.path.join(options.folder, name), "wb") as file:
            file.write(sealed(name, numbers.randrange(5 << 10, 40 << 10)))


def list_images(root):
    """(path, class) of each, as ImageFolder finds them: sorted, a folder after the other."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    return [(os.path.join(folder, name), label) for label, name_of_class in enumerate(classes)
            for folder, _, names in sorted(os.walk(os.path.join(root, name_of_class), followlinks=True))
            for name in sorted(names) if name.lower().endswith((".jpg", ".jpeg", ".png"))]


def begin_worker(samples):
    global worker_samples  # pylint: disable=global-variable-undefined
    worker_samples = samples


def load_batch(batch):
    """Pictures of these numbers; the checksum stands for decoding."""
    size = 0
    for number in batch:
        path, label = worker_samples[number]
        with open(path, "rb") as file:
            data = file.read(16)
            data += file.read()
        name = "/".join(path.split("/")[-2:])
        if not is_sound(name, data) or int(name[1:9]) != label:
            raise WrongBytes(name)
        size += len(data)
    return len(batch), size


def load_images(options):
    start = time.monotonic()
    samples = list_images(options.folder)
    listing = time.monotonic() - start
    seconds, count, size = [], 0, 0
    for epoch in range(options.epochs):
        start = time.monotonic()
        order = list(range(len(samples)))
        random.Random(options.seed + epoch).shuffle(order)
        batches = (order[at:at + BATCH] for at in range(0, len(order), BATCH))
        with processes(options.workers, initializer=begin_worker, initargs=(samples,)) as workers:
            ahead = collections.deque(workers.submit(load_batch, batch)
                                      for batch in itertools.islice(batches, options.workers * BATCHES_AHEAD))
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(workers.submit(load_batch, batch) for batch in itertools.islice(batches, 1))
                count += done[0]
                size += done[1]
        seconds.append(time.monotonic() - start)
    report(count, size, seconds, listing=listing)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    def command(act, *positional, **options):
        sub = commands.add_parser(act.__name__.replace("_", "-"))
        sub.set_defaults(act=act)
        for name in positional:
            sub.add_argument(name, type=str if name in ("folder", "file") else int)
        for name, default in options.items():
            choices = default if isinstance(default, list) else None
            sub.add_argument(f"--{name}", default=default[0] if choices else default, choices=choices,
                             type=str if choices else int)
    command(make_model, "folder", "count", "bytes")
    command(make_checkpoint, "file", "bytes")
    command(make_shards, "folder", "count", "bytes")
    command(make_images, "folder", "count")
    command(load_model, "folder", order=["file", "names", "shuffled"], framework=["numpy", "torch"])
    command(load_checkpoint, "file")
    command(load_shards, "folder", workers=4, seed=1)
    command(load_images, "folder", workers=8, epochs=2, seed=1)
    return parser.parse_args()


def main():
    options = parse_arguments()
    try:
        options.act(options)
    except WrongBytes as wrong:
        sys.exit(f"wrong bytes: {wrong}")


if __name__ == "__main__":
    main()
