"""Models whose layers lie on several devices, or on the CPU or the disk until they are needed."""

import json
import sys

import pytest
import torch
from conftest import CLASSES, build_tiny, picture, tiny_config, tiny_image_processor, tiny_tokenizer
from streams import assert_same_spans, only, random_estimator, sampled, without_times
from test_features import QUESTION
from test_loading import save
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from eyeline import features, load
from eyeline.adapters import ADAPTERS
from eyeline.capture import AttentionCapture
from eyeline.estimator import Estimator, Network
from eyeline.events import Error
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint
from eyeline.model import Model
from eyeline.projections import at_hand, is_offloaded
from eyeline.rereading import Without

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
TOKENS = 5


class Stream:
    """Stands in for one of CUDA, which only a CUDA build has."""

    def synchronize(self):
        pass


class Event:
    """Stands in for one of CUDA."""

    def wait(self):
        pass


class Indexing(TorchFunctionMode):
    """Indexes and copies by operators: methods of tensors ask for what a CUDA build has."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__getitem__:
            return self.item(*args)
        if function is torch.Tensor.contiguous:
            return torch.ops.aten.clone(args[0], memory_format=torch.contiguous_format)
        return function(*args, **(kwargs or {}))

    def item(self, tensor, key):
        keys = key if isinstance(key, tuple) else (key,)
        if ... in keys:
            at, rest = keys.index(...), tensor.ndim - sum(each is not None for each in keys) + 1
            keys = keys[:at] + (slice(None),) * rest + keys[at + 1 :]
        dim, chosen = 0, {}
        for each in keys:
            if isinstance(each, int):
                tensor = tensor.select(dim, each)
                continue
            if each is None:
                tensor = tensor.unsqueeze(dim)
            elif isinstance(each, slice):
                tensor = torch.ops.aten.slice(tensor, dim, each.start, each.stop, each.step or 1)
            else:
                chosen[dim] = torch.as_tensor(each, device=tensor.device)
            dim += 1
        return torch.ops.aten.index(tensor, [chosen.get(at) for at in range(dim)]) if chosen else tensor


def lay(model, device, dtype):
    """What `Module.to` does, which fake tensors do not let it do."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(
                    weight.detach().to(device, dtype), requires_grad=False
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


def on_two_devices(family, dtype):
    """A fake model of no values: embedding and first layer on one device, all behind on another."""
    config = tiny_config(family)
    config._attn_implementation = "sdpa"
    hf = CLASSES[family](config).eval()
    adapter = ADAPTERS[family]
    lay(hf, torch.device("cpu"), dtype)
    text = adapter.text_model(hf)
    first, *others = adapter.layers(hf)
    places = {text.get_input_embeddings(): FIRST, first: FIRST}
    places |= {text.rotary_emb: torch.device("cpu")}  # it sets autocast, which a CUDA build has
    places |= dict.fromkeys([*others, adapter.final_norm(hf), adapter.lm_head(hf)], SECOND)
    for module, device in places.items():
        lay(module, device, dtype)

        def bring(_, args, options, device=device):
            return tree_map_only(torch.Tensor, lambda each: each.to(device), (args, options))

        module.register_forward_pre_hook(bring, with_kwargs=True)
    return Model("fake", hf, tiny_tokenizer(family), tiny_image_processor(family), adapter, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_what_layers_on_two_devices_keep_meets_from_the_hooks_to_the_joint_prediction(
    family, dtype, monkeypatch
):
    """Under fake tensors, which raise where devices mix."""
    lent = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(AttentionCapture, "mark", lambda capture: Event())
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: lent.append(tensor.device), raising=False
    )
    real = build_tiny(family)
    inputs = real.inputs(picture(), QUESTION)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = on_two_devices(family, dtype)
        assert model.device == FIRST
    capture = AttentionCapture(model, inputs, outputs=True)  # which needs values, of ids alone
    with mode, Indexing(), torch.inference_mode():
        with pytest.raises(RuntimeError, match="device"):
            torch.ones(2, device=FIRST) + torch.ones(2, device=SECOND)
        run_through(model, capture)
        image, steps = features.read_image(model, capture), capture.take(0, TOKENS)
        labels = torch.arange(6, device=FIRST) % 3
        keys = torch.ones(3, 2, 6, 16, device=FIRST, dtype=dtype)
        without = Without(3, 6, labels, torch.arange(6, device=FIRST), keys, keys)
        parts = features.Parts(labels, 3, torch.ones(3, 6, device=FIRST), without)
        parts.__dict__["own"] = torch.arange(6, device=FIRST)  # these two are made of values
        without.__dict__["_moves"] = torch.ones(6, 3, device=FIRST)
        estimator = random_estimator_of_shape(KINDS).to(FIRST)
        ids = torch.zeros(TOKENS, dtype=torch.long, device=FIRST)
        read = features.read_steps(model, capture, image, steps, ids, parts, KINDS, estimator.of_tokens)
        game = estimator.game(read.features, read.log_odds)
        joint = game.falls(torch.ones(3, 1, device=FIRST))
        for found in (
            *image.columns(slice(None)),
            image.norms,
            steps.queries,
            steps.hidden,
            steps.likeliest.logits,
            read.cells,
            joint,
            game.whole(),
        ):
            assert isinstance(found, FakeTensor)
            assert found.device == FIRST
        assert joint.shape == (TOKENS, 1)
        assert set(lent) == {FIRST, SECOND}, "memory of the cache is not used again before it has been read"


