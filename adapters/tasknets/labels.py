"""Class names and colours of the networks, in class order."""

from __future__ import annotations

import colorsys
from typing import NamedTuple


class LabelClass(NamedTuple):
    name: str
    color: tuple[int, int, int]  # RGB, 0 to 255


# The 19 training classes of Cityscapes (Cordts et al., CVPR 2016) in its colours.
CITYSCAPES = (
    LabelClass("road", (128, 64, 128)),
    LabelClass("sidewalk", (244, 35, 232)),
    LabelClass("building", (70, 70, 70)),
    LabelClass("wall", (102, 102, 156)),
    LabelClass("fence", (190, 153, 153)),
    LabelClass("pole", (153, 153, 153)),
    LabelClass("traffic light", (250, 170, 30)),
    LabelClass("traffic sign", (220, 220, 0)),
    LabelClass("vegetation", (107, 142, 35)),
    LabelClass("terrain", (152, 251, 152)),
    LabelClass("sky", (70, 130, 180)),
    LabelClass("person", (220, 20, 60)),
    LabelClass("rider", (255, 0, 0)),
    LabelClass("car", (0, 0, 142)),
    LabelClass("truck", (0, 0, 70)),
    LabelClass("bus", (0, 60, 100)),
    LabelClass("train", (0, 80, 100)),
    LabelClass("motorcycle", (0, 0, 230)),
    LabelClass("bicycle", (119, 11, 32)),
)
VOID = LabelClass("void", (0, 0, 0))

# The classes of `tasknets.scenes`.
STREETS = (
    LabelClass("sky", (70, 130, 180)),
    LabelClass("building", (70, 70, 70)),
    LabelClass("vegetation", (107, 142, 35)),
    LabelClass("pavement", (244, 35, 232)),
    LabelClass("road", (128, 64, 128)),
    LabelClass("pole", (153, 153, 153)),
    LabelClass("car", (0, 0, 142)),
    LabelClass("person", (220, 20, 60)),
)

# Pascal VOC (Everingham et al., IJCV 2010) in its colours.
PASCAL = (
    LabelClass("background", (0, 0, 0)),
    LabelClass("aeroplane", (128, 0, 0)),
    LabelClass("bicycle", (0, 128, 0)),
    LabelClass("bird", (128, 128, 0)),
    LabelClass("boat", (0, 0, 128)),
    LabelClass("bottle", (128, 0, 128)),
    LabelClass("bus", (0, 128, 128)),
    LabelClass("car", (128, 128, 128)),
    LabelClass("cat", (64, 0, 0)),
    LabelClass("chair", (192, 0, 0)),
    LabelClass("cow", (64, 128, 0)),
    LabelClass("dining table", (192, 128, 0)),
    LabelClass("dog", (64, 0, 128)),
    LabelClass("horse", (192, 0, 128)),
    LabelClass("motorbike", (64, 128, 128)),
    LabelClass("person", (192, 128, 128)),
    LabelClass("potted plant", (0, 64, 0)),
    LabelClass("sheep", (128, 64, 0)),
    LabelClass("sofa", (0, 192, 0)),
    LabelClass("train", (128, 192, 0)),
    LabelClass("tv monitor", (0, 64, 128)),
)

HEADS = (LabelClass("head", (60, 220, 120)),)
PEDESTRIANS = (LabelClass("pedestrian", (220, 20, 60)),)

_COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)


def _hue(number: int) -> tuple[int, int, int]:
    """Colours whose neighbours lie far apart: hues at multiples of the golden ratio."""
    return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(number * (5**0.5 - 1) / 2 % 1, 0.75, 0.95))


# The 80 object classes of COCO (Lin et al., ECCV 2014).
COCO = tuple(LabelClass(name, _hue(number)) for number, name in enumerate(_COCO))
