"""Classify pictures: python classify_onnx.py model.onnx PICTURE...   (needs only numpy, pillow and onnxruntime)."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, size, resize = json.loads(about["classes"]), int(about["image_size"]), int(about["resize"])
for name in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(name))
    if picture.mode.startswith("I"):  # 16 bits
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    picture = picture.convert("RGBA")  # transparency becomes white
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    width, height = (resize * side // min(picture.size) for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    [probabilities] = session.run(None, {"images": np.asarray(picture)[np.newaxis]})[0]
    best = int(probabilities.argmax())
    print(f"{name}: {classes[best]} {probabilities[best]:.4f}")