def run_through(model, capture):
    """A pass over the capture's prompt and TOKENS tokens."""
    capture.image_positions = torch.zeros(len(capture.image_positions), dtype=torch.long, device=FIRST)
    rows = capture.prompt_length + TOKENS - 1
    text, head = model.adapter.text_model(model.hf), model.adapter.lm_head(model.hf)
    embeds = torch.zeros(1, rows, 64, device=FIRST, dtype=model.hf.dtype)
    with capture:
        states = text(
            inputs_embeds=embeds,
            position_ids=torch.zeros(3, 1, rows, dtype=torch.long, device=FIRST),
            use_cache=False,
        )
        head(states.last_hidden_state[:, capture.prompt_length - 1 :])


def random_estimator_of_shape(kinds):
    """For three layers of four heads, of no model."""
    shapes = (12 * len(kinds),), (5, 12 * len(kinds)), (5, 12 * len(kinds)), (2, 5), (2, 5)
    network = Network(*(torch.randn(*shape) for shape in shapes))
    return Estimator(
        "random", torch.randn(2, 12 * len(kinds)), torch.ones(2, 3), torch.ones(2, 3), kinds, network=network
    )


@pytest.fixture
def folder(tmp_path):
    return save(build_tiny("qwen3_vl"), tmp_path / "model")


def spans_of(model, estimator):
    with model.stream(picture(), QUESTION, estimator=estimator, **sampled(model)) as stream:
        return without_times(list(stream))


def test_a_model_whose_layers_come_from_the_disk_writes_and_is_attributed_as_one_in_memory(folder, tmp_path):
    """Both threads of a stream run it, the one that attributes for the leak map and to read the image again."""
    pytest.importorskip("accelerate", reason="needs pip install accelerate")
    where = dict.fromkeys(("model.visual", "model.language_model.norm", "lm_head"), "disk")
    where |= {"model.language_model.embed_tokens": "cpu", "model.language_model.rotary_emb": "cpu"}
    where |= {f"model.language_model.layers.{layer}": "disk" for layer in range(1, 3)}
    where |= {"model.language_model.layers.0": "cpu"}
    (tmp_path / "map.json").write_text(json.dumps(where))
    plain, model = load(folder), load(folder, device_map=str(tmp_path / "map.json"))
    assert model.hf.lm_head.weight.is_meta
    assert model.device == torch.device("cpu")
    assert fingerprint(model) == fingerprint(plain)
    estimator = random_estimator(plain)
    (ours, others), (theirs, _) = spans_of(model, estimator), spans_of(plain, estimator)
    assert len(ours) > 2
    assert not only(Error, others)
    assert_same_spans(ours, theirs)


@pytest.fixture
def quick_turns():
    """Threads take turns within microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_turns")
def test_a_model_in_memory_whose_weights_are_fetched_for_each_forward_is_attributed_alike(folder):
    accelerate = pytest.importorskip("accelerate", reason="needs pip install accelerate")
    plain, model = load(folder), load(folder)
    hf = accelerate.cpu_offload(model.hf, "cpu")
    model = load((hf, (model.tokenizer, model.image_processor)))
    head = hf.lm_head
    assert is_offloaded(head)
    with at_hand(head):
        assert torch.equal(head.weight, plain.hf.lm_head.weight)
    assert head.weight.is_meta
    estimator = random_estimator(plain)
    (ours, _), (theirs, _) = spans_of(model, estimator), spans_of(plain, estimator)
    assert_same_spans(ours, theirs)
