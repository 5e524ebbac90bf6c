"""`nnunet_ssl predict-as-paper`: nnUNetv2_predict with the windows of a publication."""

from __future__ import annotations

import argparse

from nnunet_ssl.evaluation.as_paper import predict_as_paper


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Predict images with a model of semi-supervised training whose plans carry prediction settings (nnunet_ssl "
        "plans --prediction stride=...): windows at that stride, averaged as the settings say, from the checkpoint "
        "that they name. Options are those of nnUNetv2_predict, which knows nothing of these settings."
    )
    parser.add_argument("-i", required=True, metavar="FOLDER", help="images, named as for nnUNetv2_predict")
    parser.add_argument("-o", required=True, metavar="FOLDER", help="of the predictions; made where it is missing")
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id")
    parser.add_argument("-p", required=True, metavar="PLANS", help="plans of the model")
    parser.add_argument("-tr", required=True, metavar="TRAINER", help="trainer of the model")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration of the model")
    parser.add_argument("-f", nargs="+", default=["0"], metavar="FOLD", help="folds that predict together (default: 0)")
    parser.add_argument(
        "-chk", metavar="FILE", help="checkpoint, such as checkpoint_best.pth; default: as the settings say"
    )
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: cuda")
    parser.add_argument("--save_probabilities", action="store_true", help="as of nnUNetv2_predict")


def run(args: argparse.Namespace) -> int:
    note = predict_as_paper(
        args.i,
        args.o,
        dataset=args.d,
        plans=args.p,
        trainer=args.tr,
        configuration=args.c,
        folds=args.f,
        checkpoint=args.chk,
        device=args.device,
        save_probabilities=args.save_probabilities,
    )
    print(f"Predictions in {args.o}: {note}")
    return 0
