"""Recipes of publications by name, for ``training: {"recipe": NAME}`` in the plans: any trainer can train as they did.

Numbers with their source; what a publication leaves open is nnU-Net's. An epoch has nnU-Net's 250 steps.
"""

from __future__ import annotations

from dataclasses import replace

from nnunet_ssl.training.recipe import AS_PUBLISHED, CONSTANT, Optimization, Recipe, divided_by_ten_at

SGD = Optimization("sgd", rate=0.01, weight_decay=1e-4, momentum=0.9, nesterov=False)

PUBLISHED: dict[str, Recipe] = {
    # UA-MT's code for the left atrium, which Dual Networks (Sec. 3.1) and the tables of DKUXNet follow: 6000 steps
    "uamt": replace(
        AS_PUBLISHED,
        optimization=replace(SGD, schedule=divided_by_ten_at(2500 / 6000, 5000 / 6000)),
        epochs=24,
        batch_size=2,
    ),
    # DHC's code for Synapse, whose numbers SKCDF's Tables 1 and 2 repeat: polynomial decay over 300 passes, 2400 steps
    "dhc": replace(
        AS_PUBLISHED,
        optimization=Optimization("sgd", rate=0.03, weight_decay=3e-5, momentum=0.9),
        epochs=10,
        batch_size=2,
        mixed_precision=True,
    ),
    # SKCDF, Sec. 4.2; 12,000 steps are 1500 passes over 16 unlabelled scans
    "skcdf": replace(
        AS_PUBLISHED,
        optimization=Optimization("sgd", rate=0.3, momentum=0.9),
        epochs=48,
        batch_size=2,
    ),
    # SSL4MIS' code for ACDC, the one that PLGCL's released code descends from: 30,000 steps, geometric augmentation
    "ssl4mis": replace(AS_PUBLISHED, optimization=SGD, augmented=True, epochs=120, batch_size_2d=12),
    # BCP's code for the left atrium: 2000 steps on labelled pairs, then 15,000 that start at 0.01 again and divide it
    # by ten every 2500
    "bcp_la": replace(
        AS_PUBLISHED,
        optimization=replace(SGD, schedule=divided_by_ten_at(*((2000 + 2500 * i) / 17_000 for i in range(1, 6)))),
        augmented=True,
        epochs=68,
        batch_size=4,
    ),
    # AD-MT's code for the left atrium: 15,000 steps, polynomial decay; half its loss at 0.01 is the whole at 0.005
    "admt_la": replace(
        AS_PUBLISHED,
        optimization=replace(SGD, rate=0.005, weight_decay=2e-4),
        augmented=True,
        epochs=60,
        batch_size=2,
    ),
    # PLGCL, Sec. 4.2: Adam at 1e-4, 16 slices, half of them labelled; Algorithm 1 clips nothing. Its loader (SSL4MIS')
    # takes any slice, its test mirrors nothing. No decay, length, augmentation or precision is stated
    "plgcl": replace(
        AS_PUBLISHED,
        optimization=Optimization("adam", rate=1e-4, weight_decay=0.0, schedule=CONSTANT),
        augmented=True,
        deep_supervision=True,
        mixed_precision=True,
    ),
    # DKUXNet, Sec. 3.2, and its released code: AdamW at 1e-4, 40,000 steps, uniform crops
    "dkuxnet": replace(
        AS_PUBLISHED,
        optimization=Optimization("adamw", rate=1e-4, weight_decay=0.01, schedule=CONSTANT),
        augmented=True,
        epochs=160,
        batch_size=1,
    ),
}
