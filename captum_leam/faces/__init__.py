"""Read aligned crops, detect and align faces in photographs, and map results back onto the photographs.

facexlib is imported only when a :class:`FaceAligner` is constructed.
"""

from captum_leam.faces.aligned import AlignedFace, align, template_for
from captum_leam.faces.aligner import AlignedFaces, AlignedFiles, FaceAligner
from captum_leam.faces.crops import read_crop, read_crops
from captum_leam.faces.detections import Detection
from captum_leam.faces.geometry import ARCFACE_112, ARCFACE_112X96
from captum_leam.faces.photos import picture_files, read_photo
from captum_leam.faces.sources import FaceSource, read_face, read_faces

__all__ = [
    "ARCFACE_112",
    "ARCFACE_112X96",
    "AlignedFace",
    "AlignedFaces",
    "AlignedFiles",
    "Detection",
    "FaceAligner",
    "FaceSource",
    "align",
    "picture_files",
    "read_crop",
    "read_crops",
    "read_face",
    "read_faces",
    "read_photo",
    "template_for",
]
