"""Pictures of different sizes as batches: crops of the whole picture, workers, failures, exact resume."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import Normalize, TrainLoader, ValidationLoader, reading, uint8_batches
from paddle_resnet.data.augment.boxes import draw_crops
from paddle_resnet.data.reading import PictureSplit
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.images.decode import decode_crop, decode_image, decode_square, decode_whole

NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
SIZE, RESIZE = 16, 20
EVERYTHING = {
    "scale": (0.2, 1.0),
    "flip": True,
    "trivial_augment": True,
    "cutout": 3,
    "erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}


class Files(PictureSplit):
    """Picture files; an image after an unreadable one stands in for it."""

    def __init__(self, files, workers=2, in_memory=False):
        self._files, self.workers, self.in_memory, self.resize = files, workers, in_memory, RESIZE
        self.labels = np.arange(len(files))
        self.asked = []
        self._kept = [decode_whole(file, RESIZE) for file in files] if in_memory else None

    def pictures(self, indices):
        self.asked += list(indices)
        return [(self._kept or self._files)[index] for index in indices]

    def names(self, indices):
        return [self._files[index].name for index in indices]

    def stand_in(self, index, error):
        if index + 1 == len(self):
            raise error
        return index + 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs of noise, wide, tall and square, and a tall one that EXIF turns."""
    folder, generator, paths = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number in range(24):
        height, width = generator.integers(20, 70, 2)
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 5 == 0 else 1
        paths.append(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
        coarse.resize((int(width), int(height))).save(paths[-1], exif=exif)
    return paths


def loader(split, seed=3, positions=None, **augment):
    augment = AugmentConfig(**augment)
    return TrainLoader(split, 8, SIZE, RESIZE, NORMALIZE, augment, seed, rank_positions=positions)


def values(batches):
    return [[np.array(each) for each in batch] for batch in batches]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [EVERYTHING, {"pad": 2, "flip": True}], ids=["boxes", "padded"])
def test_any_number_of_workers_gives_the_same_batches(files, augment, monkeypatch):
    monkeypatch.setattr(reading, "MIN_PICTURES", 1)
    one, two, four = (values(loader(Files(files, workers), **augment)) for workers in (1, 2, 4))
    assert_same(two, one)
    assert_same(four, one)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("seen", [1, 2])
def test_an_interrupted_epoch_of_pictures_continues(files, in_memory, seen):
    split = Files(files, in_memory=in_memory)
    whole = loader(split, **EVERYTHING)
    batches = iter(whole)
    for _ in range(seen):
        next(batches)
    state = whole.state_dict()
    fresh = loader(split, seed=99, **EVERYTHING)
    fresh.set_state_dict(state)
    fresh.first_batch = seen
    assert_same(values(fresh), values(batches))
    assert_same(values(fresh), values(whole))


@pytest.mark.parametrize("number", range(11))
def test_a_crop_is_cut_from_the_whole_picture(files, number):
    draws = draw_crops(1, (0.1, 0.6), np.random.default_rng(number))
    flipped = number % 2 == 1
    found = decode_crop(files[number], lambda height, width: draws.box(0, height, width), SIZE, flipped)
    with Image.open(files[number]) as image:
        upright = image.convert("RGB").transpose(Image.Transpose.ROTATE_270) if number % 5 == 0 else image
        top, left, height, width = draws.box(0, upright.height, upright.width)
        box = upright.convert("RGB").crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected[:, ::-1] if flipped else expected)


