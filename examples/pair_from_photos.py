"""
Two photographs, one decision
=============================

From two photographs to a score, a decision, what speaks for the match and what speaks against it, on the photographs themselves. It takes
your photographs, the weights of the face detector, and your network, and is therefore not run when these pages are built:

.. code-block:: shell

   python examples/pair_from_photos.py a.jpg b.jpg --weights my_weights/ --model arcface.onnx --preprocessing insightface --threshold 0.3

``captum-leam explain a.jpg b.jpg …`` does the same and writes a page with tables.
"""

import argparse

from captum_leam import explain_pair
from captum_leam.faces import FaceAligner, read_photo
from captum_leam.models import load_model
from captum_leam.regions import TemplateParser


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Explain whether two photographs show one person."
    )
    parser.add_argument("photos", nargs=2, metavar="PHOTO")
    parser.add_argument(
        "--weights", required=True, help="file or folder of facexlib's RetinaFace"
    )
    parser.add_argument(
        "--model",
        required=True,
        help="FILE.onnx, FILE.py:callable or package.module:callable",
    )
    parser.add_argument(
        "--preprocessing",
        help="insightface, imagenet or unit, for files that say nothing about it",
    )
    parser.add_argument(
        "--threshold", type=float, help="a cosine at or over it is a match"
    )
    parser.add_argument("--out", default="pair.png")
    return parser.parse_args()


def main() -> None:
    options = arguments()

    # %%
    # The faces: found, aligned to the standard crop. The largest of each photograph is taken; a detection that cannot be a face is
    # refused in words.
    aligner = FaceAligner(weights=options.weights)
    photos = [read_photo(path) for path in options.photos]
    a, b = (aligner(photo, "largest")[0] for photo in photos)

    # %%
    # The pair: every face is explained towards the other.
    model = load_model(options.model, options.preprocessing)
    pair = explain_pair(model, a, b, threshold=options.threshold)
    print(pair.sentence())

    # %%
    # Which regions, by the template of the standard crop, and the picture.
    regions = TemplateParser()
    table = pair.regions(regions(pair.images), regions.scheme.merge_sides())
    print(
        table[["face", "speaks", "region", "share", "lift"]]
        .sort_values("lift", ascending=False)
        .head(8)
        .to_string(index=False)
    )
    pair.plot(photos).savefig(options.out, dpi=150)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
