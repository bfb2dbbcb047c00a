"""What options offer; the libraries behind it are imported only by the command that needs them."""

FAMILIES = ("math", "science", "document", "code", "general")
WAYS = ("pixels", "blur", "inpaint", "tokens", "attention")
FEATURES = ("attention", "value", "odds", "change")  # of every head
AS_SET = "set"  # those of all heads as a set
SOURCES = ("native", "dinov3", "slic", "grid", "random", "voronoi")
LAST_SEED = 8_999_999
DTYPES = ("float32", "bfloat16", "float16")
MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
BITS = (4, 8)
FORMS = ("pixels", "thousand", "coco")
