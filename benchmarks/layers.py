"""The layers whose products are timed and bounded: {model: {layer: (N, K)}}; and the rows of activations, M."""

LAYERS = {
    "Llama-3-8B": {
        "q, k, v": (6144, 4096),
        "output": (4096, 4096),
        "gate, up": (28672, 4096),
        "down": (4096, 14336),
    },
    "Llama-3-70B, one of 8 GPUs": {
        "q, k, v": (1280, 8192),
        "output": (8192, 1024),
        "gate, up": (7168, 8192),
        "down": (8192, 3584),
    },
    "MiniLM-L6": {"q, k, v, output": (384, 384), "up": (1536, 384), "down": (384, 1536)},
    "EfficientNet-B0, 1x1 convolutions": {
        "expand 16": (96, 16),
        "expand 24": (144, 24),
        "project 144": (40, 144),
        "expand 80": (480, 80),
        "project 672": (112, 672),
        "expand 192": (1152, 192),
        "head": (1280, 320),
    },
}
ROWS = (1, 8, 16, 17, 64, 256, 2048, 8192)

# What a CPU takes of them: a few layers and rows, up to as many multiplications in a product. The reference multiplies
# in float64.
ON_CPU = {
    "Llama-3-8B": ("output",),
    "Llama-3-70B, one of 8 GPUs": ("q, k, v",),
    "MiniLM-L6": ("q, k, v, output", "up", "down"),
    "EfficientNet-B0, 1x1 convolutions": ("expand 24", "project 672", "head"),
}
ROWS_ON_CPU = (1, 16, 128, 1024, 8192)
MOST_ON_CPU = 2**32
MOST_QUICK = 2**25


def products(layers=None, rows=ROWS, most=None):
    """Yields (model, layer, M, N, K), layer by layer."""
    for model, names in (layers or LAYERS).items():
        for layer in names:
            n, k = LAYERS[model][layer]
            for m in rows:
                if most is None or m * n * k <= most:
                    yield model, layer, m, n, k


def on_cpu(quick):
    """Those of a CPU's benchmark."""
    if quick:
        return products({"MiniLM-L6": ON_CPU["MiniLM-L6"]}, (1, 64), MOST_QUICK)
    return products(ON_CPU, ROWS_ON_CPU, MOST_ON_CPU)