@pytest.mark.parametrize("in_memory", [True, False])
def test_crops_reach_the_ends_of_a_wide_picture(tmp_path, in_memory):
    """The picture's columns are its levels: dark at the left end, bright at the right one."""
    columns = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, np.newaxis], (80, 240, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(tmp_path / "wide.png")
    split = Files([tmp_path / "wide.png"] * 200, in_memory=in_memory)
    images = NORMALIZE.denormalize(np.concatenate([each[0] for each in values(loader(split, scale=(0.05, 0.1)))]))
    assert images.min() < 10
    assert images.max() > 230


def test_a_large_jpeg_is_shrunk_while_it_is_decoded(tmp_path):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    found = decode_crop(
        tmp_path / "large.jpg",
        lambda height, width: (height // 12, width // 8, height * 3 // 4, width * 5 // 8),
        64,
        flipped=False,
    )
    with Image.open(tmp_path / "large.jpg") as image:
        expected = image.crop((200, 100, 1200, 1000)).resize((64, 64), Image.Resampling.BILINEAR)
    assert 0 < np.abs(found.astype(int) - np.asarray(expected)).mean() < 1


@pytest.mark.parametrize("size", [(20, 20), (37, 23), (23, 37), (333, 250), (401, 97), (9, 64), (900, 12)])
def test_the_middle_of_a_kept_picture_has_evaluations_bits(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    kept = decode_whole(pixels, RESIZE)
    assert min(kept.shape[:2]) == RESIZE
    longer = RESIZE * max(size) // min(size)
    assert max(kept.shape[:2]) == min(longer, 4 * RESIZE)
    np.testing.assert_array_equal(decode_square(kept, RESIZE), decode_image(pixels, RESIZE, RESIZE))


@pytest.mark.parametrize("size", [(37, 23), (50, 150)])
def test_a_kept_picture_is_the_resized_one(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    kept = decode_whole(pixels, RESIZE)
    whole = Image.fromarray(pixels).resize(kept.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(kept.astype(int) - np.asarray(whole)).max() <= 1


@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_of_pictures_is_decoding_and_centre_crop(files, in_memory):
    split = Files(files, in_memory=in_memory)
    start = round((RESIZE - SIZE) / 2)
    squares = np.stack([decode_image(file, RESIZE, RESIZE) for file in files])
    np.testing.assert_array_equal(split.batch(range(len(files))), squares)
    expected = squares[:, start : start + SIZE, start : start + SIZE]
    found = np.concatenate([pixels for pixels, _ in uint8_batches(split, 10, RESIZE, SIZE)])
    np.testing.assert_array_equal(found, expected)
    normalised = np.concatenate([each[0] for each in values(ValidationLoader(split, 7, SIZE, RESIZE, NORMALIZE))])
    np.testing.assert_array_equal(normalised, NORMALIZE(paddle.to_tensor(expected)).numpy())


def test_a_rank_reads_its_own_share_only(files):
    split, positions = Files(files), np.array([1, 4, 6])
    whole, part = loader(split, scale=(0.3, 1.0)), loader(split, positions=positions, scale=(0.3, 1.0))
    expected = [[each[positions] for each in batch] for batch in values(whole)]
    split.asked.clear()
    assert_same(values(part), expected)
    assert len(split.asked) == 9


@pytest.mark.slow
def test_another_picture_stands_in_for_an_unreadable_one(files, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with_bad = [*files[:5], tmp_path / "bad.jpg", tmp_path / "bad.jpg", *files[7:]]
    replaced = [*files[:5], files[7], files[7], *files[7:]]
    for kind in ({"pad": 1}, {"flip": True}):
        assert_same(values(loader(Files(with_bad), **kind)), values(loader(Files(replaced), **kind)))
    with pytest.raises(UsageError, match=r"bad\.jpg: cannot be read as an image"):
        values(loader(Files([*files[:7], tmp_path / "bad.jpg"])))


@pytest.mark.slow
def test_death_of_a_decoding_process_is_one_line(files):
    split = Files(files * 20, workers=1)
    batches = iter(loader(split, scale=(0.3, 1.0)))
    next(batches)
    reading._processes(1)._workers[0].process.kill()
    with pytest.raises(RunFailure, match="a worker process ended") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    assert len(values(loader(Files(files, workers=1)))) == 3  # a new process


def test_a_run_goes_on_with_the_crops_it_began_with(files):
    kept, decoded = (loader(Files(files, in_memory=in_memory), scale=(0.3, 1.0)) for in_memory in (True, False))
    with pytest.raises(UsageError, match=r"crops of pictures in memory, but now .* put data\.memory_mb back"):
        decoded.set_state_dict(kept.state_dict())
    padded = loader(Files(files), pad=2)
    padded.set_state_dict(loader(Files(files, in_memory=True), pad=2).state_dict())
