"""
Two photographs, one decision
=============================

After this tutorial you can explain a decision about two photographs: the score, and the parts that support or oppose the match,
drawn on the photographs. It needs your photographs, the weights of the face detector and your network, so it is not run when
these pages are built:

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
        help="insightface, imagenet or unit, for files without a preprocessing",
    )
    parser.add_argument("--threshold", type=float, help="lowest cosine of a match")
    parser.add_argument("--out", default="pair.png")
    return parser.parse_args()


def main() -> None:
    options = arguments()

    # %%
    # Detect the largest face of each photograph and align it to the standard crop. A detection that cannot be a face raises an
    # error with the reason.
    aligner = FaceAligner(weights=options.weights)
    photos = [read_photo(path) for path in options.photos]
    a, b = (aligner(photo, "largest")[0] for photo in photos)

    # %%
    # Explain each face towards the other.
    model = load_model(options.model, options.preprocessing)
    pair = explain_pair(model, a, b, threshold=options.threshold)
    print(pair.sentence())

    # %%
    # Report regions of the standard crop, and draw the picture.
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
