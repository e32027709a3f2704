"""Image encoders keep their contract, on tiny random weights; the real ones know a bicycle from a cat."""

import json

import cv2
import numpy as np
import pytest
import timm
import torch
from perdure.errors import BadInput, WeightsError
from perdure.perception import imagenet_bridge
from perdure.perception.encoders import OpenClipEncoder, load_image_encoder
from perdure.perception.imagenet_bridge import ImagenetBridge, load_imagenet_bridge, to_timm
from perdure.perception.text import HashingTextEncoder
from perdure.runtime import weights

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in [(64, 64), (40, 100), (200, 50)]]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random open_clip model, as a folder."""
    import open_clip

    root = tmp_path_factory.mktemp("tiny-clip")
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (root / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**model).state_dict(), root / "open_clip_pytorch_model.bin")
    return root


@pytest.fixture(scope="module")
def clip(clip_folder):
    return OpenClipEncoder(f"local-dir:{clip_folder}", vocabulary=["a cup", "a door", "a cat"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random EfficientNet-Lite0 under the names of the published checkpoint."""
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0")
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    torch.save(published_names(model), path)
    return path


def published_names(model):
    """The checkpoint's own order of tensors is that of the modules: names made without the mapping under test."""
    names = ["_conv_stem.weight", *norm("_bn0")]
    for block in range(16):
        if block:
            names += [f"_blocks.{block}._expand_conv.weight", *norm(f"_blocks.{block}._bn0")]
        names += [f"_blocks.{block}._depthwise_conv.weight", *norm(f"_blocks.{block}._bn1")]
        names += [f"_blocks.{block}._project_conv.weight", *norm(f"_blocks.{block}._bn2")]
    names += ["_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]
    return dict(zip(names, model.state_dict().values(), strict=True))


def norm(at):
    return [f"{at}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


@pytest.fixture(scope="module")
def bridge(checkpoint):
    text = HashingTextEncoder()
    names = [f"noun{i}" for i in range(1000)]
    return ImagenetBridge(checkpoint, text, names, text.encode_texts(names))


@pytest.fixture(params=["clip", "bridge"])
def encoder(request):
    return request.getfixturevalue(request.param)


def test_images_become_unit_rows_of_the_space(encoder):
    out = encoder.encode_images(PICTURES)
    assert (out.shape, out.dtype) == ((3, encoder.space.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)
    assert encoder.encode_images([]).shape == (0, encoder.space.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.space.dim)


def test_an_image_has_the_same_bytes_in_any_company(encoder):
    together = encoder.encode_images(PICTURES)
    alone = [encoder.encode_images([p])[0] for p in reversed(PICTURES)][::-1]
    assert together.tobytes() == np.stack(alone).tobytes()
    assert encoder.look(PICTURES[1]).vector.tobytes() == together[1].tobytes()


def test_a_view_with_negative_strides_is_an_image_too(encoder):
    flipped = PICTURES[1][..., ::-1]
    assert np.array_equal(encoder.encode_images([flipped]), encoder.encode_images([flipped.copy()]))
    assert not np.array_equal(encoder.encode_images([flipped]), encoder.encode_images([PICTURES[1]]))


def test_texts_lie_in_the_space_of_the_images(encoder):
    out = encoder.encode_texts(["a cup", "a door"])
    assert out.shape == (2, encoder.space.dim)
    assert out.tobytes() == b"".join(encoder.encode_texts([t]).tobytes() for t in ("a cup", "a door"))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(encoder, wrong):
    with pytest.raises(BadInput, match=r"expected uint8 \[height, width, 3\]"):
        encoder.encode_images([wrong])


def test_labels_are_sorted_probabilities(encoder):
    labels = encoder.look(PICTURES[0], k=3).labels
    p = [label.probability for label in labels]
    assert len(p) == 3
    assert p == sorted(p, reverse=True)
    assert 0 <= min(p) <= sum(p) <= 1 + 1e-6


def test_open_clip_equals_its_own_batch(clip, clip_folder):
    """What we do one at a time is what open_clip does."""
    import open_clip
    from PIL.Image import fromarray

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    with torch.no_grad():
        batch = model.eval().encode_image(torch.stack([preprocess(fromarray(p)) for p in PICTURES]), normalize=True)
    np.testing.assert_allclose(clip.encode_images(PICTURES), batch.numpy(), atol=2e-6)


def test_open_clip_labels_are_those_of_its_zero_shot_classifier(clip):
    look = clip.look(PICTURES[0], k=3)
    cosines = clip.encode_texts(["a cup", "a door", "a cat"]) @ look.vector
    best = ["a cup", "a door", "a cat"][int(cosines.argmax())]
    assert look.labels[0].name == best
    assert sum(label.probability for label in look.labels) == pytest.approx(1)


def test_the_identity_follows_weights_and_preprocessing(clip, clip_folder, tmp_path):
    state = torch.load(clip_folder / "open_clip_pytorch_model.bin", weights_only=True)
    config = json.loads((clip_folder / "open_clip_config.json").read_text())

    def encoder_hash(state, config, name):
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "open_clip_pytorch_model.bin")
        (tmp_path / name / "open_clip_config.json").write_text(json.dumps(config))
        return load_image_encoder(f"local-dir:{tmp_path / name}").space.encoder

    same = encoder_hash(state, config, "same")
    state["logit_scale"] = state["logit_scale"] + 1
    other = encoder_hash(state, config, "weights")
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    assert same == clip.space.encoder
    assert len({same, other, encoder_hash(state, config, "prepared")}) == 3


def test_a_misspelt_encoder_is_answered_with_the_right_one():
    with pytest.raises(BadInput, match="did you mean 'imagenet-bridge'"):
        load_image_encoder("imagenet-brigde")
    with pytest.raises(BadInput, match="did you mean 'ViT-B-32'"):
        load_image_encoder("ViT-B32")
    with pytest.raises(BadInput, match="no pretrained weights '/no/such/file'"):
        load_image_encoder("ViT-B-32:/no/such/file")


def test_a_folder_or_file_that_does_not_fit_is_refused(tmp_path, checkpoint):
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_image_encoder(f"local-dir:{tmp_path}")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_image_encoder(f"RN50:{checkpoint}")


def test_the_published_names_find_their_places(checkpoint):
    model = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(checkpoint, weights_only=True)
    renamed = to_timm(state, model)
    assert list(renamed) == list(model.state_dict())
    with pytest.raises(WeightsError, match=r"_blocks\.16\._bn0\.bias has no place"):
        to_timm({"_blocks.16._bn0.bias": torch.zeros(1)}, model)


def test_the_bridge_is_the_convex_combination_of_names(bridge):
    look = bridge.look(PICTURES[0], k=imagenet_bridge.TOP)
    names = bridge.encode_texts([label.name for label in look.labels])
    expected = np.array([label.probability for label in look.labels]) @ names
    np.testing.assert_allclose(look.vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_wide_frame_is_looked_at_in_crops_from_left_to_right():
    frame = np.zeros((100, 300, 3), np.uint8)
    frame[:, :100, 0], frame[:, 100:200, 1], frame[:, 200:, 2] = 255, 255, 255
    crops = imagenet_bridge._crops(frame)
    assert crops.shape == (3, 3, 224, 224)
    assert crops.mean((2, 3)).argmax(1).tolist() == [0, 1, 2]
    tall = imagenet_bridge._crops(frame.transpose(1, 0, 2))
    assert torch.allclose(tall, crops.transpose(2, 3), atol=1e-5)


def test_a_file_that_is_no_classifier_is_refused(tmp_path, bridge):
    (tmp_path / "x.pth").write_bytes(b"not a checkpoint")
    broken = ImagenetBridge(tmp_path / "x.pth", bridge._text, bridge._names, bridge._name_vectors)
    with pytest.raises(WeightsError, match="is not an EfficientNet-Lite0 checkpoint"):
        broken.encode_images(PICTURES)


def test_name_vectors_are_kept_and_a_torn_file_is_made_again(tmp_path, monkeypatch):
    text, calls = HashingTextEncoder(), []
    encode = text.encode_texts
    monkeypatch.setattr(text, "encode_texts", lambda t: calls.append(1) or encode(t))
    names, vectors = imagenet_bridge._name_vectors(text, tmp_path)
    assert len(names) == 1000
    again = imagenet_bridge._name_vectors(text, tmp_path)
    assert len(calls) == 1
    assert again[0] == names
    assert np.array_equal(again[1], vectors)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert np.array_equal(imagenet_bridge._name_vectors(text, tmp_path)[1], vectors)
    assert len(calls) == 2


@pytest.fixture(scope="module")
def real():
    if any(weights.locate(name) is None for name in ("all-minilm-l6-v2", "efficientnet-lite0", "bikes")):
        pytest.skip("perdure weights fetch all-minilm-l6-v2 efficientnet-lite0 bikes")
    return load_imagenet_bridge()


@pytest.fixture(scope="module")
def cyclist():
    """Frame 150 of the demo clip: a man on a bicycle."""
    capture = cv2.VideoCapture(str(weights.locate("bikes")))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 150)
    frame = capture.read()[1]
    capture.release()
    return frame[..., ::-1]


@pytest.mark.weights
def test_the_bridge_finds_the_bicycle(real, cyclist):
    look = real.look(cyclist, k=3)
    assert {label.name for label in look.labels} & {"rickshaw", "mountain bike", "tandem bicycle"}
    bicycle, cat, dog = real.encode_texts(["a bicycle", "a cat", "a dog"])
    assert look.vector @ bicycle > max(look.vector @ cat, look.vector @ dog) + 0.15


@pytest.mark.weights
def test_the_bridge_needs_no_classifier_for_words(real):
    fresh = load_imagenet_bridge()
    assert fresh.space == real.space
    assert fresh.encode_texts(["a cat"]).shape == (1, 384)
    assert fresh._model is None
