"""Rendered lines of text for the OCR nets: words on patches of real photos, and how much of it a network reads."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tests.bench import photos

HEIGHT, WIDTH = 48, 320
_TEXT = (
    "harbour window 1987 copper Station lemon Nr. 42 quiet River engine paper 3.5 km Market yellow bridge Hotel garden "
    "EXIT open 24h stone Kitchen silver 7:30 train forest North button Coffee winter island Museum orange 100% letter "
    "mountain Bakery glass morning PARKING velvet school thunder Library salt 12.50 ticket compass Ferry blue lantern"
)
WORDS = _TEXT.split()


def lines(count: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Inputs of the recognition net, float32 [count, 3, 48, 320] in -1..1 (BGR), and the text on each."""
    generator = np.random.default_rng(seed)
    backgrounds = photos.calibration()
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(2, 4))) for _ in range(count)]
    images = [_line(text, backgrounds[i % len(backgrounds)], generator) for i, text in enumerate(texts)]
    return np.stack([_recognition_input(image) for image in images]), texts


def pages(count: int, edge: int = 640, seed: int = 0) -> np.ndarray:
    """Inputs of the detection net, float32 [count, 3, edge, edge] normalised as ImageNet: a dozen lines on a photo."""
    generator = np.random.default_rng(seed)
    backgrounds = photos.calibration()
    return np.stack([_page(backgrounds[i % len(backgrounds)], edge, generator) for i in range(count)])


def characters(path: str) -> list[str]:
    """The recognition net's classes: blank, those its file names, space."""
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def read(odds: np.ndarray, known: list[str]) -> list[str]:
    """The text in each row of `odds` [N, steps, classes]: repeats merged, blanks dropped (CTC, greedy)."""
    best = odds.argmax(axis=2)
    fresh = np.concatenate([np.ones((len(best), 1), bool), best[:, 1:] != best[:, :-1]], axis=1)
    return ["".join(known[i] for i in row[keep]) for row, keep in zip(best, fresh, strict=True)]


def accuracy(odds: np.ndarray, texts: list[str], known: list[str]) -> float:
    """Percent of lines read without any mistake, spaces aside."""
    found = [text.replace(" ", "") for text in read(odds, known)]
    return 100 * float(np.mean([one == text.replace(" ", "") for one, text in zip(found, texts, strict=True)]))


def _line(text: str, background: Image.Image, generator: np.random.Generator) -> Image.Image:
    font = ImageFont.load_default(size=int(generator.integers(11, 30)))
    left, top, right, bottom = font.getbbox(text)
    size = (int(right - left) + 16, int(bottom - top) + 12)
    image = _patch(background, size, generator)
    dark = generator.random() < 0.5
    image = Image.blend(image, Image.new("RGB", size, "white" if dark else "black"), 0.45)
    shade = generator.integers(0, 120, 3) if dark else generator.integers(135, 256, 3)
    ImageDraw.Draw(image).text((8 - left, 6 - top), text, fill=tuple(shade.tolist()), font=font)
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 0.8))))


def _patch(photo: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    grown = photo.resize((max(photo.width, size[0]), max(photo.height, size[1])))
    left, top = (int(generator.integers(0, whole - part + 1)) for whole, part in zip(grown.size, size, strict=True))
    return grown.crop((left, top, left + size[0], top + size[1]))


def _recognition_input(image: Image.Image) -> np.ndarray:
    width = min(WIDTH, max(1, round(image.width * HEIGHT / image.height)))
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)[:, :, ::-1]
    padded = np.zeros((3, HEIGHT, WIDTH), np.float32)
    padded[:, :, :width] = pixels.transpose(2, 0, 1) / 127.5 - 1
    return padded


def _page(background: Image.Image, edge: int, generator: np.random.Generator) -> np.ndarray:
    page = background.resize((edge, edge))
    for row in range(12):
        line = _line(" ".join(generator.choice(WORDS, size=3)), background, generator)
        page.paste(line, (int(generator.integers(0, edge // 3)), row * edge // 12))
    pixels = np.asarray(page, np.float32)[:, :, ::-1] / np.float32(255)
    normalised = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
