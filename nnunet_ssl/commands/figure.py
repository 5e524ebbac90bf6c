"""`nnunet_ssl figure`: pictures as publications show them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.model_folder import Model, checkpoint_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Pictures of semi-supervised training as publications show them."
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    embeddings = kinds.add_parser("embeddings", help="t-SNE of the patch embeddings of PLGCL, coloured by class")
    embeddings.description = (
        "t-SNE of the patches that PLGCL's contrast sees in preprocessed cases, a panel per checkpoint of one "
        "semi-supervised training: FILE.png, and FILE.csv with class, place and embedding of each patch."
    )
    _add_model(embeddings, required=True)
    embeddings.add_argument(
        "-chk", nargs="+", metavar="FILE", help="checkpoints of the fold, a panel each; default: as for predictions"
    )
    embeddings.add_argument("--cases", nargs="+", metavar="ID", help="default: the validation cases of the fold")
    embeddings.add_argument(
        "--pseudo", action="store_true", help="classes by the network itself, as in images without labels"
    )
    embeddings.add_argument("--batches", type=int, default=10, metavar="N", help="of a training step (default: 10)")
    embeddings.add_argument("--seed", type=int, default=0, help="of patches and t-SNE (default: 0)")
    embeddings.add_argument("-o", required=True, metavar="FILE.png", help="the figure; the CSV has the same name")

    labels = kinds.add_parser("labels", help="cases with pseudo-labels or predictions as contours, and their Dice")
    labels.description = (
        "A picture per case: the image with the true label where there is one, and beside it the predictions of "
        "folders (-pred) or of networks of a checkpoint of semi-supervised training (-tr), with their Dice."
    )
    labels.add_argument("-i", required=True, metavar="FOLDER", help="images, named as for nnUNetv2_predict")
    labels.add_argument("-ref", metavar="FOLDER", help="true labels")
    labels.add_argument(
        "-pred", nargs="+", default=[], type=_named, metavar="NAME=FOLDER", help="label files, and what to call them"
    )
    labels.add_argument("--cases", nargs="+", metavar="ID", help="default: all that were predicted")
    labels.add_argument("-o", required=True, metavar="FOLDER", help="of the pictures, and of label maps by -tr")
    labels.add_argument("-djfile", metavar="FILE", help="dataset.json; default: looked for with the predictions")
    _add_model(labels, required=False)
    labels.add_argument("-chk", metavar="FILE", help="checkpoint of the fold; default: as for predictions")
    labels.add_argument(
        "--networks",
        nargs="+",
        default=["teacher"],
        metavar="NAME",
        help="of the checkpoint: teacher (default), network (the trained one), or others that the method keeps",
    )


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, folder


def _add_model(parser: argparse.ArgumentParser, required: bool) -> None:
    model = parser.add_argument_group("model")
    for option, name in (("-d", "DATASET"), ("-c", "CONFIGURATION"), ("-p", "PLANS"), ("-tr", "TRAINER")):
        model.add_argument(option, required=required, metavar=name, help="as of nnUNetv2_predict")
    model.add_argument("-f", default="0", metavar="FOLD", help="default: 0")
    model.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: cuda")


def run(args: argparse.Namespace) -> int:
    return _embeddings(args) if args.kind == "embeddings" else _labels(args)


def _embeddings(args: argparse.Namespace) -> int:
    import pandas as pd  # what takes time to import, where it is needed

    from nnunet_ssl.evaluation.figures.embedding_figure import draw, with_tsne
    from nnunet_ssl.evaluation.figures.embeddings import PatchEmbedder
    from nnunet_ssl.system.whole_files import write_whole

    model, tables, classes = Model(args.d, args.p, args.tr, args.c), {}, []
    for name in args.chk or [checkpoint_name(model.settings()[1], None)]:
        embedder = PatchEmbedder(model, int(args.f), name, args.cases, args.pseudo, args.device)
        tables[name.removesuffix(".pth")] = with_tsne(embedder.embed(args.batches, args.seed), args.seed)
        classes = embedder.class_names
    target = Path(args.o).with_suffix(".csv")
    os.makedirs(target.parent, exist_ok=True)
    whole = pd.concat(tables, names=["checkpoint"]).reset_index(level="checkpoint")
    write_whole(target, whole.to_csv(index=False, lineterminator="\n").encode())
    write_whole(target.with_suffix(".png"), draw(tables, classes))
    print(f"Embeddings of {len(whole)} patches: {target.with_suffix('.png')}, {target}")
    return 0


def _labels(args: argparse.Namespace) -> int:
    from nnunet_ssl.evaluation.figures.labels import draw_labels
    from nnunet_ssl.evaluation.figures.pseudo_labels import predict_with

    named = dict(args.pred)
    of_model = (args.d, args.p, args.tr, args.c)
    if not all(of_model) and (any(of_model) or not named):
        raise complain(
            "Nothing says which labels to show.",
            remedy="Give their folders with -pred NAME=FOLDER, or a model with -d -c -p and -tr.",
        )
    if all(of_model):
        named |= predict_with(
            Model(*of_model), args.networks, args.i, args.o,
            fold=args.f, checkpoint=args.chk, cases=args.cases, device=args.device,
        )  # fmt: skip
    files = draw_labels(args.i, named, args.o, reference=args.ref, cases=args.cases, dataset_json=args.djfile)
    print(f"{len(files)} pictures: {args.o}")
    return 0
