"""Raw outputs of a model -> detections in source pixels. Pure numpy."""

from yolastic_worker.postprocess.detect import HeadKind, detect, head_kind

__all__ = ["HeadKind", "detect", "head_kind"]
